"""What a run looks like on a terminal: a line a finished step, a live line for each running one.

Without a terminal (a log, a pipe) the same is told in plain lines, at most one in ten seconds.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from drupe.chain import Step
from drupe.core.cache import Result
from drupe.core.errors import StepError
from drupe.listener import Listener
from drupe.outcome import LEFT_OUT, Outcome
from drupe.output import PAGE, output_folder
from drupe.plan import Plan
from drupe.preflight.finding import Finding
from drupe.report import search, table
from drupe.report.search import settings
from drupe.report.verdict import verdict
from drupe.report.words import duration, size
from drupe.search.searched import Searched
from drupe.search.trial import Trial

PLAIN_SECONDS = 10.0
MOST_ROWS = 20  # of the trials of a search


class Terminal(Listener):
    """Shows a run; a context manager around it, so that the live line is always cleared.

    aside: whether plain lines go to the standard error, the standard output being a program's.
    """

    def __init__(self, aside: bool = False) -> None:
        plain = False if aside else None
        self._console = Console(highlight=False, soft_wrap=True, stderr=aside, force_terminal=plain)
        self._live: Live | None = None
        self._width = 0
        self._running: dict[str, _Running] = {}
        self._severity = 1
        self._said: set[str] = set()
        self._finished: set[str] = set()

    def __enter__(self) -> Terminal:
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self._live:
            self._live.stop()

    def planned(self, plan: Plan) -> None:
        """Show what was read otherwise than written, and how much is to do."""
        workflow = plan.workflow
        self._severity = workflow.engine.log_severity_level
        chain = " -> ".join(plan.stages[1:]) or "no pass"
        self._print(f"{Path(workflow.file).name}: {plan.source.name} -> {chain}", style="bold")
        for note in workflow.notes:
            self._note(note.text, note.level)
        for text in plan.notes:
            self._note(text, "note")
        count, left = len(plan.steps), len(plan.to_run)
        self._print(f"  target {workflow.target.label}; {left} of {count} steps to run")
        self._width = max((len(step.name) for step in plan.steps), default=0)

    def found(self, finding: Finding) -> None:
        """Show what preflight saw; what is in the way ends the verb, and is told there."""
        self._note(finding.text, finding.level)

    def started(self, step: Step) -> None:
        """Begin the live line of a step."""
        self._running[step.name] = _Running(step.name)
        if self._live:
            self._show_running()
        elif step.role == "pass":
            self._print(f"... {step.name}")

    def event(self, step: Step, event: dict[str, Any]) -> None:
        """Show a running step's progress, memory, notes."""
        if event["event"] in ("note", "warning"):
            if event["text"] not in self._said:  # several steps may find the same
                self._said.add(event["text"])
                self._note(f"{step.name}: {event['text']}", event["event"])
            return
        running = self._running[step.name]
        running.hear(event)
        if self._live:
            self._show_running()
        elif running.is_due():
            self._print(f"... {running.line()}")

    def _show_running(self) -> None:
        """Show a live line for each running step, in the order in which they began."""
        assert self._live
        lines = [
            Spinner("dots", text=Text(each.line(), overflow="ellipsis", no_wrap=True))
            for each in self._running.values()
        ]
        self._live.update(Group(*lines))

    def finished(self, step: Step, result: Result) -> None:
        """Write the line of a finished step."""
        self._running.pop(step.name, None)
        if self._live:
            self._show_running()
        if result.hit and step.key in self._finished:
            return  # what points of a search share is told once
        self._finished.add(step.key)
        name = f"{step.name:<{self._width}}"
        if result.hit:
            self._print(f"= {name}  cached", style="dim")
        else:
            peak = size(result.peak_bytes) if result.peak_bytes else ""
            self._print(f"✓ {name}  {duration(result.seconds):>8}  {peak:>8}")

    def forgiven(self, step: Step, fault: StepError) -> None:
        """Write that a step failed, which a search tolerates."""
        self._running.pop(step.name, None)
        if self._live:
            self._show_running()
        self._note(f"{step.name}: {fault.what}", "warning")

    def tried(self, trial: Trial, tried: int, standing: str) -> None:
        """Write what came of a point."""
        sign = "●" if standing in ("keeps", "on the way") else "○"
        reason = f": {trial.reason}" if trial.reason else ""
        self._print(f"{sign} {tried}. {settings(trial)}  {standing}{reason}", style="bold")

    def note(self, text: str) -> None:
        """Write what was done beside the steps."""
        self._note(text, "note")

    def warning(self, text: str) -> None:
        """Write a warning."""
        self._note(text, "warning")

    def events_lie_in(self, file: Path) -> None:
        """Say where what happened before a failure is written down."""
        self._print(f"  What happened: {_short(file)}", style="dim")

    def outcome(self, outcome: Outcome) -> None:
        """Show the table, the verdict, an answered phrase and what to do next."""
        self._table(table.header(outcome), table.rows(outcome))
        if table.legend(outcome):
            self._print(table.legend(outcome), style="dim")
        self._print(f"\n{verdict(outcome)}", style="bold")
        self._answered(outcome)
        if outcome.path is not None:
            self._print(f"\nIn {_short(outcome.path)}, after {duration(outcome.seconds)}.")
            self._print(f"Its card:  {_short(outcome.path / 'README.md')}")
        self._print(f"The report:  {_short(output_folder(outcome.plan) / PAGE)}")
        if outcome.path is not None:
            self._next(outcome)

    def searched(self, searched: Searched) -> None:
        """Show the trials of a search, the best first."""
        told = search.rows(searched)
        self._table(search.header(searched), told[:MOST_ROWS])
        if len(told) > MOST_ROWS:
            self._print(f"... and {len(told) - MOST_ROWS} more, in the report")
        limits = ", ".join(map(search.limit_words, searched.limits))
        self._print("* on the Pareto front" + (f"; limits: {limits}" if limits else ""))

    def _table(self, header: list[str], rows: list[list[str]]) -> None:
        grid = Table(*header, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            grid.add_row(*map(Text, row))
        self._console.print()
        self._console.print(grid, soft_wrap=False)

    def _next(self, outcome: Outcome) -> None:
        """Say what can be done with the result by another command."""
        kind, folder = outcome.final.kind, _short(output_folder(outcome.plan))
        if _answers(outcome):
            chat = f"{_program()} chat {folder}"
            self._print(f'Next:  {chat}\n       {chat} --prompt "..." --choices A,B')
        elif (
            kind == "hf-adapter" and Path(outcome.plan.workflow.file).resolve().parent == Path.cwd()
        ):
            # Elsewhere the base, relative to the config, would not be found by its name.
            self._print(f"Next:  {_program()} merge {folder} -o merged")
        elif kind == "hf":
            self._print(f"Next:  {_program()} export {folder} --precision int4 -o int4")

    def _answered(self, outcome: Outcome) -> None:
        for score in outcome.scores.values():
            for sample in score.samples[:1]:
                self._print(f"\n{sample['prompt']}", style="dim")
                self._print(f"{sample['answer']}   (expected: {sample['expected']})")

    def _note(self, text: str, level: str) -> None:
        """Write a note or a warning, if the config's log_severity_level lets it through."""
        if level == "note" and self._severity <= 1:
            self._print(f"  {text}", style="dim")
        elif level == "warning" and self._severity <= 2:
            self._print(f"! {text}", style="yellow")

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style or None, markup=False)


@dataclass
class _Running:
    """What is shown of a step that runs: what, how far, rate, time left, memory."""

    name: str
    _began: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)
    _progress: dict[str, Any] = field(default_factory=dict)
    _memory: dict[str, Any] = field(default_factory=dict)
    _first: tuple[float, float] | None = None

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "memory":
            self._memory = event
        else:
            self._progress = event

    def is_due(self) -> bool:
        """Return whether it is time for a plain line again; it counts as written then."""
        if time.monotonic() - self._last_line < PLAIN_SECONDS:
            return False
        self._last_line = time.monotonic()
        return True

    def line(self) -> str:
        if not self._progress and not self._memory:
            return f"{self.name}: starting"
        parts = [self.name]
        elapsed = time.monotonic() - self._began
        told = self._progress
        if told:
            done, total = told["done"], told["total"]
            amount = f"{told['what']} {_count(done, told)} of {_count(total, told)}"
            parts.append(amount)
            if self._first is None:
                self._first = (done, elapsed)  # a resumed step does not begin at 0
            done_here, seconds = done - self._first[0], elapsed - self._first[1]
            if done_here > 0 and seconds > 1:
                rate = done_here / seconds
                unit = "" if told["unit"] == "bytes" else f" {told['unit']}"
                shown = size(rate) if told["unit"] == "bytes" else f"{rate:.3g}"
                parts += [f"{shown}{unit}/s", f"{duration((total - done) / rate)} left"]
            if "loss" in told:
                parts.append(f"loss {told['loss']:.3f}")
        else:
            parts.append(duration(elapsed))
        if self._memory:
            now, peak = self._memory["now"], self._memory["peak"]
            parts.append(f"memory {size(now)}, at peak {size(peak)}")
        return "  ".join(parts)


def _answers(outcome: Outcome) -> bool:
    """Return whether the final model was seen to run on this machine."""
    ran = any(
        score.value is not None or score.samples or score.more.get(LEFT_OUT)
        for score in outcome.scores.values()
    )
    return outcome.final.kind == "onnx-genai" and (ran or not outcome.scores)


def _program() -> str:
    """Return how this program is called from here."""
    return "drupe" if shutil.which("drupe") else _short(Path(sys.argv[0]).absolute())


def _count(amount: float, told: dict[str, Any]) -> str:
    return size(amount) if told["unit"] == "bytes" else f"{amount:.0f} {told['unit']}"


def _short(path: Path) -> str:
    """Return a path as it is written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
