"""THE MAIN JOB, top to bottom: plan -> work off the steps -> choose -> deliver."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from drupe import plan
from drupe.config.load import load
from drupe.config.schema import Search, Workflow
from drupe.core.amounts import read_bytes
from drupe.core.errors import Infeasible, refuse
from drupe.core.files import check_writable, full_disk_told
from drupe.core.housekeeping import fit
from drupe.dispatch import prepare, work_off
from drupe.forecasts import Forecasts
from drupe.listener import Listener
from drupe.outcome import Outcome, stage_of
from drupe.output import PAGE, model_folder, output_folder, write_output, write_ranked
from drupe.packaging.packages import write_packages
from drupe.plan import CACHE_FIELD, Plan
from drupe.preflight.estimates import estimates
from drupe.preflight.examine import blockers_of, examine
from drupe.preflight.finding import Finding
from drupe.report.search import summary, why_nothing
from drupe.report.words import size
from drupe.search.samplers import refusal_of
from drupe.search.searched import Searched
from drupe.trials import STRATEGY, Trials, Tried, workflow_at


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
    if workflow.search is not None:
        return search(workflow, workflow.search, heard, force, started)
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


def search(
    workflow: Workflow, searched: Search, heard: Listener, force: bool, started: float
) -> Outcome:
    """Try the points of a search, and deliver the best of them; raise Infeasible if none is.

    What was tried stands in the report either way.
    """
    planned, findings = draft_search(workflow, searched, heard.warning, heard.note)
    refuse(workflow.file, [*planned.blockers, *blockers_of(findings)])
    heard.planned(planned)
    for finding in findings:
        heard.found(finding)
    planned.cache.save_digests()
    heard.note(f"{searched.space.size} points: {searched.strategy.words}.")
    propose = None
    if searched.strategy.sampler == "economy":
        propose = Forecasts(workflow, planned.source.model, heard.note).sampler
    with Trials(workflow, heard, force, propose) as trials:
        told = trials.run()
        heard.searched(told)
        tried = [trials.tried(trial.number) for trial in told.chosen] or [trials.input_alone]
        outcomes = [_outcome(each, told, started) for each in tried]
        with full_disk_told(output_folder(planned)):
            write_output(outcomes[0], heard.warning)
            write_ranked(outcomes, heard.warning)
            if told.chosen:
                write_packages(outcomes[0], output_folder(planned), heard.note)
        keep_quota(outcomes[0].plan, heard)
    if not told.chosen:
        remedy = "Loosen a limit, or leave more to choose from. What was tried: "
        raise Infeasible(STRATEGY, why_nothing(told), f"{remedy}{output_folder(planned) / PAGE}")
    if told.verdict == "undecided":
        heard.warning(summary(told))
    return outcomes[0]


def draft_search(
    workflow: Workflow,
    searched: Search,
    warn: Callable[[str], None],
    note: Callable[[str], None],
) -> tuple[Plan, list[Finding]]:
    """Return the plan of a search's first point, with what is in the way of all its points."""
    first = workflow_at(workflow, searched.space.point(0), len(searched.passes))
    planned = plan.draft(first, warn, note)
    findings = examine(planned, estimates(planned))
    others = tuple(fault for fault in planned.blockers if fault not in planned.refusals)
    refusal = refusal_of(searched.strategy.sampler)
    others += (refusal,) if refusal else ()
    return replace(planned, blockers=others), findings


def _outcome(tried: Tried, told: Searched, started: float) -> Outcome:
    assert tried.plan is not None
    delivered = model_folder(tried.plan) if told.chosen else None
    return Outcome(tried.plan, tried.stages, delivered, time.monotonic() - started, told)


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
