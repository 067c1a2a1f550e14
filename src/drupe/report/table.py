"""The table of stages: quality, size, time and memory of each, for the terminal and the card."""

from __future__ import annotations

from drupe.outcome import Outcome, Stage
from drupe.report.verdict import meaning
from drupe.report.words import duration, score_text, size


def header(outcome: Outcome) -> list[str]:
    """Return the column titles."""
    return ["stage", *_metrics(outcome), "size", "time", "peak memory"]


def rows(outcome: Outcome) -> list[list[str]]:
    """Return a row for each stage, in the order of the chain."""
    return [
        [
            label(stage, outcome),
            *(score_text(stage.scores.get(metric)) for metric in _metrics(outcome)),
            *_costs(stage, outcome),
        ]
        for stage in outcome.stages
    ]


def _costs(stage: Stage, outcome: Outcome) -> list[str]:
    """Return size, time and memory; of what was done on the way, in which stage they are."""
    if stage.within:
        return ["not written", f"in {stage.within}", ""]
    return [
        size(stage.size_bytes),
        duration(stage.seconds) if stage is not outcome.stages[0] else "",
        size(stage.peak_bytes) if stage.peak_bytes else "",
    ]


def label(stage: Stage, outcome: Outcome) -> str:
    """Return what a stage is, with its pass where that alone does not tell it from others."""
    told = meaning(stage, outcome)
    alike = [other for other in outcome.stages if meaning(other, outcome) == told]
    return told if len(alike) == 1 else f"{told} ({stage.name})"


def _metrics(outcome: Outcome) -> list[str]:
    """Return the metrics that give a number for some stage, in their first order."""
    names = (
        name
        for stage in outcome.stages
        for name, score in stage.scores.items()
        if score.value is not None or score.skipped is not None
    )
    return list(dict.fromkeys(names))


def markdown(outcome: Outcome) -> str:
    """Return the table in Markdown."""
    lines = [header(outcome), ["---"] * len(header(outcome)), *rows(outcome)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
