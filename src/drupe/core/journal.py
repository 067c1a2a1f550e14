"""The machine's journal: what each finished step took here, so that the next can be foretold.

One JSON line a step, in a file of the user's that all projects share. No path, no name of a model
or of data, no secret: the operation, how much work it was, and what it took. A torn last line (a
machine that went down) and lines of another format are passed over. `DRUPE_JOURNAL` names another
file, or none at all if it is empty.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = 1
VARIABLE = "DRUPE_JOURNAL"
MOST_LINES = 2000


@dataclass(frozen=True)
class Measured:
    """One finished step.

    operation: "MergeAdapterWeights/1", the registered name and version. work: how much there was
    to do, in the operation's own unit. model_bytes: the size of the model that it worked on.
    """

    operation: str
    work: float
    model_bytes: int
    seconds: float
    peak_bytes: int
    output_bytes: int


def journal_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the journal is, or None where there is to be none."""
    if VARIABLE in environment:
        return Path(environment[VARIABLE]) if environment[VARIABLE] else None
    home = Path.home()
    if sys.platform == "win32":
        state = Path(environment.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        state = home / "Library" / "Application Support"
    else:
        state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
    return state / "drupe" / "journal.jsonl"


def write_down(measured: Measured, file: Path | None) -> None:
    """Add a line; a journal that cannot be written is no fault of a run."""
    if file is None:
        return
    line = json.dumps({"format": FORMAT, **asdict(measured)}) + "\n"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as journal:  # one write of one line: two runs do not mix
            journal.write(line.encode())
        if file.stat().st_size > MOST_LINES * 300:
            lines = file.read_bytes().splitlines(keepends=True)[-MOST_LINES // 2 :]
            shortened = file.with_name(f".{file.name}.{os.getpid()}")
            shortened.write_bytes(b"".join(lines))
            os.replace(shortened, file)


def read_journal(file: Path | None) -> list[Measured]:
    """Return all that was measured here, oldest first."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [measured for line in lines if (measured := _measured(line)) is not None]


def _measured(line: str) -> Measured | None:
    try:
        value = json.loads(line)
        if value.pop("format") != FORMAT:
            return None
        found = Measured(**value)
        numbers = (found.work, found.model_bytes, found.seconds, found.peak_bytes)
        return found if all(number >= 0 for number in (*numbers, found.output_bytes)) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
