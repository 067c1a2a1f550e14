"""Why nothing keeps every limit: which of them binds, and what could be reached.

alone      no point keeps this limit
together   each of them is kept by some point, all of them by none
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drupe.search.constraints import Limit, Objective, standing_of
from drupe.search.ranking import is_eligible
from drupe.search.trial import Trial


@dataclass(frozen=True)
class Binding:
    """The limits that bind, with the trial that comes nearest and keeps as much as can be."""

    limits: tuple[Limit, ...]
    nearest: Trial


def bindings(
    trials: Sequence[Trial], objectives: Sequence[Objective], limits: Sequence[Limit]
) -> list[Binding]:
    """Return what binds, each limit that does so alone by itself; nothing where a point keeps all.

    Nothing as well where no trial can be compared: then no limit is to blame.
    """
    known = [trial for trial in trials if is_eligible(trial, objectives)]
    if any(standing_of(trial.numbers, limits) != "breaks" for trial in known):
        return []
    # What is known of points that were not run counts too: sizes are exact beforehand.
    alone = [limit for limit in limits if _breaks_everywhere(limit, trials)]
    if alone:
        return [
            Binding((limit,), _nearest(_told(trials, limit), [limit], limits)) for limit in alone
        ]
    if not known:
        return []
    broken = [limit for limit in limits if any(_breaks(trial, limit) for trial in known)]
    # Of those that keep most limits: what is left there binds beside the others.
    most = max(sum(not _breaks(trial, limit) for limit in limits) for trial in known)
    best = [t for t in known if sum(not _breaks(t, limit) for limit in limits) == most]
    return [Binding(tuple(broken), _nearest(best, broken, limits))]


def _told(trials: Sequence[Trial], limit: Limit) -> list[Trial]:
    return [trial for trial in trials if limit.objective.name in trial.numbers]


def _breaks_everywhere(limit: Limit, trials: Sequence[Trial]) -> bool:
    """Return whether every point of which the limit's number is known breaks it, and any is."""
    told = _told(trials, limit)
    return bool(told) and all(_breaks(trial, limit) for trial in told)


def _breaks(trial: Trial, limit: Limit) -> bool:
    return limit.standing(trial.numbers[limit.objective.name]) == "breaks"


def _nearest(trials: Sequence[Trial], wanted: Sequence[Limit], every: Sequence[Limit]) -> Trial:
    """Return the trial that breaks the wanted limits least; all limits decide among equals."""

    def excess(trial: Trial, limits: Sequence[Limit]) -> float:
        told = (limit for limit in limits if limit.objective.name in trial.numbers)
        values = ((limit, trial.numbers[limit.objective.name].value) for limit in told)
        return sum(max(0.0, limit.excess(value)) / _size(limit) for limit, value in values)

    return min(trials, key=lambda each: (excess(each, wanted), excess(each, every), each.number))


def _size(limit: Limit) -> float:
    return abs(limit.value) or 1.0


def infeasible_words(found: Sequence[Binding], shown: Callable[[Objective, float], str]) -> str:
    """Return what binds in words: "the size limit of 1 MB binds; the best reachable is ...".

    shown: how a number of an objective is written.
    """
    sentences = []
    for binding in found:
        named = [
            f"{limit.objective.name} limit of {shown(limit.objective, limit.value)}"
            for limit in binding.limits
        ]
        verb = "binds" if len(named) == 1 else "bind together"
        reached = ", ".join(
            _reached(limit, binding.nearest, shown, alone=len(named) == 1)
            for limit in binding.limits
        )
        settings = binding.nearest.point.words
        sentences.append(
            f"the {' and the '.join(named)} {verb}; the best reachable is {reached}"
            + (f" with {settings}" if settings else "")
        )
    return "; ".join(sentences)


def _reached(
    limit: Limit, trial: Trial, shown: Callable[[Objective, float], str], *, alone: bool
) -> str:
    value = shown(limit.objective, trial.numbers[limit.objective.name].value)
    return value if alone else f"{limit.objective.name} {value}"
