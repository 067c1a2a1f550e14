"""What is written about a step's result: its manifest, sealed, and the marks of its files.

A manifest holds on any machine: no path, no secret. Its seal is the digest of all the rest, so
that one that was cut, edited or hit by a fault of the disk is told from one that drupe wrote.
Marks hold on one machine: they tell at no cost that a file was not touched.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.digest import identity, is_sealed, sealed
from drupe.core.files import files_below

FORMAT = 3


class OtherFormat(ValueError):  # noqa: N818  reads as what it is
    """A manifest that another version of drupe wrote: no damage, and no hit."""


@dataclass(frozen=True)
class Manifest:
    """What a step gave, and all that its key was made of.

    files: {relative posix path: content digest}. parents: the content digests of the models
    that it worked on. parts: what the key is the hash of (see `Operation.key_parts`).
    machine: the class of the machine that made it (see `core.machine`).
    made: seconds since 1970 by the clock of the machine.
    """

    key: str
    kind: str
    files: dict[str, str]
    parents: list[str]
    parts: dict[str, Any]
    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    machine: dict[str, Any]
    made: int

    @property
    def operation(self) -> str:
        """The registered name of the pass or metric, if it was told."""
        return str(self.parts.get("operation", ""))

    def to_bytes(self) -> bytes:
        """Return the manifest as it is written."""
        return sealed({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def read(cls, step: Path) -> Manifest:
        """Return the manifest in a step's folder.

        Raises FileNotFoundError where there is none, OtherFormat, and ValueError with what is
        wrong in words.
        """
        try:
            value = json.loads((step / "manifest").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"its manifest cannot be read ({error})") from error
        if not isinstance(value, dict):
            raise ValueError("its manifest is not one that drupe writes")  # noqa: TRY004
        if value.get("format") != FORMAT:
            raise OtherFormat(f"it is of format {value.get('format')}, not {FORMAT}")
        if not is_sealed(value):
            raise ValueError("its manifest has changed since it was made")
        fields = [field.name for field in dataclasses.fields(cls)]
        if not set(fields) <= set(value):
            raise ValueError("its manifest is not one that drupe writes")
        return cls(**{name: value[name] for name in fields})


@dataclass(frozen=True)
class Compared:
    """The files of a step's folder beside its manifest; no byte of them was read.

    fault: a file that is missing or foreign. touched: the names whose marks are not those
    recorded. marks: as they are now.
    """

    fault: str | None
    touched: tuple[str, ...]
    marks: dict[str, str]


def compare(step: Path, digests: dict[str, str]) -> Compared:
    """Return what the folder of a step says beside the names in its manifest.

    Raises DrupeError for a link that leads out, OSError for what cannot be looked at.
    """
    files = step / "files"
    present = {file.relative_to(files).as_posix(): file for file in files_below(files)}
    if present.keys() != digests.keys():
        changed = min(present.keys() ^ digests.keys())
        return Compared(f"{changed} is {'missing' if changed in digests else 'foreign'}", (), {})
    recorded = read_marks(step)
    marks = {name: identity(file.stat()) for name, file in present.items()}
    touched = tuple(name for name in digests if marks[name] != recorded.get(name))
    return Compared(None, touched, marks)


def read_marks(step: Path) -> dict[str, Any]:
    """Return the marks as they are recorded; none where they cannot be read."""
    try:
        marks = json.loads((step / "marks").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return marks if isinstance(marks, dict) else {}
