"""Workflow -> Plan: which steps, in which order, under which keys; what cannot work is refused.

    input model --pass--> model --pass--> model            each pass's proof behind it,
         |                  |               |              each stage's metrics behind that
       metrics            metrics         metrics

Every key is known before any work is done: a key is made of the operation, the content of what
its fields name, and the keys of what it works on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from drupe.chain import INPUT, Chain, Step
from drupe.config.default_metrics import metrics_of
from drupe.config.schema import InputModel, NamedMetric, Workflow
from drupe.config.settings import settings_of
from drupe.config.workspace import completed
from drupe.core.cache import Cache
from drupe.core.errors import Blockers, DrupeError, Refused, refuse
from drupe.core.files import check_writable
from drupe.core.model import Model
from drupe.core.operation import Operation
from drupe.core.resource import AzureMLClient, Remote
from drupe.core.system import NamedSystem, Setting
from drupe.resources.inputs import Inputs
from drupe.resources.models import Located
from drupe.resources.remote import Unfilled

CACHE_FIELD = "engine.cache_dir"


@dataclass(frozen=True)
class Plan:
    """All that will be done, in order.

    blockers: why it cannot be, as far as planning finds it. refusals: those of them that are a
    pass's word on what it is given. settings: of each system, by its name.
    fetched: the digests of what was brought from elsewhere.
    """

    workflow: Workflow
    source: Located
    cache: Cache
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    blockers: tuple[DrupeError, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    fetched: frozenset[str] = frozenset()
    refusals: tuple[DrupeError, ...] = ()

    @property
    def to_run(self) -> tuple[Step, ...]:
        """The steps whose results are not in the cache."""
        return tuple(step for step in self.steps if not step.hit)

    @property
    def kept(self) -> set[str]:
        """What of the cache is used beside results, in the words of `Cache.using`."""
        systems = {step.system.name: step.system.system for step in self.steps}
        own = [each.keeps(self.settings[name]) for name, each in systems.items()]
        return set(self.fetched).union(*own)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages: the input model and one for each pass."""
        return (INPUT, *self.makers)

    @property
    def makers(self) -> dict[str, Step]:
        """The step of each pass, by its stage; also of one whose work another does inside."""
        passes = [step for step in self.steps if step.role == "pass"]
        both = [each for step in passes for each in (step.inside, step) if each is not None]
        return {step.stage: step for step in both}

    @property
    def delivers(self) -> bool:
        """Whether the last pass makes a model that is to be delivered."""
        made = [step.operation for step in self.steps if step.role == "pass"]
        return bool(made) and getattr(made[-1], "delivers", True)


def make(workflow: Workflow, warn: Callable[[str], None] = lambda text: None) -> Plan:
    """Return the plan of `workflow`. Reads files, writes nothing.

    Raises Refused (or DrupeError) for what can be known to fail.
    """
    planned = draft(workflow, warn)
    refuse(workflow.file, planned.blockers)
    return planned


def draft(
    workflow: Workflow,
    warn: Callable[[str], None] = lambda text: None,
    note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Return the plan of `workflow` with all that is in its way, if it is no plan to be run.

    note: is told how far what lies elsewhere is fetched.
    """
    folder = Path(workflow.file).resolve().parent
    cache = Cache(cache_folder(workflow), warn)
    blockers = Blockers()
    with blockers:
        cache.check_folders(CACHE_FIELD)
    own = [named.host for named in workflow.passes if named.host]
    for system in {each.name: each for each in (workflow.host, *own, workflow.measures)}.values():
        refusal = system.system.refusal()
        if refusal:
            blockers.add(Refused(f"systems.{system.name}", refusal.what, refusal.remedy))
    for fault in workflow.unready:
        blockers.add(Refused(fault.where, fault.what, fault.remedy))
    metrics, notes = metrics_of(workflow)
    settings = settings_of(workflow, metrics, cache.folder)
    source = _absent(workflow)
    asked: set[str] = set()
    hosts = [named.host or workflow.host for named in workflow.passes] or [workflow.host]
    used = [*hosts, *([workflow.measures] if metrics else [])]
    inputs = Inputs(
        folder=folder,
        cache=cache.folder,
        digests=cache.digests,
        client=lambda remote, where: _client(workflow, folder, remote, where, asked),
        note=note,
        reads=lambda remote: all(each.system.reads(remote) for each in used),
        reaches_hub=all(each.system.reaches_hub for each in used),
    )
    with blockers:
        source = _source(workflow.input_model, inputs, _needs_tokenizer(workflow, metrics))
    notes += [source.note] if source.note else []
    for key in ("cache_dir", "output_dir"):
        with blockers:
            _check_beside(source, (folder / getattr(workflow.engine, key)).resolve(), key)
    chain = Chain(workflow, cache, source, inputs, metrics, blockers, settings)
    chain.measure(INPUT, first=True, last=not workflow.passes)
    for index, named in enumerate(workflow.passes):
        chain.apply(named)
        chain.measure(named.name, first=False, last=index == len(workflow.passes) - 1)
    chain.check_judged()
    notes += [*chain.notes, *sorted({*asked, *_workspace_notes(workflow, used)})]
    steps, used_there = tuple(chain.steps), frozenset(inputs.used)
    planned = Plan(
        workflow, source, cache, steps, tuple(notes), settings=settings, fetched=used_there,
        refusals=tuple(chain.refusals),
    )  # fmt: skip
    told = any(fault.where == CACHE_FIELD for fault in blockers.found)
    if planned.to_run and not told:  # a cache that cannot be written serves what it holds
        with blockers:
            check_writable(cache.folder, CACHE_FIELD)
    return replace(
        planned, blockers=tuple(placed(fault, workflow) for fault in _told_once(blockers.found))
    )


def _told_once(found: list[DrupeError]) -> list[DrupeError]:
    """Return faults without those of a placeholder that the config's own faults have named."""
    named = "\n".join(fault.what for fault in found if not isinstance(fault, Unfilled))
    return [fault for fault in found if not (isinstance(fault, Unfilled) and fault.value in named)]


def placed(fault: DrupeError, workflow: Workflow) -> DrupeError:
    """Return a fault with the line of the config that it is about, where one is."""
    step = fault.where.partition(" (")[0].partition(": ")[0]
    for place in (fault.where, f"passes.{step}"):
        if place in workflow.lines:
            fault.where = f"{workflow.lines[place]}: {fault.where}"
            break
    return fault


def _check_beside(source: Located, written: Path, key: str) -> None:
    parts = source.parts or (source.model.path if source.model.kind == "files" else None)
    inside = parts is not None and written.is_relative_to(parts)
    if source.found and (inside or written == source.model.path):
        raise Refused(
            f"engine.{key}",
            f"{written} lies in the input model's folder, which each run would then change",
            "Name a folder beside it.",
        )


def _absent(workflow: Workflow) -> Located:
    """Return what stands for an input model that is not there."""
    asked = workflow.input_model
    remote = isinstance(asked.model_path, Remote)
    name = asked.model_path.uri if isinstance(asked.model_path, Remote) else asked.model_path
    kind = "hf" if asked.adapter_path is None else "hf-adapter"
    kind = {"Files": "files", "ONNXModel": "onnx-genai"}.get(asked.type, kind)
    path = Path() if remote else Path(workflow.file).resolve().parent / name
    return Located(Model(kind, path, ""), name, found=False)


def cache_folder(workflow: Workflow) -> Path:
    """Return the folder of the workflow's cache."""
    return (Path(workflow.file).resolve().parent / workflow.engine.cache_dir).resolve()


def _source(asked: InputModel, inputs: Inputs, needs_tokenizer: bool) -> Located:
    if asked.type == "Files":
        return inputs.files(asked.model_path)
    if asked.type == "ONNXModel":
        return inputs.export(asked.model_path)
    arguments = asked.load_kwargs
    found = inputs.model(
        asked.model_path,
        arguments.revision,
        arguments.trust_remote_code,
        needs_tokenizer=needs_tokenizer,
    )
    if asked.adapter_path is None:
        return found
    return replace(found, model=inputs.adapter(asked.adapter_path, found.model))


def _client(
    workflow: Workflow, folder: Path, remote: Remote, where: str, told: set[str]
) -> AzureMLClient | None:
    """Return the workspace in which a resource lies; of one that lies in none, who asks."""
    own = remote.azureml_client
    if own is not None:
        own = completed(own, folder)
        if all(own.triple):
            return own
    if not remote.needs_client:
        return workflow.workspace.client
    client = workflow.workspace.needed(where)
    told.add(workflow.workspace.note)
    return client


def _workspace_notes(workflow: Workflow, used: list[NamedSystem]) -> Iterator[str]:
    """Yield which workspace was found, where a system is in it or a package is sent there."""
    found = workflow.workspace.client
    clients = [each.system.client() for each in used]
    clients += [found for package in workflow.engine.packaging_config if package.is_sent]
    if found and any(each and each.triple == found.triple for each in clients):
        yield workflow.workspace.note


def _needs_tokenizer(workflow: Workflow, metrics: list[NamedMetric]) -> bool:
    """Return whether any step reads text: each that does loads its tokenizer by transformers."""
    passes = [named.step for named in workflow.passes]
    operations: list[Operation] = [*passes, *(named.metric for named in metrics)]
    return any("transformers" in operation.libraries for operation in operations)
