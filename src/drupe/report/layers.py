"""What an export made of each part of a model: how far its weights moved, and what they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drupe.outcome import Score
from drupe.report.charts import Curve, bar, curves_figure, points_of
from drupe.report.markup import Markup, element, together
from drupe.report.words import size

MOST_PARTS = 10  # of a table: the worst ones
# What of a proof's figures is shown here.
SHOWN = ("weights", "layer_errors")


@dataclass(frozen=True)
class Part:
    """The attention of a layer, say. error: of its weights, relative to the checkpoint's."""

    name: str
    error: float
    size_bytes: int


def parts_of(proof: Score) -> list[Part]:
    """Return the parts that a proof tells of, those with the greatest error first."""
    try:
        found = list(_parts(proof.more["weights"]))
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version, or none
        return []
    return sorted(found, key=lambda part: -part.error)


def _parts(weights: dict[str, Any]) -> Iterator[Part]:
    for name in ("embedding", "head"):
        if name in weights:
            yield _part(name, weights[name])
    for index, layer in enumerate(weights["layers"]):
        for name, told in layer.items():
            yield _part(f"layer {index}, {name}", told)


def _part(name: str, told: dict[str, Any]) -> Part:
    error = float(told["error"])
    if not 0 <= error < math.inf:
        raise ValueError(name)
    return Part(name, error, int(told["bytes"]))


def layers_figures(proof: Score) -> list[Markup]:
    """Return what to show of the layers beside a proof; nothing where no weight was rounded."""
    parts = parts_of(proof)
    if not parts or parts[0].error == 0:
        return []
    return [element("div", together([_table(parts), *_curve(proof)]), class_="pair")]


def _table(parts: list[Part]) -> Markup:
    shown = parts[:MOST_PARTS]
    most = shown[0].error
    rows = [
        element(
            "tr",
            element("th", part.name, scope="row"),
            element("td", bar(part.error / most, f"{part.name}: {part.error:.3g}")),
            element("td", f"{part.error:.3g}", class_="number"),
            element("td", size(part.size_bytes), class_="number"),
        )
        for part in shown
    ]
    of_all = f", the {len(shown)} greatest of {len(parts)}" if len(parts) > len(shown) else ""
    return element(
        "table",
        element("caption", f"Relative error of the weights, and what they take{of_all}"),
        element("tbody", together(rows)),
        class_="bars",
    )


def _curve(proof: Score) -> list[Markup]:
    errors = proof.more.get("layer_errors")
    points = points_of(list(map(list, enumerate(errors)))) if isinstance(errors, list) else []
    if len(points) < 2:
        return []
    title = "Relative error of what comes out of each layer"
    curve = Curve("error", points, "curve-1", along="layer")
    drawn = curves_figure(title, "layer", "error", [curve])
    return [element("figure", element("p", title, class_="about"), drawn)]
