"""Planned steps worked off: each through the cache, on its system, side by side where that may be.

    lane     steps that one thread works off in order: one step, or, on a system that joins them,
             all consecutive steps that are to run there, which travel as one job
    ready    a lane on whose steps no unfinished lane's result is waited for
    slots    how many lanes of a system may run at once; where each system has one slot (this
             machine), lanes run in their order in the caller's thread

Whatever is heard is heard in the caller's thread. The first failure, and Ctrl-C, stop all lanes.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from drupe.chain import INPUT, Step
from drupe.core.cache import Result, Run
from drupe.core.errors import StepError
from drupe.core.executor import Batch, Executor
from drupe.core.journal import Measured, journal_file, write_down
from drupe.core.model import KINDS, Model
from drupe.core.step import StepSpec
from drupe.listener import Listener
from drupe.plan import Plan
from drupe.preflight.estimates import operation_name
from drupe.resources.models import architectures, size_of
from drupe.systems.follow import Followed, Tell

STOP_SECONDS = 30.0  # how long a lane that is stopped may take to cancel its job
Say = Callable[[Callable[[], None]], None]  # has the caller's thread call something


def work_off(planned: Plan, heard: Listener, force: bool = False) -> dict[str, Result]:
    """Work off every step; return the results by the names of the steps.

    force: work again what is in the cache. Raises what the first failing step raises, with what
    was finished kept.
    """
    with ExitStack() as held:
        executors = open_executors(planned, heard, force, held)
        return work_off_by(executors, planned, heard, force)[0]


def work_off_by(
    executors: Mapping[str, Executor],
    planned: Plan,
    heard: Listener,
    force: bool = False,
    forgiven: tuple[type[StepError], ...] = (),
    made: Collection[str] = (),
) -> tuple[dict[str, Result], dict[str, StepError]]:
    """Work off every step by executors that are open; return the results, and what failed.

    made: the keys of what was worked again already. forgiven: which failures end no more than the
    steps that wait for the one that failed; each of these is then told with it. Raises any other.
    """
    dispatch = _Dispatch(planned, heard, force, executors, forgiven, made)
    if max((executor.slots for executor in executors.values()), default=1) == 1:
        return dispatch.one_by_one()
    return dispatch.side_by_side()


def prepare(planned: Plan, heard: Listener, force: bool) -> bool:
    """Have each system where steps are to run make what they need; return whether one did."""
    steps = planned.steps if force else planned.to_run
    systems = {step.system.name: step.system.system for step in steps}
    settings = {name: replace(planned.settings[name], note=heard.note) for name in systems}
    made = [systems[name].prepare(settings[name]) for name in systems]
    return any(made)


def open_executors(
    planned: Plan, heard: Listener, force: bool, held: ExitStack
) -> dict[str, Executor]:
    """Return the executor of each system that may be needed, warming up where steps will run."""
    found: dict[str, Executor] = {}
    for system in {step.system.name: step.system for step in planned.steps}.values():
        to_run = [
            step
            for step in planned.steps
            if step.system.name == system.name and (force or not step.hit)
        ]
        preload = preload_of(to_run, planned.source.model)
        setting = replace(
            planned.settings[system.name], preload=preload, note=heard.note, force=force
        )
        found[system.name] = held.enter_context(system.system.open(setting))
        if to_run:
            found[system.name].warm_up()
    return found


def preload_of(steps: Sequence[Step], source: Model) -> tuple[str, ...]:
    """Return what the steps want imported once: the model's own architecture is among it."""
    wanted = dict.fromkeys(name for step in steps for name in step.operation.preload)
    if "transformers:AutoModelForCausalLM" in wanted:
        wanted |= dict.fromkeys(f"transformers:{name}" for name in architectures(source))
    return tuple(wanted)


@dataclass(eq=False)
class _Lane:
    """Steps of one system in their order; followed: the job that they share, once it is made."""

    system: str
    steps: list[Step] = field(default_factory=list)
    followed: Followed | None = None


class _Dispatch:
    """The results so far, and the lanes that are still to be worked off."""

    def __init__(
        self,
        planned: Plan,
        heard: Listener,
        force: bool,
        executors: Mapping[str, Executor],
        forgiven: tuple[type[StepError], ...] = (),
        made: Collection[str] = (),
    ) -> None:
        self._planned = planned
        self._heard = heard
        self._force = force
        self._executors = executors
        self._forgiven, self._made = forgiven, made
        self._failed: dict[str, StepError] = {}
        self._results: dict[str, Result] = {}
        self._models: dict[str, Model] = {INPUT: planned.source.model}
        self._makers = {step.stage: step for step in planned.steps if step.role == "pass"}
        self._stopping = threading.Event()
        self._beginning = threading.Lock()  # held while a job is made: none is after the stop

    def lanes(self) -> list[_Lane]:
        """Return all steps in lanes, in their order."""
        lanes: list[_Lane] = []
        open_lane: dict[str, _Lane] = {}  # by system: the lane that still grows
        for step in self._planned.steps:
            system = step.system.name
            runs = self._forces(step) or not step.hit
            joins = runs and self._executors[system].joins
            lane = open_lane.get(system) if joins else None
            if lane is None:
                lane = _Lane(system)
                lanes.append(lane)
            lane.steps.append(step)
            if runs and step.role == "pass":
                open_lane = {}  # what comes next waits for this one, which may wait for theirs
            if joins:
                open_lane[system] = lane
        return lanes

    def one_by_one(self) -> tuple[dict[str, Result], dict[str, StepError]]:
        """Work off the lanes in this thread."""
        for lane in self.lanes():
            if not self._is_lost(lane):
                self._work(lane, lambda call: call())
        return self._results, self._failed

    def side_by_side(self) -> tuple[dict[str, Result], dict[str, StepError]]:
        """Work off the lanes in threads of their own, as many at once as the systems' slots."""
        waiting, running = self.lanes(), _Running()
        try:
            while waiting or running.lanes:
                waiting = [lane for lane in waiting if not self._is_lost(lane)]
                for lane in self._ready(waiting, running):
                    waiting.remove(lane)
                    running.start(lane, self._work)
                if running.lanes:
                    running.next_message()()
        except BaseException:
            with self._beginning:
                self._stopping.set()
            for lane in running.stop(STOP_SECONDS):
                self._heard.warning(
                    f"{lane.steps[0].name} was to be stopped, and may still run on {lane.system}. "
                    "End it there."
                )
            raise
        return self._results, self._failed

    def _forces(self, step: Step) -> bool:
        """Return whether a step is worked though it may be in the cache."""
        return self._force and step.key not in self._made

    def _is_lost(self, lane: _Lane) -> bool:
        """Return whether a lane waits for what failed; its steps have then failed with it."""
        own = {step.stage for step in lane.steps if step.role == "pass"}
        for step in lane.steps:
            for stage in set(step.reads) - own:
                maker = self._makers.get(stage)
                if maker is not None and maker.name in self._failed:
                    self._lose(lane, self._failed[maker.name])
                    return True
        return False

    def _lose(self, lane: _Lane, fault: StepError) -> None:
        """Write down that the steps of a lane that have no result will have none."""
        for step in lane.steps:
            if step.name not in self._results:
                self._failed[step.name] = fault

    def _ready(self, waiting: list[_Lane], running: _Running) -> list[_Lane]:
        """Return the waiting lanes that can start now, within the slots of their systems."""
        free = {
            name: executor.slots - sum(lane.system == name for lane in running.lanes)
            for name, executor in self._executors.items()
        }
        ready = []
        for lane in waiting:
            own = {step.stage for step in lane.steps if step.role == "pass"}
            wanted = {name for step in lane.steps for name in step.reads} - own
            if free[lane.system] > 0 and wanted <= self._models.keys():
                free[lane.system] -= 1
                ready.append(lane)
        return ready

    def _work(self, lane: _Lane, say: Say) -> None:
        """Work off a lane; what fails, also between two steps, cancels its job."""
        step = lane.steps[0]
        try:
            for step in lane.steps:
                result = self._apply(lane, step, say)
                # The next step of this lane reads what this one made: it is put down here.
                self._put_down(step, result)
                say(partial(self._heard.finished, step, result))
        except BaseException as fault:
            if lane.followed is not None:
                lane.followed.cancel(self._teller(step, say))
            if not (isinstance(fault, StepError) and isinstance(fault, self._forgiven)):
                raise
            say(partial(self._heard.forgiven, step, fault))
            say(partial(self._lose, lane, fault))

    def _put_down(self, step: Step, result: Result) -> None:
        self._results[step.name] = result
        if step.role == "pass":
            self._models[step.stage] = result.model

    def _apply(self, lane: _Lane, step: Step, say: Say) -> Result:
        """Return the step's result: from the cache, or by its system."""
        read = tuple(self._models[name] for name in step.reads)
        cache = self._planned.cache.warning_by(lambda text: say(partial(self._heard.warning, text)))

        def work(folder: Path) -> Run:
            say(partial(self._heard.started, step))
            return self._job_of(lane).step(step.key, self._teller(step, say))

        base = read[0] if KINDS[step.operation.gives].has_base else None
        parents = tuple(model.digest for model in read)
        result = cache.run(
            step.key, step.operation.gives, parents, work, base, self._forces(step), step.parts
        )
        if not result.hit and self._executors[lane.system].here:
            note_down(step, read[0], result)
        return replace(result, model=replace(result.model, remote_code=read[0].remote_code))

    def _teller(self, step: Step, say: Say) -> Tell:
        return lambda event: say(partial(self._heard.event, step, event))

    def _job_of(self, lane: _Lane) -> Followed:
        """Return the job of a lane, which is made for the first of its steps that is to run."""
        with self._beginning:
            if self._stopping.is_set():
                raise KeyboardInterrupt
            if lane.followed is None:
                batch = Batch(tuple(map(self._spec, lane.steps)), self._planned.cache.work_folder)
                executor = self._executors[lane.system]
                lane.followed = Followed(executor, batch, self._stopping.is_set)
            return lane.followed

    def _spec(self, step: Step) -> StepSpec:
        return StepSpec(
            key=step.key,
            group=step.group,
            operation=step.registered,
            fields=json.loads(step.operation.model_dump_json()),
            models=tuple(map(self._model, step.reads)),
            threads=step.system.system.threads(),
            libraries=step.parts["libraries"],
        )

    def _model(self, stage: str) -> Model:
        """Return the model of a stage; of one that is not made yet, which step makes it."""
        if stage in self._models:
            return self._models[stage]
        step = self._makers[stage]
        read = self._model(step.reads[0])
        base = read if KINDS[step.operation.gives].has_base else None
        return Model(step.operation.gives, Path(), "", base, read.remote_code, step.key)


class _Running:
    """The threads of the lanes that run, and what they have to say to the caller's thread."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads: dict[_Lane, threading.Thread] = {}
        self._is_stopped = False

    @property
    def lanes(self) -> list[_Lane]:
        """The lanes that run."""
        return list(self._threads)

    def start(self, lane: _Lane, work: Callable[[_Lane, Say], None]) -> None:
        """Work a lane off in a thread of its own."""

        def target() -> None:
            try:
                work(lane, self._messages.put)
            except BaseException as fault:  # noqa: BLE001  raised in the caller's thread
                self._messages.put(partial(self._end, lane, fault))
            else:
                self._messages.put(partial(self._end, lane, None))

        # A daemon: one that waits for another process's lock must not keep this one from ending.
        thread = threading.Thread(target=target, name=f"lane {lane.steps[0].name}", daemon=True)
        self._threads[lane] = thread
        thread.start()

    def next_message(self) -> Callable[[], None]:
        """Return what a lane says next, waiting for it; to be called in this thread."""
        return self._messages.get()

    def stop(self, seconds: float) -> list[_Lane]:
        """Wait until the lanes that were told to stop have ended, and hear what they still say.

        seconds: how long at most. A lane that has no job waits for another process's, and is not
        waited for. Return the lanes that have not ended.
        """
        self._is_stopped = True
        end = time.monotonic() + seconds
        begun = {lane: thread for lane, thread in self._threads.items() if lane.followed}
        for thread in begun.values():
            thread.join(max(0.0, end - time.monotonic()))
        while not self._messages.empty():
            self._messages.get()()
        return [lane for lane, thread in begun.items() if thread.is_alive()]

    def _end(self, lane: _Lane, fault: BaseException | None) -> None:
        del self._threads[lane]
        if fault is not None and not self._is_stopped:
            raise fault


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
