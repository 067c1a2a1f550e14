"""THE MAIN JOB, top to bottom: plan -> work off the steps -> choose -> deliver."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from drupe import plan
from drupe.config.load import load
from drupe.config.schema import Workflow
from drupe.core.amounts import read_bytes
from drupe.core.cache import Result
from drupe.core.errors import refuse
from drupe.core.files import check_writable, full_disk_told
from drupe.core.housekeeping import fit
from drupe.core.job import INSIDE
from drupe.core.model import Model
from drupe.dispatch import work_off
from drupe.listener import Listener
from drupe.outcome import Outcome, Score, Stage
from drupe.output import model_folder, output_folder, write_output
from drupe.packaging.packages import write_packages
from drupe.plan import CACHE_FIELD, Plan
from drupe.preflight.estimates import estimates
from drupe.preflight.examine import blockers_of, examine
from drupe.preflight.finding import Finding
from drupe.report.words import size


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
    kept = planned.kept
    with planned.cache.using(kept) if kept else nullcontext():
        if prepare(planned, heard, force):
            planned, findings = _draft(workflow, heard)  # with the versions that are known now
        return _planned(planned, findings, heard, force, started)


def _planned(
    planned: Plan, findings: list[Finding], heard: Listener, force: bool, started: float
) -> Outcome:
    """Tell the plan, and do it."""
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
    planned = plan.draft(workflow, heard.warning, heard.note)
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
    results = work_off(planned, heard, force)
    outcome = Outcome(
        plan=planned,
        stages=tuple(stage_of(planned, name, results) for name in planned.stages),
        path=model_folder(planned) if planned.delivers else None,
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
        count, others = len(sweep.results), len(sweep.provisions)
        beside = f" and {others} of what is kept for systems and resources" if others else ""
        heard.note(
            f"The cache's quota is {quota}: {count} result{'s' if count != 1 else ''}{beside} not "
            f"used for longest went, {size(sweep.freed_bytes)}."
        )
    if sweep.left_bytes > read_bytes(quota):
        heard.warning(
            f"The cache holds {size(sweep.left_bytes)} that runs need now: more than "
            f"engine.cache_quota ({quota}) allows. Nothing of that was dropped."
        )


def stage_of(planned: Plan, name: str, results: dict[str, Result]) -> Stage:
    """Return the stage `name` with all that was measured of it."""
    about = [step for step in planned.steps if step.stage == name]
    made = next((results[step.name] for step in about if step.role == "pass"), None)
    outer = next((s for s in planned.steps if s.inside and s.inside.stage == name), None)
    proof = next((results[step.name] for step in about if step.role == "proof"), None)
    scored = {
        step.name.removeprefix(f"{name}: "): results[step.name].model.path
        for step in about
        if step.role == "metric"
    }
    scores = {metric: _score(path) for metric, path in scored.items()}
    if planned.workflow.engine.no_samples:  # here, so that nothing that tells of a run has them
        scores = {metric: score.without_samples() for metric, score in scores.items()}
    proven = _score(proof.model.path) if proof else None
    if outer is not None and outer.inside is not None:  # it was made, and lies nowhere
        kind, facts = outer.inside.operation.gives, results[outer.name].facts.get(INSIDE, {})
        nowhere = Model(kind, Path(), "")
        return Stage(name, kind, nowhere, 0, 0.0, 0, facts, {}, {}, proven, within=outer.stage)
    model = made.model if made else planned.source.model
    return Stage(
        name=name,
        kind=model.kind,
        model=model,
        size_bytes=made.size_bytes if made else planned.source.size_bytes,
        seconds=made.seconds if made else 0.0,
        peak_bytes=made.peak_bytes if made else 0,
        facts={name: fact for name, fact in made.facts.items() if name != INSIDE} if made else {},
        scores=scores,
        answers={
            metric: _read(path / "items.json")
            for metric, path in scored.items()
            if (path / "items.json").exists()
        },
        proof=proven,
        goldens=_goldens(proof.model.path) if proof else None,
        machine=made.machine if made else {},
    )


def _goldens(folder: Path) -> dict[str, Any] | None:
    file = folder / "goldens.json"
    return _read(file) if file.is_file() else None


def _score(folder: Path) -> Score:
    return Score.from_json(_read(folder / "score.json"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
