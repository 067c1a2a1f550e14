"""A search in words: what it came to, what binds, and a table of its trials."""

from __future__ import annotations

from collections import Counter

from drupe.core.goal import Number
from drupe.report.words import duration, number_text, size
from drupe.search.binding import infeasible_words
from drupe.search.constraints import Limit, Objective
from drupe.search.searched import Searched
from drupe.search.trial import Trial

AT_MOST = {True: "at least", False: "at most"}  # by whether higher is better


def summary(searched: Searched) -> str:
    """Return one sentence on what came of the search."""
    verdict, counted = searched.verdict, tried(searched)
    if verdict == "keeps":
        kept = ", which keeps every limit" if searched.limits else ""
        return f"Best of {counted}: {settings(searched.chosen[0])}{kept}."
    if verdict == "undecided":
        best = searched.chosen[0]
        names = searched.words(best).removeprefix("undecided ")
        return (
            f"Best of {counted}: {settings(best)}. Whether it keeps the limit of {names} is "
            "undecided: the interval of what was measured holds the limit."
        )
    why = why_nothing(searched)
    return f"{why[:1].upper()}{why[1:]}."


def why_nothing(searched: Searched) -> str:
    """Return why the search gave no model."""
    if searched.verdict == "nothing":
        return f"no point could be compared: {_states(searched)}"
    bound = infeasible_words(searched.bindings, shown)
    if searched.verdict == "infeasible":
        return f"infeasible: {bound}"
    return f"no point that was tried keeps every limit ({tried(searched)}): {bound}"


def tried(searched: Searched) -> str:
    """Return how many points were tried: "12 points", "12 of 40 points"."""
    count = searched.known
    of = "" if count >= searched.points else f" of {searched.points}"
    return f"{count}{of} point{'s' if searched.points != 1 else ''}"


def _states(searched: Searched) -> str:
    counted = Counter(searched.words(trial) for trial in searched.whole)
    told = ", ".join(f"{count} {words}" for words, count in counted.items()) or "none was tried"
    first = next((trial.reason for trial in searched.whole if trial.reason), "")
    return f"{told} ({first})" if first else told


def settings(trial: Trial) -> str:
    """Return a trial's settings in words."""
    return trial.point.words or "nothing was open"


def shown(objective: Objective, value: float) -> str:
    """Return a number of an objective as people read it."""
    return number_text(value, objective.unit)


def limit_words(limit: Limit) -> str:
    """Return a limit in words: "size at most 1.2 MB"."""
    bound = AT_MOST[limit.objective.higher_is_better]
    return f"{limit.objective.name} {bound} {shown(limit.objective, limit.value)}"


def looked_at(searched: Searched) -> list[Objective]:
    """Return the objectives as columns: what ranks, in its order, then what is limited or told."""
    return list(dict.fromkeys([*searched.ranked_by, *searched.objectives]))


def header(searched: Searched) -> list[str]:
    """Return the column titles of the table of trials."""
    names = [objective.name for objective in looked_at(searched)]
    return ["", "point", *names, "model", "time", "standing"]


def rows(searched: Searched) -> list[list[str]]:
    """Return a row for each trial: those that can be compared first, the best first."""
    order = [*searched.ranking]
    order += [trial for trial in searched.trials if trial not in order]
    on_front = {trial.number for trial in searched.front}
    found = []
    for place, trial in enumerate(order, 1):
        compared = place <= len(searched.ranking)
        sign = "*" if trial.number in on_front else ""
        cells = [
            _cell(objective, trial.numbers.get(objective.name)) for objective in looked_at(searched)
        ]
        weight = size(trial.size_bytes) if trial.size_bytes else ""
        took = duration(trial.seconds) if trial.seconds else ""
        rank = f"{place}{sign}" if compared else ""
        found.append([rank, settings(trial), *cells, weight, took, searched.words(trial)])
    return found


def _cell(objective: Objective, number: Number | None) -> str:
    if number is None:
        return ""
    text = shown(objective, number.value)
    if number.low is None or number.high is None or number.low == number.high:
        return text
    low, high = shown(objective, number.low), shown(objective, number.high)
    return f"{text} ({low} to {high})"
