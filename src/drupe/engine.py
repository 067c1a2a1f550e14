"""THE MAIN JOB, top to bottom: plan -> apply each step through the cache -> choose -> deliver."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from drupe import plan
from drupe.config.load import load
from drupe.config.schema import Workflow
from drupe.core.amounts import read_bytes
from drupe.core.cache import Result
from drupe.core.errors import refuse
from drupe.core.executor import Executor
from drupe.core.files import check_writable, full_disk_told
from drupe.core.housekeeping import fit
from drupe.core.journal import Measured, journal_file, write_down
from drupe.core.model import KINDS, Model
from drupe.core.process import usable_cores
from drupe.core.step import StepSpec
from drupe.outcome import Outcome, Score, Stage
from drupe.output import model_folder, output_folder, write_output
from drupe.packaging.packages import write_packages
from drupe.plan import CACHE_FIELD, INPUT, Plan, Step
from drupe.preflight.estimates import estimates, operation_name
from drupe.preflight.examine import blockers_of, examine
from drupe.preflight.finding import Finding
from drupe.report.words import size
from drupe.resources.models import architectures, size_of
from drupe.systems import follow


class Listener:
    """Hears what a run does; a client that shows it overrides what it needs."""

    def planned(self, plan: Plan) -> None:
        """Hear the plan; nothing is done yet."""

    def found(self, finding: Finding) -> None:
        """Hear what preflight saw that may be in the way of the run."""

    def started(self, step: Step) -> None:
        """Hear that a step that is not in the cache begins."""

    def event(self, step: Step, event: dict[str, Any]) -> None:
        """Hear a running step tell its progress, its memory, a note or a warning."""

    def finished(self, step: Step, result: Result) -> None:
        """Hear that a step's result is there, found or made."""

    def note(self, text: str) -> None:
        """Hear what was done beside the steps."""

    def warning(self, text: str) -> None:
        """Hear what may be wrong; the run goes on."""


def run(
    config: str | Path | Workflow,
    *,
    system: str | None = None,
    target: str | None = None,
    output: str | None = None,
    settings: Sequence[str] = (),
    strict: bool = False,
    force: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Do the job that `config` describes, and return its outcome.

    config: a file, or a workflow that `config.load` returned. system, target, output: in place
    of what the file says; settings: ("passes.lora.r=16", ...), likewise; strict: a warning is a
    fault (see `config.load.load`). force: work again what is in the cache.
    Raises ConfigError, Refused before any work; StepError when a step fails, with what was
    finished before it kept.
    """
    started = time.monotonic()
    heard = listener or Listener()
    workflow = (
        config
        if isinstance(config, Workflow)
        else load(Path(config), system, target, output, settings, strict=strict)
    )
    planned, findings = _draft(workflow, heard)
    if prepare(planned, heard, force):
        planned, findings = _draft(workflow, heard)  # with the versions that are known now
    if force:
        check_writable(planned.cache.folder, CACHE_FIELD)
    heard.planned(planned)
    for finding in findings:
        heard.found(finding)
    planned.cache.save_digests()
    with planned.cache.using(step.key for step in planned.steps):
        return _work(planned, heard, force, started)


def _draft(workflow: Workflow, heard: Listener) -> tuple[Plan, list[Finding]]:
    """Return the plan with what preflight saw; raises what is in its way."""
    planned = plan.draft(workflow, heard.warning)
    findings = examine(planned, estimates(planned))
    refuse(workflow.file, [*planned.blockers, *blockers_of(findings)])
    return planned, findings


def prepare(planned: Plan, heard: Listener, force: bool) -> bool:
    """Have each system where steps are to run make what they need; return whether one did."""
    steps = planned.steps if force else planned.to_run
    systems = {step.system.name: step.system.system for step in steps}
    settings = {name: replace(planned.settings[name], note=heard.note) for name in systems}
    made = [systems[name].prepare(settings[name]) for name in systems]
    return any(made)


def _work(planned: Plan, heard: Listener, force: bool, started: float) -> Outcome:
    """Do what is planned, and deliver it."""
    results = apply_steps(planned, heard, force)
    outcome = Outcome(
        plan=planned,
        stages=tuple(stage_of(planned, name, results) for name in planned.stages),
        path=model_folder(planned) if len(planned.stages) > 1 else None,
        seconds=time.monotonic() - started,
    )
    with full_disk_told(output_folder(planned)):
        write_output(outcome, heard.warning)
        write_packages(outcome, output_folder(planned), heard.note)
    keep_quota(planned, heard)
    return outcome


def keep_quota(planned: Plan, heard: Listener) -> None:
    """Drop what this run does not need and was not used for longest, beyond the cache's quota."""
    quota = planned.workflow.engine.cache_quota
    if quota is None:
        return
    try:
        sweep = fit(planned.cache, read_bytes(quota), [step.key for step in planned.steps])
    except OSError as error:  # the model is delivered: that is no failure of the run
        heard.warning(f"The cache was not brought below its quota of {quota}: {error}.")
        return
    if sweep is None:
        return
    if sweep.freed_bytes:
        count = len(sweep.results)
        heard.note(
            f"The cache's quota is {quota}: {count} result{'s' if count != 1 else ''} not used for "
            f"longest went, {size(sweep.freed_bytes)}."
        )
    if sweep.left_bytes > read_bytes(quota):
        heard.warning(
            f"The cache holds {size(sweep.left_bytes)} that runs need now: more than "
            f"engine.cache_quota ({quota}) allows. Nothing of that was dropped."
        )


def apply_steps(planned: Plan, heard: Listener, force: bool) -> dict[str, Result]:
    """Work every step through the cache; return the results by the names of the steps."""
    results: dict[str, Result] = {}
    models = {INPUT: planned.source.model}
    with ExitStack() as held:
        executors = open_executors(planned, heard, force, held)
        for step in planned.steps:
            read = tuple(models[name] for name in step.reads)
            result = apply(step, read, planned, executors, heard, force)
            results[step.name] = result
            if step.role == "pass":
                models[step.stage] = result.model
            heard.finished(step, result)
    return results


def open_executors(
    planned: Plan, heard: Listener, force: bool, held: ExitStack
) -> dict[str, Executor]:
    """Return the executor of each system that may be needed, warming up where steps will run."""
    found: dict[str, Executor] = {}
    for system in dict.fromkeys(step.system.name for step in planned.steps):
        steps = [step for step in planned.steps if step.system.name == system]
        to_run = [step for step in steps if force or not step.hit]
        preload = preload_of(to_run, planned.source.model)
        setting = replace(planned.settings[system], preload=preload, note=heard.note)
        found[system] = held.enter_context(steps[0].system.system.open(setting))
        if to_run:
            found[system].warm_up()
    return found


def preload_of(steps: Sequence[Step], source: Model) -> tuple[str, ...]:
    """Return what the steps want imported once: the model's own architecture is among it."""
    wanted = dict.fromkeys(name for step in steps for name in step.operation.preload)
    if "transformers:AutoModelForCausalLM" in wanted:
        wanted |= dict.fromkeys(f"transformers:{name}" for name in architectures(source))
    return tuple(wanted)


def apply(
    step: Step,
    read: tuple[Model, ...],
    planned: Plan,
    executors: Mapping[str, Executor],
    heard: Listener,
    force: bool,
) -> Result:
    """Return the step's result: from the cache, or by its system."""
    spec = StepSpec(
        key=step.key,
        group=step.group,
        operation=step.registered,
        fields=json.loads(step.operation.model_dump_json()),
        models=read,
        threads=usable_cores(),
        libraries=step.parts["libraries"],
    )

    def work(folder: Path) -> Any:
        heard.started(step)
        executor = executors[step.system.name]
        return follow.run(executor, spec, folder, lambda event: heard.event(step, event))

    base = read[0] if KINDS[step.operation.gives].has_base else None
    parents = tuple(model.digest for model in read)
    result = planned.cache.run(
        step.key, step.operation.gives, parents, work, base, force, step.parts
    )
    if not result.hit:
        note_down(step, read[0], result)
    return replace(result, model=replace(result.model, remote_code=read[0].remote_code))


def note_down(step: Step, read: Model, result: Result) -> None:
    """Tell the machine's journal what a step took, for the estimates of later plans."""
    model_bytes = size_of(read)
    measured = Measured(
        operation=operation_name(step),
        work=step.operation.work_units(model_bytes),
        model_bytes=model_bytes,
        seconds=result.seconds,
        peak_bytes=result.peak_bytes,
        output_bytes=result.size_bytes,
    )
    write_down(measured, journal_file())


def stage_of(planned: Plan, name: str, results: dict[str, Result]) -> Stage:
    """Return the stage `name` with all that was measured of it."""
    about = [step for step in planned.steps if step.stage == name]
    made = next((results[step.name] for step in about if step.role == "pass"), None)
    proof = next((results[step.name] for step in about if step.role == "proof"), None)
    scored = {
        step.name.removeprefix(f"{name}: "): results[step.name].model.path
        for step in about
        if step.role == "metric"
    }
    scores = {metric: _score(path) for metric, path in scored.items()}
    if planned.workflow.engine.no_samples:  # here, so that nothing that tells of a run has them
        scores = {metric: score.without_samples() for metric, score in scores.items()}
    model = made.model if made else planned.source.model
    return Stage(
        name=name,
        kind=model.kind,
        model=model,
        size_bytes=made.size_bytes if made else planned.source.size_bytes,
        seconds=made.seconds if made else 0.0,
        peak_bytes=made.peak_bytes if made else 0,
        facts=made.facts if made else {},
        scores=scores,
        answers={
            metric: _read(path / "items.json")
            for metric, path in scored.items()
            if (path / "items.json").exists()
        },
        proof=_score(proof.model.path) if proof else None,
        goldens=_goldens(proof.model.path) if proof else None,
    )


def _goldens(folder: Path) -> dict[str, Any] | None:
    file = folder / "goldens.json"
    return _read(file) if file.is_file() else None


def _score(folder: Path) -> Score:
    return Score.from_json(_read(folder / "score.json"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
