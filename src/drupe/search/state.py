"""The state of a search on disk: a line for each trial, and the time that was spent.

    CACHE/searches/KEY.jsonl   {"trial": {...}, "spent": seconds} a line; {"ended": why} the last

What the trials gave lies in the cache: a search that was killed asks the same points again, finds
what was finished, and goes on. The time that it may take is counted over all of it. A search that
ended begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from drupe.search.trial import Trial


class State:
    """The file of one search. spent: the seconds of the runs before this one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = _lines(file)
        self.spent = float(lines[-1].get("spent", 0.0)) if lines else 0.0
        self.tried = len({json.dumps(line.get("trial", {}).get("point")) for line in lines})
        if lines and "ended" in lines[-1]:
            self.spent, self.tried = 0.0, 0
            self._write_anew()

    def tell(self, trial: Trial, seconds: float) -> None:
        """Write down a trial. seconds: since this run began."""
        self._append({"trial": trial.to_json(), "spent": round(self.spent + seconds, 3)})

    def end(self, why: str) -> None:
        """Write down that the search is over."""
        self._append({"ended": why})

    def _append(self, line: Mapping[str, Any]) -> None:
        with suppress(OSError):  # a full disk loses the account, not the search
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(line) + "\n")

    def _write_anew(self) -> None:
        with suppress(OSError):
            self._file.unlink()


def _lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines; one that a kill cut is none."""
    found = []
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return []
    for line in text.splitlines():
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(value)
    return found
