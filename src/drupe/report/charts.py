"""Pictures of figures as inline SVG that fits any width: places are shares of it, text is not.

Only attributes say where things are; colours come from the page's style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drupe.report.markup import Markup, element, together

MOST_POINTS = 500  # of a curve: more cannot be told apart at the width of a page
MOST_TOLD = 120  # points that tell their value under the pointer
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A line of (step, value) points. marked: whether each point is a visible dot.

    along: what a step is called.
    """

    label: str
    points: Sequence[Point]
    colour: str
    marked: bool = False
    along: str = "step"


def points_of(fact: Any) -> list[Point]:
    """Return the [step, value] pairs of a fact that are numbers, at most MOST_POINTS of them."""
    found = [
        (float(pair[0]), float(pair[1]))
        for pair in (fact if isinstance(fact, list) else ())
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
    ]
    if len(found) <= MOST_POINTS:
        return found
    stride = math.ceil(len(found) / MOST_POINTS)
    return [*found[:-1:stride], found[-1]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300  # False for a not-a-number


def ticks(low: float, high: float, most: int = 6, least: float = 0.0) -> list[float]:
    """Return round numbers from `low` or below to `high` or above, at most `most` + 1 of them.

    least: between two of them; 1 for what is counted.
    """
    span = max(high - low, 1e-9 * max(abs(high), 1.0))
    size = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if span / (size * factor) <= most)
    step = max(step, least)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]


def curves_figure(title: str, across: str, up: str, curves: Sequence[Curve]) -> Markup:
    """Return curves over common axes, which start at 0 where the values allow it.

    across: what is counted along the lower axis. up: what is measured.
    """
    every = [point for curve in curves for point in curve.points]
    right = max(step for step, _ in every)
    left = min(0.0, *(step for step, _ in every))
    levels = ticks(min(0.0, *(value for _, value in every)), max(value for _, value in every), 5)
    plot = Plot(left, right if right > left else left + max(1.0, abs(left)), levels[0], levels[-1])
    counted = ticks(plot.left, plot.right, 6, least=1.0)
    steps = [step for step in counted if plot.left <= step <= plot.right]
    parts = [
        element("title", title),
        element("desc", "; ".join(_told(curve) for curve in curves)),
        *(_level(plot, level) for level in levels),
        *(_step(plot, step) for step in steps),
        element("text", up, x="0", y="0", dy="-12", text_anchor="start", class_="axis"),
        element("text", across, x="100%", y="100%", dy="38", text_anchor="end", class_="axis"),
        *(_line(plot, curve) for curve in curves),
        *(dot for curve in curves for dot in _dots(plot, curve)),
    ]
    svg = element("svg", together(parts), class_="curves", role="img", width="100%", height="240")
    return element("div", svg, class_="plot")


@dataclass(frozen=True)
class Plot:
    """The ranges of the axes; places are percentages of the plot's own box."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, step: float) -> float:
        """Return where a value lies along the plot, in percent."""
        return 100 * (step - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        """Return where a value lies down the plot, in percent."""
        return 100 - 100 * (value - self.bottom) / (self.top - self.bottom)


def _level(plot: Plot, level: float) -> Markup:
    y = f"{plot.y(level):.2f}%"
    line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
    return together([line, element("text", f"{level:g}", x="-8", y=y, dy="4", text_anchor="end")])


def _step(plot: Plot, step: float) -> Markup:
    x = f"{plot.x(step):.2f}%"
    return element("text", f"{step:g}", x=x, y="100%", dy="20", text_anchor="middle")


def _line(plot: Plot, curve: Curve) -> Markup:
    places = " ".join(f"{plot.x(step):.2f},{plot.y(value):.2f}" for step, value in curve.points)
    drawn = element(
        "polyline",
        points=places,
        fill="none",
        vector_effect="non-scaling-stroke",
        class_=f"line {curve.colour}",
    )
    # The inner picture is stretched to the box, which points in percent cannot be.
    return element(
        "svg", drawn, viewBox="0 0 100 100", preserveAspectRatio="none", overflow="visible",
        width="100%", height="100%",
    )  # fmt: skip


def _dots(plot: Plot, curve: Curve) -> list[Markup]:
    if len(curve.points) > MOST_TOLD:
        return []
    visible = curve.marked or len(curve.points) == 1
    return [
        element(
            "circle",
            element("title", f"{curve.label}, {curve.along} {step:g}: {value:.4g}"),
            cx=f"{plot.x(step):.2f}%",
            cy=f"{plot.y(value):.2f}%",
            r="4" if visible else "6",
            class_=f"dot {curve.colour}" if visible else "dot hidden",
        )
        for step, value in curve.points
    ]


def _told(curve: Curve) -> str:
    (first, begun), (last, ended) = curve.points[0], curve.points[-1]
    at = curve.along
    return f"{curve.label}: {begun:.3g} at {at} {first:g}, {ended:.3g} at {at} {last:g}"


def swatch(curve: Curve) -> Markup:
    """Return the sign of a curve in a legend."""
    line = element("line", x1="0", x2="22", y1="6", y2="6", class_=f"line {curve.colour}")
    dot = element("circle", cx="11", cy="6", r="4", class_=f"dot {curve.colour}")
    signs = (line, dot) if curve.marked else (line,)
    return element("svg", *signs, width="22", height="12", class_="swatch", aria_hidden="true")


def bar(share: float, title: str) -> Markup:
    """Return a bar of `share` (0 to 1) of the width; `title` tells what it shows."""
    width = f"{100 * min(max(share, 0.004), 1):.2f}%"  # what took a moment is seen to be there
    return element(
        "svg",
        element("title", title),
        element("rect", width="100%", height="12", rx="3", class_="track"),
        element("rect", width=width, height="12", rx="3", class_="bar"),
        role="img",
        width="100%",
        height="12",
    )


def interval(low: float, value: float, high: float, whole: float, title: str) -> Markup:
    """Return a value with its interval on a line from 0 to `whole`."""
    left, right = (100 * min(max(end / whole, 0), 1) for end in (low, high))
    place = f"{100 * min(max(value / whole, 0), 1):.2f}%"
    return element(
        "svg",
        element("title", title),
        element("rect", width="100%", y="5", height="4", rx="2", class_="track"),
        element(
            "rect", x=f"{left:.2f}%", width=f"{max(right - left, 0.5):.2f}%", y="3", height="8",
            rx="2", class_="range",
        ),
        element("line", x1=place, x2=place, y1="0", y2="14", class_="value"),
        role="img", width="100%", height="14", overflow="visible",
    )  # fmt: skip
