"""The verdict: one sentence that says what the chain did to the model."""

from __future__ import annotations

from drupe.outcome import Outcome, Stage
from drupe.report.search import summary
from drupe.report.words import percent, size

MEANINGS = {
    "hf": "checkpoint",
    "hf-adapter": "tuned",
    "onnx-genai": "ONNX",
    "files": "files",
}


def meaning(stage: Stage, outcome: Outcome) -> str:
    """Return what a stage is to a reader: base, tuned, merged, int4 ONNX."""
    if stage is outcome.stages[0]:
        return "base"
    step = outcome.plan.makers[stage.name]
    if not getattr(step.operation, "delivers", True):  # was there: nobody knows of what it was made
        return MEANINGS[stage.kind]
    precision = getattr(step.operation, "precision", None)
    if precision:
        return f"{precision} {MEANINGS[stage.kind]}"
    if stage.kind == "hf" and "hf-adapter" in step.operation.takes:
        return "merged"
    return MEANINGS[stage.kind]


def verdict(outcome: Outcome) -> str:
    """Return the sentence."""
    first, last = outcome.stages[0], outcome.final
    if outcome.searched is not None and not outcome.searched.chosen:
        return summary(outcome.searched)
    if last is first:
        return f"The input model takes {size(first.size_bytes)}; no pass was asked for."
    sentence = _quality(outcome, first, last)
    if outcome.searched is not None:
        sentence = f"{summary(outcome.searched)} {sentence}"
    smaller = f"The final model takes {size(last.size_bytes)}"
    if first.size_bytes:
        smaller += f", {percent(last.size_bytes / first.size_bytes)} of the input model's size"
    return f"{sentence}{smaller}."


def _quality(outcome: Outcome, first: Stage, last: Stage) -> str:
    metric = next((name for name, score in last.scores.items() if score.value is not None), None)
    if metric is None:
        return ""
    after, before = last.scores[metric], first.scores.get(metric)
    if before is None or before.value is None or after.value is None:
        return ""
    rows = f" on {after.count} rows" if after.metric == "accuracy" else ""
    one, other = (
        percent(value) if after.metric == "accuracy" else f"{value:.3g}"
        for value in (before.value, after.value)
    )
    moved = f"stayed at {one}" if one == other else f"went from {one} to {other}"
    return f"{metric.capitalize()}{rows} {moved}{_flips(outcome, metric, last)}. "


def flips(outcome: Outcome, metric: str) -> tuple[int, int] | None:
    """Return (answers that the final model gives otherwise than the tuned one, answers)."""
    tuned = next((stage for stage in outcome.stages if stage.kind == "hf-adapter"), None)
    last = outcome.final
    if tuned is None or tuned is last or last.scores[metric].metric != "accuracy":
        return None
    if metric not in tuned.answers or metric not in last.answers:
        return None
    pairs = [
        (one, other)
        for one, other in zip(tuned.answers[metric], last.answers[metric], strict=True)
        if one is not None and other is not None
    ]
    return sum(one[0] != other[0] for one, other in pairs), len(pairs)


def _flips(outcome: Outcome, metric: str, last: Stage) -> str:
    counted = flips(outcome, metric)
    if counted is None:
        return ""
    changed, count = counted
    of_tuned = f"{changed} of {count} answers ({percent(changed / count)})"
    return f"; {meaning(last, outcome)} changes {of_tuned} of the tuned model"
