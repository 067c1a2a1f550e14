"""Points of a search tried: each the workflow that it describes, several at once where slots are.

    point -> workflow -> plan --refused: infeasible, nothing is run
                          |
         plans of a batch, one plan: steps of one key are one step, so a shared prefix runs once
                          |
                 worked off -> stages -> numbers -> told to the sampler

What is asked depends on what was told alone: a batch is told whole before the next is asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from drupe import plan
from drupe.config.levels import levels_of
from drupe.config.schema import Workflow
from drupe.core.cache import Result
from drupe.core.digest import value_digest
from drupe.core.errors import DrupeError, Refused, StepError, StepRefused, refuse
from drupe.core.executor import Executor
from drupe.core.goal import Number
from drupe.dispatch import open_executors, prepare, work_off_by
from drupe.listener import Listener
from drupe.numbers import numbers_of, paired_numbers
from drupe.outcome import Stage, stage_of
from drupe.plan import Plan
from drupe.search.constraints import Limit, limits_of
from drupe.search.ranking import ranked
from drupe.search.samplers import Sampler, make_sampler
from drupe.search.searched import Searched
from drupe.search.space import Point, Space
from drupe.search.state import State
from drupe.search.trial import Trial
from drupe.shared_plan import merged

STRATEGY = "engine.search_strategy"
Propose = Callable[[Space, Sequence[Limit], Mapping[str, Number]], Sampler]


@dataclass(frozen=True)
class Tried:
    """A trial with what it was made by, where it was measured."""

    trial: Trial
    plan: Plan | None = None
    results: Mapping[str, Result] | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of its chain."""
        assert self.plan is not None
        assert self.results is not None
        return tuple(stage_of(self.plan, name, self.results) for name in self.plan.stages)


def workflow_at(workflow: Workflow, point: Point, count: int) -> Workflow:
    """Return the workflow that a point describes, of its first `count` passes.

    Raises Refused where the point's values make no pass.
    """
    assert workflow.search is not None
    engine = workflow.engine
    if "evaluate" not in engine.model_fields_set:  # stages between are judged by nobody
        engine = engine.model_copy(update={"evaluate": "ends"})
    passes = workflow.search.passes_at(point, count)
    metrics = workflow.metrics
    if not count:  # the input model alone: what compares with it has nothing to compare
        metrics = tuple(named for named in metrics if not named.metric.compares)
    return replace(workflow, passes=passes, metrics=metrics, engine=engine, search=None)


def draft_point(
    workflow: Workflow,
    point: Point,
    count: int,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Return the plan of a point's first `count` passes, with what is in its way."""
    return plan.draft(workflow_at(workflow, point, count), warn, note)


class Trials:
    """A search being done. Enter it, call `run`, and ask it for what a trial gave.

    propose: makes a sampler of a space, under limits and with the input model's numbers, in place
    of the one that the config names; whoever can predict numbers plugs in here (`forecasts`).
    """

    def __init__(
        self,
        workflow: Workflow,
        heard: Listener,
        force: bool = False,
        propose: Propose | None = None,
    ) -> None:
        self._propose = propose
        assert workflow.search is not None
        self._workflow, self._search = workflow, workflow.search
        self._strategy = workflow.search.strategy
        self._heard, self._force = heard, force
        self._held = ExitStack()
        self._executors: dict[str, Executor] = {}
        self._began = time.monotonic()
        self._tried: list[Tried] = []
        self._made: set[str] = set()  # keys of all that was worked off
        self._known: set[Point] = set()  # whole points of which the outcome is known
        self._limits: tuple[Limit, ...] = ()
        self._baseline: dict[str, Number] = {}
        self._state: State | None = None
        self._input: Tried | None = None
        self._why = ""

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *fault: object) -> None:
        self._held.close()

    def run(self) -> Searched:
        """Try points until nothing is left to try, or it is enough."""
        first = self._input_measured()
        self._state = State(self._state_file(first))
        if self._state.tried:
            text = f"Going on with a search of which {self._state.tried} points were tried before."
            self._heard.note(text)
        self._descend(levels_of(self._search), Point())
        space = self._search.space
        all_known = len(self._known) >= space.size
        ended = "every point was tried" if all_known else "no other point was worth measuring"
        self._why = self._why or ended
        self._state.end(self._why)
        return Searched(
            trials=tuple(tried.trial for tried in self._tried),
            objectives=self._search.objectives,
            limits=self._limits,
            baseline=self._baseline,
            points=space.size,
            known=len(self._known),
            depth=len(self._search.passes),
            wanted=self._strategy.output_model_num,
            why=self._why,
            seed=self._strategy.sampler_config.seed,
            sampler=self._strategy.sampler,
        )

    def tried(self, number: int) -> Tried:
        """Return the trial of that number, with what it was made by."""
        return self._tried[number - 1]

    @property
    def input_alone(self) -> Tried:
        """The input model, measured."""
        assert self._input is not None
        return self._input

    def _input_measured(self) -> Plan:
        """Measure the input model, and know the limits; return its plan."""
        planned = self._draft(Point(), 0)
        refuse(self._workflow.file, planned.blockers)
        results, _ = self._work(planned, ())
        self._input = Tried(Trial(0, Point(), 0, "measured"), planned, results)
        self._baseline = numbers_of(self._input.stages[-1], self._search.objectives)
        try:
            self._limits = limits_of(self._search.objectives, self._baseline)
        except ValueError as fault:
            what = f"has a goal whose limit cannot be known: {fault}"
            raise Refused(STRATEGY, what, 'Write a goal of the type "threshold".') from fault
        return planned

    def _descend(self, levels: Sequence[tuple[int, int]], prefix: Point) -> None:
        """Search the first level behind `prefix`, and the others on the best of it.

        Where the levels behind give nothing that keeps every limit, the next best is gone on with.
        """
        (first, end), *behind = levels
        trials = self._explore(self._search.space_of(first, end), prefix, end)
        if not behind or self._why:
            return
        for trial in ranked(trials, self._search.objectives, self._limits):
            self._descend(behind, trial.point)
            if self._why or self._is_found():
                return

    def _explore(self, space: Space, prefix: Point, count: int) -> list[Trial]:
        """Try points of one level; return their trials."""
        sampler = self._sampler(space)
        self._leave_out(sampler, count)
        asked, most = 0, self._strategy.sampler_config.max_samples or math.inf
        found: list[Trial] = []
        while not self._why:
            batch = min(self._slots, most - asked, self._left)
            points = sampler.ask(int(batch)) if batch > 0 else []
            if not points:
                if asked >= most:
                    self._known_at_most(count)
                break
            for trial in self._try([prefix + point for point in points], count):
                own = replace(trial, point=Point(trial.point.choices[len(prefix.choices) :]))
                sampler.tell(own)
                found.append(trial)
                asked += trial.state != "infeasible"
            self._stop(count)
        return found

    def _leave_out(self, sampler: Sampler, count: int) -> None:
        """Note the points that break a limit by what is known exactly: they are not run."""
        excluded = getattr(sampler, "excluded", [])
        for point, numbers in excluded:
            broken = [
                limit.objective.name
                for limit in self._limits
                if limit.objective.name in numbers
                and limit.standing(numbers[limit.objective.name]) == "breaks"
            ]
            reason = f"known beforehand to break the limit of {', '.join(dict.fromkeys(broken))}"
            trial = self._trial(point, count, "infeasible", reason)
            self._tried.append(Tried(replace(trial, numbers=numbers)))
            self._known.add(point)
        if excluded:
            text = f"{len(excluded)} of the points are known beforehand to break a limit: not run."
            self._heard.note(text)

    def _known_at_most(self, count: int) -> None:
        if count == len(self._search.passes) and len(levels_of(self._search)) == 1:
            self._why = "max_samples points were tried"

    def _sampler(self, space: Space) -> Sampler:
        if self._propose is not None:
            return self._propose(space, self._limits, self._baseline)
        config = self._strategy.sampler_config
        options = {"multivariate": config.multivariate, "group": config.group}
        name = self._strategy.sampler
        return make_sampler(
            name,
            space,
            self._search.objectives,
            self._limits,
            config.seed,
            options if name == "tpe" else {},
        )

    @property
    def _slots(self) -> int:
        return max((executor.slots for executor in self._executors.values()), default=1)

    @property
    def _left(self) -> float:
        """How many points may still be tried."""
        if self._strategy.max_iter is None:
            return math.inf
        used = sum(tried.trial.state != "infeasible" for tried in self._tried)
        return self._strategy.max_iter - used

    def _stop(self, count: int) -> None:
        """Note why it is enough, if it is."""
        spent = time.monotonic() - self._began + (self._state.spent if self._state else 0.0)
        if self._left <= 0:
            self._why = "max_iter points were tried"
        elif self._strategy.max_time is not None and spent >= self._strategy.max_time:
            if self._state is not None and len(self._tried) < self._state.tried:
                return  # what an earlier run tried lies in the cache
            self._why = "max_time is over"
        elif self._strategy.stop_when_goals_met and self._limits and self._is_found():
            self._why = "every goal is met"

    def _is_found(self) -> bool:
        """Return whether a whole chain keeps every limit."""
        whole = [t.trial for t in self._tried if t.trial.passes == len(self._search.passes)]
        best = ranked(whole, self._search.objectives, self._limits)[:1]
        return bool(best) and all(
            limit.standing(best[0].numbers[limit.objective.name]) == "keeps"
            for limit in self._limits
        )

    def _try(self, points: Sequence[Point], count: int) -> Iterator[Trial]:
        """Try points side by side; yield what came of each, in their order."""
        drafted = [(point, *self._planned(point, count)) for point in points]
        plans = [(point, planned) for point, planned, _ in drafted if planned is not None]
        results: dict[str, Result] = {}
        failed: dict[str, StepError] = {}
        names: list[dict[str, str]] = []
        if plans:
            whole, names = merged(plans)
            forgiven = (StepError,) if self._strategy.tolerate_failures else (StepRefused,)
            results, failed = self._work(whole, forgiven)
        of_plans = iter(names)
        for point, planned, reason in drafted:
            if planned is None:
                tried = Tried(self._trial(point, count, "infeasible", reason))
            else:
                tried = self._came_of(point, count, planned, next(of_plans), results, failed)
            self._tried.append(tried)
            if count == len(self._search.passes):
                self._known.add(point)
            if self._state is not None:
                self._state.tell(tried.trial, time.monotonic() - self._began)
            self._heard.tried(tried.trial, len(self._tried), self._words(tried.trial))
            yield tried.trial

    def _words(self, trial: Trial) -> str:
        whole = len(self._search.passes)
        alone = Searched(
            (trial,), self._search.objectives, self._limits, self._baseline, 1, 1, whole
        )
        return alone.words(trial)

    def _trial(self, point: Point, count: int, state: str, reason: str = "") -> Trial:
        number = len(self._tried) + 1
        return Trial(number, point, count, state, reason=reason)  # type: ignore[arg-type]

    def _planned(self, point: Point, count: int) -> tuple[Plan | None, str]:
        """Return the plan of a point, or why its passes refuse it; raises what else is wrong."""
        try:
            planned = self._draft(point, count)
        except Refused as fault:
            return None, _reason(fault)
        others = [fault for fault in planned.blockers if fault not in planned.refusals]
        refuse(self._workflow.file, others)
        if planned.blockers:
            return None, _reason(planned.blockers[0])
        return planned, ""

    def _draft(self, point: Point, count: int) -> Plan:
        return draft_point(self._workflow, point, count, self._heard.warning)

    def _came_of(
        self,
        point: Point,
        count: int,
        planned: Plan,
        names: Mapping[str, str],
        results: Mapping[str, Result],
        failed: Mapping[str, StepError],
    ) -> Tried:
        own = {step: results[name] for step, name in names.items() if name in results}
        faults = [failed[name] for name in names.values() if name in failed]
        if faults:
            state = "infeasible" if isinstance(faults[0], StepRefused) else "failed"
            return Tried(self._trial(point, count, state, _reason(faults[0])))
        tried = Tried(self._trial(point, count, "measured"), planned, own)
        last = tried.stages[-1]
        trial = replace(
            tried.trial,
            numbers=paired_numbers(tried.stages, self._search.objectives, self._baseline),
            size_bytes=last.size_bytes,
            seconds=sum(result.seconds for result in own.values()),
        )
        return replace(tried, trial=trial)

    def _work(
        self, planned: Plan, forgiven: tuple[type[StepError], ...]
    ) -> tuple[dict[str, Result], dict[str, StepError]]:
        """Work off a plan by executors that stay open for the next."""
        self._held.enter_context(planned.cache.using([*planned.kept, *_keys(planned)]))
        prepare(planned, self._heard, self._force)
        new = [step for step in planned.steps if step.system.name not in self._executors]
        if new:
            opened = open_executors(
                replace(planned, steps=tuple(new)), self._heard, self._force, self._held
            )
            self._executors |= opened
        made = frozenset(self._made)
        self._made.update(step.key for step in planned.steps)
        return work_off_by(self._executors, planned, self._heard, self._force, forgiven, made)

    def _state_file(self, planned: Plan) -> Path:
        raw = self._workflow.raw
        told = [raw.get(name) for name in ("input_model", "data_configs", "passes", "evaluators")]
        config = self._strategy.model_dump(include={"execution_order", "sampler", "sampler_config"})
        target = self._workflow.target.model_dump()
        key = value_digest([told, config, target, planned.source.model.digest])
        return planned.cache.folder / "searches" / f"{key}.jsonl"


def _keys(planned: Plan) -> list[str]:
    return [step.key for step in planned.steps]


def _reason(fault: DrupeError) -> str:
    return f"{fault.where}: {fault.what}"
