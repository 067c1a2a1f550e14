"""The steps of a plan, one stage after the other: what each works on, its key, whether it is a hit.

What is in the way of a step is written down, and the chain goes on: all of it is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from drupe.catalog import METRICS
from drupe.config.schema import NamedMetric, NamedPass, Workflow
from drupe.core.cache import Cache
from drupe.core.digest import value_digest
from drupe.core.errors import Blockers, Refused
from drupe.core.files import files_below
from drupe.core.libraries import HERE, Environment
from drupe.core.model import KINDS
from drupe.core.operation import AnyOperation, Operation, Pass
from drupe.core.system import NamedSystem, Setting
from drupe.core.target import Target
from drupe.resources.inputs import Inputs
from drupe.resources.models import Located

INPUT = "input model"
FOLDER_NAME = re.compile(r"\w[\w .+-]{0,60}")


@dataclass(frozen=True)
class Step:
    """One operation on one stage of the chain.

    name: as the user reads it ("lora", "lora: accuracy"). stage: the stage that it makes (a
    pass) or is about (a proof, a metric). reads: the stages that it works on, the input first.
    key: empty where it cannot be known, for something that it is made of is not there.
    system: where it runs.
    parts: what the key is the hash of.
    inside: the pass whose work is done on the way, as it would be a step of its own; what it makes
        lies nowhere.
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
    inside: Step | None = None

    @property
    def group(self) -> str:
        """The table of the catalog in which the operation is found."""
        return "passes" if self.role == "pass" else "metrics"


class Chain:
    """The stages one after the other, with the key and the kind of the latest."""

    def __init__(
        self,
        workflow: Workflow,
        cache: Cache,
        source: Located,
        inputs: Inputs,
        metrics: list[NamedMetric],
        blockers: Blockers,
        settings: Mapping[str, Setting],
    ) -> None:
        self._blockers = blockers
        self._settings = settings
        self._source = source
        self._inputs = inputs
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
        self._measured: dict[str, str] = {}  # the stages that are, by their kind
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.refusals: list[Refused] = []  # of passes, for what they are given

    def apply(self, named: NamedPass) -> None:
        """Add a pass on the latest stage, and its proof.

        Where it can do the work of the pass before it, and nobody else asks for what that makes,
        the two are one step: by the config and the input model alone, whatever the cache holds.
        """
        name = named.name
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
        operation, here = self._settled(name, named.step, system)
        self._refuse(name, named.type, operation, before, system)
        together = self._together(operation, system)
        inside = None
        if together is not None:
            operation, inside = together
            self.steps = [step for step in self.steps if step.stage != before]
            between = KINDS[inside.operation.gives].meaning
            self.notes.append(
                f"{before} is done while {name} runs: nobody asks for the {between} in between"
            )
            before = inside.reads[0]
        self._add(name, "pass", name, (before,), named.type, operation, here, system, inside)
        self._latest = name
        self._kinds[name] = operation.gives
        self._keys[name] = self.steps[-1].key
        if inside is not None:
            self._prove(inside.stage, inside.operation, before, before, system)
        self._prove(name, operation, name, before, system)

    def _prove(
        self, stage: str, step: Operation, made: str, before: str, system: NamedSystem
    ) -> None:
        """Add the proof of a stage, if its pass has one; made: what it reads as the result."""
        if not isinstance(step, Pass) or not step.proof:
            return
        name, reads = f"{stage}: proof", (made, before)
        proof, here = self._settled(name, METRICS.find(step.proof)(**step.proof_fields()), system)
        if made == stage:  # else what is in its way was told when the pass stood alone
            self._refuse(name, step.proof, proof, made, system)
        self._add(name, "proof", stage, reads, step.proof, proof, here, system)

    def _together(self, operation: Pass, system: NamedSystem) -> tuple[Pass, Step] | None:
        """Return the pass as it does the work of the latest step too, and that step; or None."""
        about = [step for step in self.steps if step.stage == self._latest]
        if not about or any(step.role == "metric" for step in about):
            return None
        maker = about[0]
        if maker.system.name != system.name or not isinstance(maker.operation, Pass):
            return None
        given = self._kinds[maker.reads[0]]
        if not all(step.operation.accepts(given) for step in about):
            return None  # its proof needs what lies in between
        both = operation.with_inside(maker.operation)
        return None if both is None else (both, maker)

    def measure(self, stage: str, first: bool, last: bool) -> None:
        """Add the metrics of a stage, as far as the config wants it measured."""
        wanted = self._workflow.engine.evaluate
        if wanted == "none" or (wanted == "ends" and not (first or last)):
            return
        kind = self._kinds[stage]
        self._measured[stage] = kind
        for named in self._metrics:
            if kind in named.metric.takes and not (named.metric.compares and stage == INPUT):
                metric = named.metric
                if "target" in type(metric).model_fields and not KINDS[kind].on_target:
                    # What runs in torch here is the same whatever the target: so is its key.
                    metric = metric.model_copy(update={"target": Target()})
                system = self._workflow.measures
                name = f"{stage}: {named.name}"
                settled, here = self._settled(name, metric, system)
                self._refuse(name, named.type, settled, stage, system)
                reads = (stage, INPUT) if metric.compares else (stage,)
                self._add(name, "metric", stage, reads, named.type, settled, here, system)

    def check_judged(self) -> None:
        """Refuse metrics that are run on no stage, and goals for what is not measured."""
        if self._workflow.engine.evaluate == "none" or not self._source.found:
            return
        for named in self._workflow.metrics:
            fault = _not_judged(named, self._measured, self._latest)
            if fault is not None:
                self._blockers.add(fault)

    def _add(
        self,
        name: str,
        role: Literal["pass", "proof", "metric"],
        stage: str,
        reads: tuple[str, ...],
        registered: str,
        operation: Operation,
        here: bool,
        system: NamedSystem,
        inside: Step | None = None,
    ) -> None:
        """Add a step with its key; here: what its fields name was found."""
        environment = self._environment(system)
        if role == "pass":
            self._makers[stage] = operation
        parents = tuple(self._keys[read] for read in reads) if here else ("",)
        key, parts = "", {}
        with self._blockers:
            digest = self._content_digest(name)
            parts = operation.key_parts(registered, parents, digest, environment)
            if operation.of_machine:
                parts["machine"] = system.system.machine()
            key = value_digest(parts) if all(parents) else ""
        contents = [self._digests[read] for read in reads]
        known = tuple(content for content in contents if content is not None)
        found = None
        if key and len(known) == len(contents):
            found = self._cache.find(key, operation.gives, known)
        if role == "pass":
            self._digests[stage] = found.model.digest if found else None
        hit = found is not None
        step = Step(name, role, stage, reads, registered, operation, parents, key, hit, system)
        self.steps.append(replace(step, parts=parts, inside=inside))

    def _settled(
        self, name: str, operation: AnyOperation, system: NamedSystem
    ) -> tuple[AnyOperation, bool]:
        """Return the operation with what it leaves open chosen, and whether its rows were found."""
        here = None
        with self._blockers:
            here = self._inputs.rows(operation, system.system.reads)
        operation = here or operation
        if self._source.found and self._source.is_shown:
            operation, note = operation.settled(self._source.model)
            self.notes += [f"{name}: {note}"] if note else []
        return operation, here is not None

    def _refuse(
        self, name: str, registered: str, operation: Operation, read: str, system: NamedSystem
    ) -> None:
        """Tell why an operation cannot work on the stage `read`, where it cannot."""
        refusal = self._refusal(operation, read, system)
        if refusal:
            own = refusal.where == type(operation).__name__  # not what the user calls it
            where = f"{name} ({registered if own else refusal.where})"
            fault = Refused(where, refusal.what, refusal.remedy)
            self._blockers.add(fault)
            self.refusals += [fault] if isinstance(operation, Pass) else []

    def _refusal(self, operation: Operation, read: str, system: NamedSystem) -> Refused | None:
        """Return why an operation cannot work on the stage `read`, or not on that system."""
        kind, found = self._kinds[read], self._source.found
        refusal = operation.refusal(kind, self._workflow.target)
        refusal = refusal or operation.refusal_in(self._environment(system))
        if refusal is None and system.system.elsewhere:
            refusal = operation.refusal_elsewhere()
        if read == INPUT and not found and kind not in operation.takes:
            refusal = None  # what is not there is of no kind: one fault, not two
        if refusal is None and found and self._source.is_shown:
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


def _not_judged(named: NamedMetric, measured: Mapping[str, str], last: str) -> Refused | None:
    """Return why what an evaluator wants of a metric cannot be known, or None.

    measured: the stages that are, each with its kind. last: the one that is delivered.
    """
    takes, where = named.metric.takes, f"{named.name} ({named.type})"
    meant = f"{named.type} measures {', '.join(KINDS[kind].meaning for kind in takes)}"
    stages = [stage for stage in measured if not (named.metric.compares and stage == INPUT)]
    if not stages:
        what = "compares with the input model, and no pass makes another"
        return Refused(where, what, "Leave it out, or name a baseline.")
    if not any(measured[stage] in takes for stage in stages):
        kinds = ", ".join(dict.fromkeys(KINDS[kind].meaning for kind in measured.values()))
        what = f"cannot be run on what this job measures ({kinds}): {meant}"
        return Refused(
            where, what, "Leave it out of the evaluator, or add the pass that gives one."
        )
    aimed = [each for each in named.sub_types if each.goal is not None or each.priority >= 1]
    if aimed and last in measured and measured[last] not in takes:
        what = (
            f"has a goal or a rank ({aimed[0].name}), and the final model is a "
            f"{KINDS[measured[last]].meaning}: {meant}"
        )
        return Refused(where, what, "Leave the goal out, or add the pass that gives such a model.")
    relative = [each for each in aimed if each.goal is not None and each.goal.needs_baseline]
    if relative and measured.get(INPUT) not in takes:
        goal = relative[0].goal
        what = (
            f"has a goal relative to the input model ({relative[0].name}: "
            f"{goal.type if goal else ''}), which it cannot be run on: {meant}"
        )
        return Refused(where, what, "Write a threshold.")
    return None
