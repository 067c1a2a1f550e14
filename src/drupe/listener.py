"""Listener: hears what a run does."""

from __future__ import annotations

from typing import Any

from drupe.chain import Step
from drupe.core.cache import Result
from drupe.core.errors import StepError
from drupe.plan import Plan
from drupe.preflight.finding import Finding
from drupe.search.searched import Searched
from drupe.search.trial import Trial


class Listener:
    """Hears what a run does; a client that shows it overrides what it needs."""

    def planned(self, plan: Plan) -> None:
        """Hear the plan; nothing is done yet."""

    def found(self, finding: Finding) -> None:
        """Hear what preflight saw that may be in the way of the run."""

    def started(self, step: Step) -> None:
        """Hear that a step that is not in the cache begins."""

    def event(self, step: Step, event: dict[str, Any]) -> None:
        """Hear a running step tell its progress, its memory, a note or a warning."""

    def finished(self, step: Step, result: Result) -> None:
        """Hear that a step's result is there, found or made."""

    def forgiven(self, step: Step, fault: StepError) -> None:
        """Hear that a step failed and the run goes on: a search tolerates it."""

    def tried(self, trial: Trial, tried: int, standing: str) -> None:
        """Hear what came of a point of a search; tried: how many points, standing: in words."""

    def searched(self, searched: Searched) -> None:
        """Hear what a search came to, before its best is delivered."""

    def note(self, text: str) -> None:
        """Hear what was done beside the steps."""

    def warning(self, text: str) -> None:
        """Hear what may be wrong; the run goes on."""
