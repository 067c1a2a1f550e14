"""Workflow -> Plan: which steps, in which order, under which keys; what cannot work is refused.

    input model --pass--> model --pass--> model            each pass's proof behind it,
         |                  |               |              each stage's metrics behind that
       metrics            metrics         metrics

Every key is known before any work is done: a key is made of the operation, the content of what
its fields name, and the keys of what it works on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drupe.catalog import METRICS, find
from drupe.config.schema import NamedMetric, Workflow
from drupe.core.cache import Cache
from drupe.core.dataset import Dataset, Part
from drupe.core.digest import DigestMemo, value_digest
from drupe.core.errors import Refused
from drupe.core.files import check_writable, files_below
from drupe.core.model import KINDS
from drupe.core.operation import Operation, Pass
from drupe.core.resource import Remote
from drupe.core.target import Target
from drupe.resources.models import Located, locate, locate_adapter, locate_files

INPUT = "input model"
CACHE_FIELD = "engine.cache_dir"
FOLDER_NAME = re.compile(r"\w[\w .+-]{0,60}")


@dataclass(frozen=True)
class Step:
    """One operation on one stage of the chain.

    name: as the user reads it ("lora", "lora: accuracy"). stage: the stage that it makes (a
    pass) or is about (a proof, a metric). reads: the stages that it works on, the input first.
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
    parts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def group(self) -> str:
        """The table of the catalog in which the operation is found."""
        return "passes" if self.role == "pass" else "metrics"


@dataclass(frozen=True)
class Plan:
    """All that will be done, in order."""

    workflow: Workflow
    source: Located
    cache: Cache
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

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
    folder = Path(workflow.file).resolve().parent
    cache = Cache(cache_folder(workflow), warn)
    cache.check_folders(CACHE_FIELD)
    metrics, notes = _metrics(workflow)
    source = _source(workflow, folder, cache.digests, _needs_tokenizer(workflow, metrics))
    for key in ("cache_dir", "output_dir"):
        written = (folder / getattr(workflow.engine, key)).resolve()
        inside = source.model.kind == "files" and written.is_relative_to(source.model.path)
        if inside or written == source.model.path:
            raise Refused(
                f"engine.{key}",
                f"{written} lies in the input model's folder, which each run would then change",
                "Name a folder beside it.",
            )
    chain = _Chain(workflow, cache, source, metrics)
    chain.measure(INPUT, first=True, last=not workflow.passes)
    for index, named in enumerate(workflow.passes):
        chain.apply(named.name, named.type, named.step)
        chain.measure(named.name, first=False, last=index == len(workflow.passes) - 1)
    planned = Plan(workflow, source, cache, tuple(chain.steps), tuple(notes))
    if planned.to_run:  # one that cannot be written serves what it holds
        check_writable(cache.folder, CACHE_FIELD)
    return planned


def cache_folder(workflow: Workflow) -> Path:
    """Return the folder of the workflow's cache."""
    return (Path(workflow.file).resolve().parent / workflow.engine.cache_dir).resolve()


def _source(
    workflow: Workflow, folder: Path, digests: DigestMemo, needs_tokenizer: bool
) -> Located:
    asked = workflow.input_model
    if isinstance(asked.model_path, Remote):
        raise Refused(
            "input_model.model_path",
            f"is {asked.model_path.uri}, and this version fetches nothing from AzureML",
            "Download it, and give its folder.",
        )
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
    return Located(adapter, located.name, located.revision)


def _needs_tokenizer(workflow: Workflow, metrics: list[NamedMetric]) -> bool:
    """Return whether any step reads text: each that does loads its tokenizer by transformers."""
    passes = [named.step for named in workflow.passes]
    operations: list[Operation] = [*passes, *(named.metric for named in metrics)]
    return any("transformers" in operation.libraries for operation in operations)


class _Chain:
    """The stages one after the other, with the key and the kind of the latest."""

    def __init__(
        self, workflow: Workflow, cache: Cache, source: Located, metrics: list[NamedMetric]
    ) -> None:
        self._workflow = workflow
        self._cache = cache
        self._metrics = metrics
        self._kinds = {INPUT: source.model.kind}
        base = source.model.base
        model = source.model
        root = ["input", model.kind, model.digest, base.digest if base else None, model.remote_code]
        self._keys = {INPUT: value_digest(root)}
        # The content of each stage, as far as it is made: what follows on the unmade is no hit.
        self._digests: dict[str, str | None] = {INPUT: source.model.digest}
        self._latest = INPUT
        self.steps: list[Step] = []

    def apply(self, name: str, registered: str, step: Pass) -> None:
        """Add a pass on the latest stage, and its proof."""
        before = self._latest
        if name in self._keys:
            raise Refused(f"passes.{name}", "is a stage's own name", "Give the pass another name.")
        if not FOLDER_NAME.fullmatch(name):
            raise Refused(
                f"passes.{name}",
                "cannot be a part of the output folder's name",
                "Name the pass with letters, digits, _ and -.",
            )
        self._add(name, "pass", name, (before,), registered, step)
        self._latest = name
        self._kinds[name] = step.gives
        self._keys[name] = self.steps[-1].key
        if step.proof:
            proof = METRICS.find(step.proof)()
            self._add(f"{name}: proof", "proof", name, (name, before), step.proof, proof)

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
                self._add(f"{stage}: {named.name}", "metric", stage, (stage,), named.type, metric)

    def _add(
        self,
        name: str,
        role: Literal["pass", "proof", "metric"],
        stage: str,
        reads: tuple[str, ...],
        registered: str,
        operation: Operation,
    ) -> None:
        kind = self._kinds[reads[0]]
        refusal = operation.refusal(kind, self._workflow.target)
        if refusal:
            raise Refused(f"{name} ({refusal.where})", refusal.what, refusal.remedy)
        parents = tuple(self._keys[read] for read in reads)
        parts = operation.key_parts(registered, parents, self._content_digest(name))
        key = value_digest(parts)
        contents = [self._digests[read] for read in reads]
        known = tuple(content for content in contents if content is not None)
        found = None
        if len(known) == len(contents):
            found = self._cache.find(key, operation.gives, known)
        if role == "pass":
            self._digests[stage] = found.model.digest if found else None
        hit = found is not None
        self.steps.append(
            Step(name, role, stage, reads, registered, operation, parents, key, hit, parts)
        )

    def _content_digest(self, name: str) -> Callable[[Path], str]:
        def digest(path: Path) -> str:
            if path.is_dir():
                return self._cache.digests.folder(path, files_below(path))
            if not path.is_file():
                raise Refused(name, f"names {path}, which is not there", "Mend the path.")
            return self._cache.digests.digest(path)

        return digest


def _metrics(workflow: Workflow) -> tuple[list[NamedMetric], list[str]]:
    """Return the metrics of the config, or without any those that its data allow."""
    if workflow.metrics or workflow.engine.evaluate == "none":
        return list(workflow.metrics), []
    data, note = _evaluation_rows(workflow)
    if data is None:
        return [], []
    fields = {"data_config": data, "target": workflow.target}
    names = ["Perplexity"]
    if data.pre_process_data_config.text_template:
        names.insert(0, "Accuracy")
    made = [NamedMetric(name.lower(), name, find("metrics", name)(**fields)) for name in names]
    return made, [note]


def _evaluation_rows(workflow: Workflow) -> tuple[Dataset | None, str]:
    """Return the rows to measure on where no evaluator is named: those held out, if any are."""
    for named in workflow.passes:
        step: Any = named.step
        held_out = getattr(step, "eval_data_config", None)
        if isinstance(held_out, Dataset):
            return held_out, f"Measured on {held_out.name} (no evaluator is named)."
        rows = getattr(step, "train_data_config", None)
        if isinstance(rows, Dataset):
            size = getattr(step, "eval_dataset_size", None)
            if size:
                part = Part(eval_size=size, seed=step.training_args.data_seed, side="eval")
                return (
                    rows.model_copy(update={"part": part}),
                    f"Measured on the held-out part of {rows.name} (no evaluator is named).",
                )
            return rows, f"Measured on the training rows {rows.name}: no others are named."
    return None, ""
