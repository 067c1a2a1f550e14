"""What a running step is given besides its input and output: a place to go on from, and a voice.

A job writes events, one JSON object a line, which the client reads as they come, on this
machine or from a log that was streamed from another:

    {"event": "progress", "what": "training", "done": 12, "total": 90, "unit": "steps", ...}
    {"event": "note" | "warning", "text": "..."}
    {"event": "failed", "where": ..., "what": ..., "remedy": ...}
    {"event": "done", "facts": {...}}
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVENT_SECONDS = 0.1
INSIDE = "inside"  # among the facts: those of a pass whose work was done on the way


@dataclass
class Job:
    """Handed to the work of every step.

    scratch: a folder that outlives a killed run of the same step (training checkpoints).
    threads: how many threads the work may use.
    facts: what the work found out and the report should show (losses, sizes); JSON values.
    """

    scratch: Path
    threads: int = 1
    send: Callable[[dict[str, Any]], None] = lambda event: None
    facts: dict[str, Any] = field(default_factory=dict)
    _last_sent: float = 0.0

    def progress(self, what: str, done: float, total: float, unit: str, **also: Any) -> None:
        """Tell how far the work is (at most ten times a second, the end always)."""
        now = time.monotonic()
        if done < total and now - self._last_sent < EVENT_SECONDS:
            return
        self._last_sent = now
        self.send(
            {"event": "progress", "what": what, "done": done, "total": total, "unit": unit, **also}
        )

    def note(self, text: str) -> None:
        """Tell the user one line."""
        self.send({"event": "note", "text": text})

    def warn(self, text: str) -> None:
        """Tell the user one line that may well be a mistake of theirs."""
        self.send({"event": "warning", "text": text})


def event_line(event: dict[str, Any]) -> str:
    """Return an event as one line of text."""
    return json.dumps(event, ensure_ascii=False) + "\n"
