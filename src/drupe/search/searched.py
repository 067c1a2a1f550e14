"""What a search came to: every trial, how each stands, and what was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from drupe.core.goal import Number
from drupe.search.binding import Binding, bindings
from drupe.search.constraints import Limit, Objective, Standing, missing, ranked_by, standing_of
from drupe.search.pareto import front
from drupe.search.ranking import ranked
from drupe.search.trial import Trial

# keeps: the answer keeps every limit. undecided: what was measured does not tell. infeasible: no
# point keeps all. not found: none that was tried does, not all were. nothing: none was measured.
Verdict = Literal["keeps", "undecided", "infeasible", "not found", "nothing"]


@dataclass(frozen=True)
class Searched:
    """The trials in the order in which their points were asked.

    points: how many the space has. known: of how many of them something is known. baseline: the
    input model's numbers. depth: how many passes a whole chain has. wanted: how many models were
    asked for. why: what ended the search.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...]
    baseline: dict[str, Number]
    points: int
    known: int
    depth: int
    wanted: int = 1
    why: str = ""
    seed: int = 1
    sampler: str = ""

    @cached_property
    def whole(self) -> tuple[Trial, ...]:
        """The trials of whole chains."""
        return tuple(trial for trial in self.trials if trial.passes == self.depth)

    @cached_property
    def ranking(self) -> list[Trial]:
        """The trials of whole chains that can be compared, the best first."""
        return ranked(self.whole, self.objectives, self.limits)

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto front of all numbers that rank or have a limit."""
        return front(self.whole, [each for each in self.objectives if self._counts(each)])

    @property
    def ranked_by(self) -> tuple[Objective, ...]:
        """The objectives that rank, the most important first."""
        return ranked_by(self.objectives)

    @cached_property
    def chosen(self) -> list[Trial]:
        """The trials whose models are delivered: the best, and as many more as were asked for."""
        best = self.ranking[:1]
        if not best or self.standing(best[0]) == "breaks":
            return []
        own = self.standing(best[0])
        return [trial for trial in self.ranking if self.standing(trial) == own][: self.wanted]

    @cached_property
    def bindings(self) -> list[Binding]:
        """Which limits bind, where nothing keeps all of them."""
        return bindings(self.whole, self.objectives, self.limits)

    @property
    def verdict(self) -> Verdict:
        """What the search came to."""
        if self.chosen:
            return "keeps" if self.standing(self.chosen[0]) == "keeps" else "undecided"
        if not self.ranking and not self.bindings:
            return "nothing"
        return "infeasible" if self.known >= self.points else "not found"

    def standing(self, trial: Trial) -> Standing:
        """Return how a trial that can be compared stands to the limits."""
        return standing_of(trial.numbers, self.limits)

    def words(self, trial: Trial) -> str:
        """Return how any trial stands: keeps, undecided, breaks size, not measured: ..., failed."""
        if trial.state != "measured":
            return trial.state
        if trial.passes < self.depth:
            return "on the way"
        absent = missing(trial.numbers, self.objectives)
        if absent:
            return f"not measured: {', '.join(absent)}"
        standing = self.standing(trial)
        if standing == "keeps":
            return standing
        return f"{standing} {', '.join(self._of(trial, standing))}"

    def _of(self, trial: Trial, standing: Standing) -> list[str]:
        """Return the names of the limits to which a trial stands so."""
        names = (
            limit.objective.name
            for limit in self.limits
            if limit.standing(trial.numbers[limit.objective.name]) == standing
        )
        return list(dict.fromkeys(names))

    def _counts(self, objective: Objective) -> bool:
        return objective.priority is not None or bool(objective.goals)

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        order = {trial.number: place for place, trial in enumerate(self.ranking, 1)}
        on_front = {trial.number for trial in self.front}
        return {
            "verdict": self.verdict,
            "points": self.points,
            "known": self.known,
            "sampler": self.sampler,
            "seed": self.seed,
            "ended": self.why,
            "limits": [
                {
                    "number": limit.objective.name,
                    "value": limit.value,
                    "higher_is_better": limit.objective.higher_is_better,
                    "goal": limit.goal.model_dump(),
                }
                for limit in self.limits
            ],
            "chosen": [trial.number for trial in self.chosen],
            "binding": [
                {
                    "limits": [limit.objective.name for limit in binding.limits],
                    "nearest": binding.nearest.number,
                }
                for binding in self.bindings
            ],
            "trials": [
                trial.to_json()
                | {
                    "standing": self.words(trial),
                    "rank": order.get(trial.number),
                    "front": trial.number in on_front,
                }
                for trial in self.trials
            ],
        }
