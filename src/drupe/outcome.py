"""What a run gave: the stages of the chain with what they cost and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.model import Model
from drupe.plan import Plan


def is_measured(score: dict[str, Any] | None) -> bool:
    """Return whether a score holds a number (and is not a sample, or a "skipped")."""
    return bool(score) and score.get("value") is not None  # type: ignore[union-attr]


@dataclass(frozen=True)
class Stage:
    """One stage of the chain as it came out.

    size_bytes: of its files. seconds, peak_bytes: of the pass that made it (0 for the input).
    scores: {metric's name: the content of its score.json}. answers: {metric's name: a row's
    [predicted, right]} where the metric gives them. proof: the content of the proof's score.
    """

    name: str
    kind: str
    model: Model
    size_bytes: int
    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    answers: dict[str, list[list[str]]]
    proof: dict[str, Any] | None


@dataclass(frozen=True)
class Outcome:
    """The stages in order, the last one being the model to deploy, delivered in `path`.

    seconds: wall time of this run, found results included.
    """

    plan: Plan
    stages: tuple[Stage, ...]
    path: Path
    seconds: float

    @property
    def final(self) -> Stage:
        """The stage at the end of the chain."""
        return self.stages[-1]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """What was measured of the final model."""
        return self.final.scores
