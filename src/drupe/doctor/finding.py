"""One thing that was looked at: what it is, what was found, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["fine", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    state: "broken" means that something that is installed cannot work; a "note" may be as wished.
    remedy: what mends it, or an empty string.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as plain JSON values."""
        return asdict(self)


@contextmanager
def looking_at(subject: str, findings: list[Finding]) -> Iterator[None]:
    """Turn a look that fails by itself into a finding: the other looks go on."""
    try:
        yield
    except OSError as fault:
        findings.append(Finding(subject, "note", f"cannot be looked at: {fault}"))
