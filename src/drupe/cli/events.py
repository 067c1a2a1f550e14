"""What a run does, for programs: one JSON object a line, written while it happens.

CACHE/logs/TIME-PID/events.jsonl   of each run, the last KEPT of them; --events FILE names another

    {"time": seconds since 1970, "event": planned | started | progress | note | warning |
     finished | failed | trial | searched | delivered, "step": its name where it is a step's, ...}
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from drupe.chain import Step
from drupe.cli.fault import failure
from drupe.core.cache import Result
from drupe.core.errors import DrupeError, Refused, StepError
from drupe.core.files import check_writable, remove_tree
from drupe.core.secrets import redacted_values
from drupe.listener import Listener
from drupe.outcome import Outcome
from drupe.output import PAGE, output_folder, report
from drupe.plan import Plan
from drupe.preflight.finding import Finding
from drupe.search.searched import Searched
from drupe.search.trial import Trial

KEPT = 20
PROGRESS_SECONDS = 1.0


class EventLog(Listener):
    """Writes down what it hears and passes it on to `shown`; a context manager.

    file: where to write, from the first line on; None is the cache's folder of logs, which is
    known once there is a plan.
    """

    def __init__(self, shown: Listener, file: Path | None = None) -> None:
        self.file = file
        self._asked_for = file is not None
        self._shown = shown
        self._opened: IO[bytes] | None = None
        self._last_progress: dict[str, float] = {}

    @property
    def wrote(self) -> bool:
        """Whether something was written: then `file` says where."""
        return self._opened is not None

    def __enter__(self) -> EventLog:
        if self.file is not None:
            self._open(self.file)
        return self

    def __exit__(self, *fault: object) -> None:
        if self._opened:
            self._opened.close()

    def planned(self, plan: Plan) -> None:
        """Write the steps, each with its key and whether it is cached."""
        if self.file is None:
            logs = plan.cache.folder / "logs"
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
            with suppress(OSError, Refused):  # a read-only cache serves what it holds
                self._open(logs / name / "events.jsonl")
                self.file = logs / name / "events.jsonl"
                _prune(logs)
        self._write("planned", steps=steps_of(plan))
        self._shown.planned(plan)

    def started(self, step: Step) -> None:
        """Write that a step begins; its first progress is not held back."""
        self._last_progress.pop(step.name, None)
        self._write("started", step=step.name)
        self._shown.started(step)

    def event(self, step: Step, event: dict[str, Any]) -> None:
        """Write notes and warnings, and progress at most once in PROGRESS_SECONDS."""
        now = time.monotonic()
        if event["event"] in ("note", "warning"):
            self._write(step=step.name, **event)
        elif event["event"] == "progress":
            last = self._last_progress.get(step.name)
            if last is None or now - last >= PROGRESS_SECONDS:
                self._last_progress[step.name] = now
                self._write(step=step.name, **event)
        self._shown.event(step, event)

    def finished(self, step: Step, result: Result) -> None:
        """Write what a step cost, and whether it was found."""
        self._write(
            "finished",
            step=step.name,
            cached=result.hit,
            seconds=result.seconds,
            peak_bytes=result.peak_bytes,
        )
        self._shown.finished(step, result)

    def forgiven(self, step: Step, fault: StepError) -> None:
        """Write that a step failed and the search goes on."""
        self._write("failed", step=step.name, **failure(fault))
        self._shown.forgiven(step, fault)

    def tried(self, trial: Trial, tried: int, standing: str) -> None:
        """Write what came of a point."""
        self._write("trial", trial=trial.to_json(), standing=standing)
        self._shown.tried(trial, tried, standing)

    def searched(self, searched: Searched) -> None:
        """Write what a search came to."""
        self._write("searched", **{**searched.to_json(), "trials": len(searched.trials)})
        self._shown.searched(searched)

    def found(self, finding: Finding) -> None:
        """Write what preflight saw."""
        self._write(finding.level, text=finding.text)
        self._shown.found(finding)

    def note(self, text: str) -> None:
        """Write what was done beside the steps."""
        self._write("note", text=text)
        self._shown.note(text)

    def warning(self, text: str) -> None:
        """Write a warning that is no step's."""
        self._write("warning", text=text)
        self._shown.warning(text)

    def failed(self, fault: DrupeError) -> None:
        """Write why the run ended without a result."""
        self._write("failed", **failure(fault))

    def delivered(self, outcome: Outcome) -> None:
        """Write where the result lies."""
        page = str(output_folder(outcome.plan) / PAGE)
        seconds = round(outcome.seconds, 3)
        self._write("delivered", output=_path(outcome.path), page=page, seconds=seconds)

    def _open(self, file: Path) -> None:
        check_writable(file.parent, "--events")
        if self._asked_for and file.exists() and not _is_log(file):
            what = "is there already, and is no log of events"
            raise Refused(f"--events {file}", what, "Name another file.")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._opened = file.open("wb", buffering=0)

    def _write(self, event: str, **more: Any) -> None:
        """Write one line at once: what was told before a kill can be read."""
        if self._opened is None:  # before the plan there is no place yet
            return
        line = {"time": round(time.time(), 3), "event": event, **more}
        text = json.dumps(redacted_values(line), ensure_ascii=False) + "\n"
        try:
            self._opened.write(text.encode())
        except OSError:
            if self._asked_for:
                raise
            self._opened = None  # a full disk ends the log, not what it tells of


def steps_of(plan: Plan) -> list[dict[str, Any]]:
    """Return each step of a plan as JSON values."""
    return [
        {"step": step.name, "does": step.registered, "key": step.key, "cached": bool(step.hit)}
        for step in plan.steps
    ]


def success(outcome: Outcome, events: Path | None) -> dict[str, Any]:
    """Return what `drupe run --json` prints of a run: its report, and where things lie."""
    return {
        **report(outcome),
        "output": _path(outcome.path),
        "page": str(output_folder(outcome.plan) / PAGE),
        "seconds": round(outcome.seconds, 3),
        "events": _path(events),
        "exit": 0,
    }


def _is_log(file: Path) -> bool:
    """Return whether a file is one that may be written anew: empty, or the log of another run."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            first = opened.readline()
        return not first.strip() or "event" in json.loads(first)
    except (OSError, ValueError, TypeError):
        return False


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def _prune(logs: Path) -> None:
    """Keep the last logs: their names begin with the time."""
    for old in sorted(logs.iterdir())[:-KEPT]:
        remove_tree(old)
