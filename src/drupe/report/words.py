"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

from drupe.core.goal import Number
from drupe.core.paired import Difference
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


NO_INTERVAL = "no interval"


def score_text(score: Score | None) -> str:
    """Return a score with its 95 % interval, or what there is in its place."""
    if score is None:
        return ""
    if score.value is None:
        return "not run"
    unit = "share" if _is_share(score) else str(score.more.get("unit", ""))
    return estimate_text(Number(score.value, score.low, score.high), unit)


def estimate_text(number: Number, unit: str = "") -> str:
    """Return a number with its 95 % interval; one that has none is marked, unless it is exact."""
    text = number_text(number.value, unit)
    if number.low is None or number.high is None:
        return f"{text} ({NO_INTERVAL})"
    if number.low == number.high:
        return text
    if unit == "bytes":
        return f"{text} ({size(number.low)}-{size(number.high)})"
    scale, form = (100, ".1f") if unit == "share" else (1, ".4g")
    return f"{text} ({scale * number.low:{form}}-{scale * number.high:{form}})"


def difference_text(found: Difference, score: Score) -> str:
    """Return a difference with its 95 % interval: +71.2 points [+67.4, +75.0]."""
    scale, form, unit = (100, "+.1f", " points") if _is_share(score) else (1, "+.4g", "")
    text = f"{scale * found.value:{form}}{unit}"
    if found.low is None or found.high is None:
        return f"{text} [{NO_INTERVAL}]"
    return f"{text} [{scale * found.low:{form}}, {scale * found.high:{form}}]"


def _is_share(score: Score) -> bool:
    return score.metric == "accuracy"


def machine(described: dict[str, Any]) -> str:
    """Return the class of a machine (see `core.machine`) in words."""
    instructions = ", ".join(described["instructions"]) or "instructions not told"
    threads = described["threads"]
    counted = f"{threads} thread{'s' if threads != 1 else ''}"
    where = f"{described['processor']} ({instructions})"
    return f"{where}, {counted}, {described['system']}, Python {described['python']}"
