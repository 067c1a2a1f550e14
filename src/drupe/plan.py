"""Workflow -> Plan: which steps, in which order, under which keys; what cannot work is refused.

    input model --pass--> model --pass--> model            each pass's proof behind it,
         |                  |               |              each stage's metrics behind that
       metrics            metrics         metrics

Every key is known before any work is done: a key is made of the operation, the content of what
its fields name, and the keys of what it works on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from drupe.catalog import METRICS
from drupe.config.default_metrics import metrics_of
from drupe.config.schema import NamedMetric, NamedPass, Workflow
from drupe.core.cache import Cache
from drupe.core.dataset import Dataset
from drupe.core.digest import DigestMemo, value_digest
from drupe.core.errors import Blockers, DrupeError, Refused, refuse
from drupe.core.files import check_writable, files_below
from drupe.core.libraries import HERE, Environment
from drupe.core.model import KINDS, Model
from drupe.core.operation import Operation
from drupe.core.resource import Remote
from drupe.core.system import NamedSystem, Setting
from drupe.core.target import Target
from drupe.resources.models import Located, locate, locate_adapter, locate_files
from drupe.resources.rows import located

INPUT = "input model"
CACHE_FIELD = "engine.cache_dir"
FOLDER_NAME = re.compile(r"\w[\w .+-]{0,60}")


@dataclass(frozen=True)
class Step:
    """One operation on one stage of the chain.

    name: as the user reads it ("lora", "lora: accuracy"). stage: the stage that it makes (a
    pass) or is about (a proof, a metric). reads: the stages that it works on, the input first.
    key: empty where it cannot be known, for something that it is made of is not there.
    system: where it runs.
    parts: what the key is the hash of.
    """

    name: str
    role: Literal["pass", "proof", "metric"]
    stage: str
    reads: tuple[str, ...]
    registered: str
    operation: Operation
    parents: tuple[str, ...]
    key: str
    hit: bool
    system: NamedSystem
    parts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def group(self) -> str:
        """The table of the catalog in which the operation is found."""
        return "passes" if self.role == "pass" else "metrics"


@dataclass(frozen=True)
class Plan:
    """All that will be done, in order.

    blockers: why it cannot be, as far as planning finds it. settings: of each system, by its name.
    """

    workflow: Workflow
    source: Located
    cache: Cache
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    blockers: tuple[DrupeError, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def to_run(self) -> tuple[Step, ...]:
        """The steps whose results are not in the cache."""
        return tuple(step for step in self.steps if not step.hit)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages: the input model and one for each pass."""
        return (INPUT, *(step.stage for step in self.steps if step.role == "pass"))


def make(workflow: Workflow, warn: Callable[[str], None] = lambda text: None) -> Plan:
    """Return the plan of `workflow`. Reads files, writes nothing.

    Raises Refused (or DrupeError) for what can be known to fail.
    """
    planned = draft(workflow, warn)
    refuse(workflow.file, planned.blockers)
    return planned


def draft(workflow: Workflow, warn: Callable[[str], None] = lambda text: None) -> Plan:
    """Return the plan of `workflow` with all that is in its way, if it is no plan to be run."""
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
    with blockers:
        source = _source(workflow, folder, cache.digests, _needs_tokenizer(workflow, metrics))
    notes += [source.note] if source.note else []
    for key in ("cache_dir", "output_dir"):
        with blockers:
            _check_beside(source, (folder / getattr(workflow.engine, key)).resolve(), key)
    chain = _Chain(workflow, cache, source, metrics, blockers, settings)
    chain.measure(INPUT, first=True, last=not workflow.passes)
    for index, named in enumerate(workflow.passes):
        chain.apply(named)
        chain.measure(named.name, first=False, last=index == len(workflow.passes) - 1)
    planned = Plan(workflow, source, cache, tuple(chain.steps), tuple(notes), settings=settings)
    told = any(fault.where == CACHE_FIELD for fault in blockers.found)
    if planned.to_run and not told:  # a cache that cannot be written serves what it holds
        with blockers:
            check_writable(cache.folder, CACHE_FIELD)
    return replace(planned, blockers=tuple(placed(fault, workflow) for fault in blockers.found))


def settings_of(
    workflow: Workflow, metrics: Sequence[NamedMetric], cache: Path
) -> dict[str, Setting]:
    """Return what each system is told of the run: the operations that are planned there."""
    planned: dict[str, list[Operation]] = {workflow.host.name: [], workflow.measures.name: []}
    for named in workflow.passes:
        host = named.host or workflow.host
        proof = METRICS.find(named.step.proof) if named.step.proof else None
        proofs = [proof(**named.step.proof_fields())] if proof else []
        planned.setdefault(host.name, []).extend([named.step, *proofs])
    planned[workflow.measures.name] += [named.metric for named in metrics]
    folder = Path(workflow.file).resolve().parent
    return {name: Setting(name, folder, cache, tuple(each)) for name, each in planned.items()}


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
    kind = "files" if asked.type == "Files" else kind
    path = Path() if remote else Path(workflow.file).resolve().parent / name
    return Located(Model(kind, path, ""), name, found=False)


def cache_folder(workflow: Workflow) -> Path:
    """Return the folder of the workflow's cache."""
    return (Path(workflow.file).resolve().parent / workflow.engine.cache_dir).resolve()


def _source(
    workflow: Workflow, folder: Path, digests: DigestMemo, needs_tokenizer: bool
) -> Located:
    asked = workflow.input_model
    if isinstance(asked.model_path, Remote):
        raise _not_fetched("input_model.model_path", asked.model_path)
    if asked.type == "Files":
        return locate_files(asked.model_path, folder, digests)
    located = locate(
        asked.model_path,
        folder,
        asked.load_kwargs.revision,
        asked.load_kwargs.trust_remote_code,
        digests,
        needs_tokenizer=needs_tokenizer,
    )
    if asked.adapter_path is None:
        return located
    adapter = locate_adapter(asked.adapter_path, folder, located.model, digests)
    return replace(located, model=adapter)


def _not_fetched(where: str, remote: Remote) -> Refused:
    what = f"is {remote.uri}, and this version fetches nothing from AzureML"
    return Refused(where, what, "Download it, and give its path.")


def _with_rows_here(operation: Operation) -> Operation:
    """Return the operation with its data sets of the Hub brought here."""
    here = {}
    for name in type(operation).model_fields:
        value = getattr(operation, name)
        if isinstance(value, Dataset) and value.load_dataset_config.of_hub:
            here[name] = located(value)
    return operation.model_copy(update=here) if here else operation


def _datasets_of(operation: Operation) -> list[Dataset]:
    values = (getattr(operation, name) for name in type(operation).model_fields)
    return [value for value in values if isinstance(value, Dataset)]


def _needs_tokenizer(workflow: Workflow, metrics: list[NamedMetric]) -> bool:
    """Return whether any step reads text: each that does loads its tokenizer by transformers."""
    passes = [named.step for named in workflow.passes]
    operations: list[Operation] = [*passes, *(named.metric for named in metrics)]
    return any("transformers" in operation.libraries for operation in operations)


class _Chain:
    """The stages one after the other, with the key and the kind of the latest."""

    def __init__(
        self,
        workflow: Workflow,
        cache: Cache,
        source: Located,
        metrics: list[NamedMetric],
        blockers: Blockers,
        settings: Mapping[str, Setting],
    ) -> None:
        self._blockers = blockers
        self._settings = settings
        self._source = source
        self._workflow = workflow
        self._cache = cache
        self._metrics = metrics
        self._kinds = {INPUT: source.model.kind}
        base = source.model.base
        model = source.model
        root = ["input", model.kind, model.digest, base.digest if base else None, model.remote_code]
        self._keys = {INPUT: value_digest(root) if source.found else ""}
        # The content of each stage, as far as it is made: what follows on the unmade is no hit.
        self._digests: dict[str, str | None] = {INPUT: source.model.digest or None}
        self._makers: dict[str, Operation] = {}
        self._environments: dict[str, Environment] = {}
        self._latest = INPUT
        self.steps: list[Step] = []

    def apply(self, named: NamedPass) -> None:
        """Add a pass on the latest stage, and its proof."""
        name, step = named.name, named.step
        system = named.host or self._workflow.host
        before = self._latest
        if name in self._keys:
            what = "is a stage's own name"
            self._blockers.add(Refused(f"passes.{name}", what, "Give the pass another name."))
            return
        if not FOLDER_NAME.fullmatch(name):
            what = "cannot be a part of the output folder's name"
            remedy = "Name the pass with letters, digits, _ and -."
            self._blockers.add(Refused(f"passes.{name}", what, remedy))
        self._add(name, "pass", name, (before,), named.type, step, system)
        self._latest = name
        self._kinds[name] = step.gives
        self._keys[name] = self.steps[-1].key
        if step.proof:
            proof = METRICS.find(step.proof)(**step.proof_fields())
            self._add(f"{name}: proof", "proof", name, (name, before), step.proof, proof, system)

    def measure(self, stage: str, first: bool, last: bool) -> None:
        """Add the metrics of a stage, as far as the config wants it measured."""
        wanted = self._workflow.engine.evaluate
        if wanted == "none" or (wanted == "ends" and not (first or last)):
            return
        kind = self._kinds[stage]
        for named in self._metrics:
            if kind in named.metric.takes:
                metric = named.metric
                if "target" in type(metric).model_fields and not KINDS[kind].on_target:
                    # What runs in torch here is the same whatever the target: so is its key.
                    metric = metric.model_copy(update={"target": Target()})
                system = self._workflow.measures
                name = f"{stage}: {named.name}"
                self._add(name, "metric", stage, (stage,), named.type, metric, system)

    def _add(
        self,
        name: str,
        role: Literal["pass", "proof", "metric"],
        stage: str,
        reads: tuple[str, ...],
        registered: str,
        operation: Operation,
        system: NamedSystem,
    ) -> None:
        with self._blockers:
            operation = _with_rows_here(operation)
        environment = self._environment(system)
        refusal = self._refusal(operation, reads[0], system)
        if role == "pass":
            self._makers[stage] = operation
        if refusal:
            own = refusal.where == type(operation).__name__  # not what the user calls it
            where = f"{name} ({registered if own else refusal.where})"
            self._blockers.add(Refused(where, refusal.what, refusal.remedy))
        parents = tuple(self._keys[read] for read in reads)
        key, parts = "", {}
        for dataset in _datasets_of(operation):
            files = dataset.load_dataset_config.data_files
            if isinstance(files, Remote):
                self._blockers.add(_not_fetched(f"{dataset.name}.data_files", files))
                parents = ("",)
        with self._blockers:
            digest = self._content_digest(name)
            parts = operation.key_parts(registered, parents, digest, environment)
            key = value_digest(parts) if all(parents) else ""
        contents = [self._digests[read] for read in reads]
        known = tuple(content for content in contents if content is not None)
        found = None
        if key and len(known) == len(contents):
            found = self._cache.find(key, operation.gives, known)
        if role == "pass":
            self._digests[stage] = found.model.digest if found else None
        hit = found is not None
        self.steps.append(
            Step(name, role, stage, reads, registered, operation, parents, key, hit, system, parts)
        )

    def _refusal(self, operation: Operation, read: str, system: NamedSystem) -> Refused | None:
        """Return why an operation cannot work on the stage `read`, or not on that system."""
        kind, found = self._kinds[read], self._source.found
        refusal = operation.refusal(kind, self._workflow.target)
        refusal = refusal or operation.refusal_in(self._environment(system))
        if refusal is None and system.system.elsewhere:
            refusal = operation.refusal_elsewhere()
        if read == INPUT and not found and kind not in operation.takes:
            refusal = None  # what is not there is of no kind: one fault, not two
        if refusal is None and found:
            refusal = operation.refusal_of_source(self._source.model)
            maker = self._makers.get(read)
            if refusal is None and maker is not None:
                refusal = operation.refusal_behind(maker, self._source.model)
        return refusal

    def _environment(self, system: NamedSystem) -> Environment:
        """Return what is installed on a system; what cannot be asked is told once."""
        if system.name not in self._environments:
            self._environments[system.name] = HERE
            with self._blockers:
                setting = self._settings[system.name]
                self._environments[system.name] = system.system.environment(setting)
        return self._environments[system.name]

    def _content_digest(self, name: str) -> Callable[[Path], str]:
        def digest(path: Path) -> str:
            if path.is_dir():
                return self._cache.digests.folder(path, files_below(path))
            if not path.is_file():
                where = self._workflow.places.get(path, name)
                raise Refused(where, f"names {path}, which is not there", "Mend the path.")
            return self._cache.digests.digest(path)

        return digest
