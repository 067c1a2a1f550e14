"""The trials of a search as points: quality against what it costs, with the front and the limits.

One chart for the model's size and one for each other number that counts, as inline SVG; a small
script of ours (`search.js`) shows in all of them the point that is pointed at. Without it each
point still tells itself, and the table has all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drupe.core.goal import Number
from drupe.report import search
from drupe.report.charts import Plot, ticks
from drupe.report.markup import Markup, element, together
from drupe.report.words import number_text, size
from drupe.search.constraints import Limit, Objective
from drupe.search.searched import Searched
from drupe.search.trial import Trial

MARGIN = 0.06  # of the range, left free at each end of an axis
SIZE = Objective("size of the model", "", "", False, unit="bytes")
ARROW = {True: "more is better", False: "less is better"}


@dataclass(frozen=True)
class _Axis:
    """A number along an axis: of which trial what, its limits, and the ends of the axis."""

    objective: Objective
    of: Callable[[Trial], float | None]
    limits: Sequence[Limit]
    low: float = 0.0
    high: float = 1.0

    @property
    def title(self) -> str:
        return f"{self.objective.name} ({ARROW[self.objective.higher_is_better]})"


def scatters(searched: Searched) -> list[Markup]:
    """Return a chart for each number against which quality is set; none where there are no two."""
    if not searched.ranked_by:
        return []
    quality = _axis(searched, searched.ranked_by[0])
    others = [
        objective for objective in search.looked_at(searched) if objective is not quality.objective
    ]
    weighs = any(objective.unit == "bytes" for objective in others)
    own = [] if weighs else [_Axis(SIZE, lambda trial: trial.size_bytes or None, ())]
    across = [*own, *(_axis(searched, objective) for objective in others)]
    drawn = (_scatter(searched, each, quality) for each in across)
    return [chart for chart in drawn if chart is not None]


def _axis(searched: Searched, objective: Objective) -> _Axis:
    def value(trial: Trial) -> float | None:
        number = trial.numbers.get(objective.name)
        return number.value if number is not None and math.isfinite(number.value) else None

    limits = [limit for limit in searched.limits if limit.objective == objective]
    return _Axis(objective, value, limits)


def _scatter(searched: Searched, across: _Axis, up: _Axis) -> Markup | None:
    placed = [
        (trial, x, y)
        for trial in searched.whole
        if (x := across.of(trial)) is not None and (y := up.of(trial)) is not None
    ]
    if not placed:
        return None
    placed.sort(key=lambda each: each[0] in searched.chosen[:1])  # what is drawn last lies on top
    left, right = _ends([x for _, x, _ in placed], across.limits)
    bottom, top = _ends([y for _, _, y in placed], up.limits)
    plot = Plot(left, right, bottom, top)
    on_front = _front(placed, across.objective, up.objective)
    title = f"{up.objective.name} against {across.objective.name}"
    parts = [
        element("title", title),
        *(_mark(plot, level, up.objective, up=True) for level in _within(bottom, top)),
        *(_mark(plot, step, across.objective, up=False) for step in _within(left, right)),
        element("text", up.title, x="0", y="0", dy="-12", text_anchor="start", class_="axis"),
        element(
            "text", across.title, x="100%", y="100%", dy="38", text_anchor="end", class_="axis"
        ),
        *(_limit(plot, limit, up=False) for limit in across.limits),
        *(_limit(plot, limit, up=True) for limit in up.limits),
        _line(plot, [(x, y) for _, x, y in sorted(on_front, key=lambda each: each[1:])]),
        *(_point(searched, plot, *each, on_front=each in on_front) for each in placed),
    ]
    svg = element("svg", together(parts), class_="curves", width="100%", height="300")
    return element("div", svg, class_="plot scatter")


def _ends(values: Sequence[float], limits: Sequence[Limit]) -> tuple[float, float]:
    every = [*values, *(limit.value for limit in limits)]
    low, high = min(every), max(every)
    spare = MARGIN * (high - low) or abs(high) * MARGIN or 1.0
    return low - spare, high + spare


def _within(low: float, high: float) -> list[float]:
    return [tick for tick in ticks(low, high, 5) if low <= tick <= high]


def _front(
    placed: Sequence[tuple[Trial, float, float]], across: Objective, up: Objective
) -> list[tuple[Trial, float, float]]:
    """Return the points that none beats in these two numbers."""

    def beats(one: tuple[Trial, float, float], other: tuple[Trial, float, float]) -> bool:
        pairs = (
            (across.sign * one[1], across.sign * other[1]),
            (up.sign * one[2], up.sign * other[2]),
        )
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [each for each in placed if not any(beats(other, each) for other in placed)]


def _mark(plot: Plot, value: float, objective: Objective, *, up: bool) -> Markup:
    text = _short(value, objective)
    if up:
        y = f"{plot.y(value):.2f}%"
        line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
        return together([line, element("text", text, x="-8", y=y, dy="4", text_anchor="end")])
    x = f"{plot.x(value):.2f}%"
    return element("text", text, x=x, y="100%", dy="20", text_anchor="middle")


def _short(value: float, objective: Objective) -> str:
    if objective.unit == "share":
        return f"{100 * value:g} %"
    return size(value) if objective.unit == "bytes" else f"{value:g}"


def _limit(plot: Plot, limit: Limit, *, up: bool) -> Markup:
    told = element("title", f"limit: {search.limit_words(limit)}")
    if up:
        at = f"{plot.y(limit.value):.2f}%"
        return element("line", told, x1="0", x2="100%", y1=at, y2=at, class_="limit")
    at = f"{plot.x(limit.value):.2f}%"
    return element("line", told, x1=at, x2=at, y1="0", y2="100%", class_="limit")


def _line(plot: Plot, places: Sequence[tuple[float, float]]) -> Markup:
    points = " ".join(f"{plot.x(x):.2f},{plot.y(y):.2f}" for x, y in places)
    drawn = element(
        "polyline",
        points=points,
        fill="none",
        vector_effect="non-scaling-stroke",
        class_="front",
    )
    return element(
        "svg", drawn, viewBox="0 0 100 100", preserveAspectRatio="none", overflow="visible",
        width="100%", height="100%",
    )  # fmt: skip


def _point(
    searched: Searched, plot: Plot, trial: Trial, x: float, y: float, *, on_front: bool
) -> Markup:
    standing = searched.words(trial).partition(" ")[0]
    names = ["point", standing, *(["best"] if on_front else [])]
    names += ["chosen"] if trial in searched.chosen[:1] else []
    title = f"{search.settings(trial)}: {searched.words(trial)}"
    return element(
        "circle",
        element("title", title),
        cx=f"{plot.x(x):.2f}%",
        cy=f"{plot.y(y):.2f}%",
        r="7" if "chosen" in names else "5",
        class_=" ".join(names),
        data_trial=trial.number,
        tabindex="0",
        role="button",
        aria_label=title,
    )


def told(searched: Searched) -> list[Markup]:
    """Return what there is to say of each trial, hidden but for the one that is pointed at."""
    return [
        element(
            "div",
            element("p", element("bdi", search.settings(trial), class_="data"), class_="settings"),
            element("p", "; ".join(_sentences(searched, trial))),
            class_="told",
            data_trial=trial.number,
            hidden="hidden",
        )
        for trial in searched.whole
        if trial.numbers
    ]


def _sentences(searched: Searched, trial: Trial) -> list[str]:
    numbers = [
        f"{objective.name} {_with_interval(objective, number)}"
        for objective in search.looked_at(searched)
        if (number := trial.numbers.get(objective.name)) is not None
    ]
    weight = [f"model {size(trial.size_bytes)}"] if trial.size_bytes else []
    return [searched.words(trial), *numbers, *weight]


def _with_interval(objective: Objective, number: Number) -> str:
    text = number_text(number.value, objective.unit)
    if number.low is None or number.high is None or number.low == number.high:
        return text
    low, high = (number_text(end, objective.unit) for end in (number.low, number.high))
    return f"{text} ({low} to {high})"
