"""Finding: what preflight saw, a blocker or a warning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from drupe.core.errors import DrupeError


@dataclass(frozen=True)
class Finding:
    """What is in the way of a run ("blocker"), may be ("warning"), or is just told ("note")."""

    level: Literal["blocker", "warning", "note"]
    where: str
    what: str
    remedy: str

    @classmethod
    def blocker(cls, fault: DrupeError) -> Finding:
        """Return the finding that `fault` is."""
        return cls("blocker", fault.where, fault.what, fault.remedy)

    @property
    def text(self) -> str:
        """The finding in one line."""
        return f"{self.where}: {self.what.rstrip('.')}. {self.remedy}".strip()

    def to_json(self) -> dict[str, str]:
        """Return the finding as JSON values."""
        return asdict(self)
