"""The table of stages: quality, size, time and memory of each, for the terminal and the card.

Beside a number stands, from the second stage on, its difference to the input model's on the same
rows: the two are paired, so that it is known better than the numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass

from drupe.outcome import Outcome, Stage
from drupe.report.verdict import meaning
from drupe.report.words import difference_text, duration, estimate_text, score_text, size

LEGEND = (
    "In ( ) the 95 % interval, in [ ] that of the difference to the input model on the same rows."
)


@dataclass(frozen=True)
class Column:
    """A number that is shown: a metric's own, or by its name one beside it that was asked for."""

    metric: str
    number: str = ""

    @property
    def title(self) -> str:
        """What stands at its head."""
        return self.number or self.metric


@dataclass(frozen=True)
class Cell:
    """What is known of a stage: the number with its interval, its difference to the input's."""

    number: str
    difference: str = ""


def columns(outcome: Outcome) -> list[Column]:
    """Return the numbers that some stage has, in their first order."""
    found: dict[Column, None] = {}
    asked = {
        named.name: [each.name for each in named.sub_types]
        for named in outcome.plan.workflow.metrics
    }
    for stage in outcome.stages:
        for name, score in stage.scores.items():
            if score.value is not None or score.skipped is not None:
                found[Column(name)] = None
            given = list(score.more.get("sub_types", ()))
            own = given[0] if given and score.value is not None else None
            # Where no number is the metric's own, all of them are what it was asked for.
            for number in asked.get(name) or (given if score.value is None else ()):
                if number not in (own, score.metric) and score.number(number) is not None:
                    found[Column(name, number)] = None
    order = list(dict.fromkeys(column.metric for column in found))
    return sorted(found, key=lambda column: (order.index(column.metric), column.number != ""))


def cells(stage: Stage, outcome: Outcome) -> list[Cell]:
    """Return what stands in the row of a stage below the titles of `columns`."""
    return [_cell(column, stage, outcome) for column in columns(outcome)]


def _cell(column: Column, stage: Stage, outcome: Outcome) -> Cell:
    score = stage.scores.get(column.metric)
    if score is None:
        return Cell("")
    if column.number:
        number = score.number(column.number)
        found = outcome.difference(stage, column.metric, column.number)
        told = difference_text(found, score) if found else ""
        return Cell(estimate_text(number) if number else "", told)
    found = outcome.difference(stage, column.metric)
    return Cell(score_text(score), difference_text(found, score) if found else "")


def header(outcome: Outcome) -> list[str]:
    """Return the column titles."""
    return ["stage", *(column.title for column in columns(outcome)), "size", "time", "peak memory"]


def costs(stage: Stage, outcome: Outcome) -> list[str]:
    """Return size, time and memory; of what was done on the way, in which stage they are."""
    if stage.within:
        return ["not written", f"in {stage.within}", ""]
    return [
        size(stage.size_bytes),
        duration(stage.seconds) if stage is not outcome.stages[0] else "",
        size(stage.peak_bytes) if stage.peak_bytes else "",
    ]


def rows(outcome: Outcome) -> list[list[str]]:
    """Return a row for each stage, in the order of the chain; a difference on a line of its own."""
    return [
        [
            label(stage, outcome),
            *("\n".join(filter(None, (cell.number, cell.difference))) for cell in shown),
            *costs(stage, outcome),
        ]
        for stage in outcome.stages
        for shown in [cells(stage, outcome)]
    ]


def legend(outcome: Outcome) -> str:
    """Return what the brackets mean, "" where there are none of the second kind."""
    told = any(cell.difference for stage in outcome.stages for cell in cells(stage, outcome))
    return LEGEND if told else ""


def label(stage: Stage, outcome: Outcome) -> str:
    """Return what a stage is, with its pass where that alone does not tell it from others."""
    told = meaning(stage, outcome)
    alike = [other for other in outcome.stages if meaning(other, outcome) == told]
    return told if len(alike) == 1 else f"{told} ({stage.name})"


def markdown(outcome: Outcome) -> str:
    """Return the table in Markdown."""
    lines = [header(outcome), ["---"] * len(header(outcome)), *rows(outcome)]
    shown = "\n".join("| " + " | ".join(line).replace("\n", "<br>") + " |" for line in lines)
    told = legend(outcome)
    return f"{shown}\n\n{told}" if told else shown
