"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

from drupe.outcome import Score


def size(count: float) -> str:
    """Return bytes in decimal units, three digits: 4.82 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Return a time: 0.4 s, 24 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def number_text(value: float, unit: str) -> str:
    """Return a number of a metric in its unit: a share as a percentage, bytes as a size."""
    if unit == "share":
        return percent(value)
    if unit == "bytes":
        return size(value)
    return f"{value:.4g} {unit}".rstrip()


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal: 97.1 %."""
    return f"{100 * share:.1f} %"


def score_text(score: Score | None) -> str:
    """Return a score with its 95 % interval, or what there is in its place."""
    if score is None:
        return ""
    if score.value is None:
        return "not run"
    named = score.more.get("unit")
    if named == "bytes":
        return size(score.value)
    told = f" {named}" if named else ""
    scale, form, unit = (100, ".1f", " %") if score.metric == "accuracy" else (1, ".4g", told)
    text = f"{scale * score.value:{form}}{unit}"
    if score.low is None or score.high is None:
        return text
    return f"{text} ({scale * score.low:{form}}-{scale * score.high:{form}})"


def machine(described: dict[str, Any]) -> str:
    """Return the class of a machine (see `core.machine`) in words."""
    instructions = ", ".join(described["instructions"]) or "instructions not told"
    threads = described["threads"]
    counted = f"{threads} thread{'s' if threads != 1 else ''}"
    where = f"{described['processor']} ({instructions})"
    return f"{where}, {counted}, {described['system']}, Python {described['python']}"
