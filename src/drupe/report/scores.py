"""The report's table of scores: a row a stage, intervals and differences in small."""

from __future__ import annotations

from drupe.outcome import Outcome
from drupe.report import table
from drupe.report.markup import Markup, element, together


def scores_table(outcome: Outcome) -> Markup:
    """Return the table; the final model's row is marked."""
    header = table.header(outcome)
    titles = [
        element("th", name, scope="col", class_="number" if index else None)
        for index, name in enumerate(header)
    ]
    rows = []
    for stage in outcome.stages:
        cells = [element("th", table.label(stage, outcome), scope="row")]
        for cell in table.cells(stage, outcome):
            value, within = split(cell.number)
            small = [f" ({within})"] if within else []
            small += [f" {cell.difference}"] if cell.difference else []
            told = [element("small", text) for text in small]
            cells.append(element("td", value, *told, class_="number"))
        cells += [element("td", text, class_="number") for text in table.costs(stage, outcome)]
        last = stage is outcome.final
        rows.append(element("tr", *cells, class_="final" if last else None))
    return element(
        "table",
        element("thead", element("tr", *titles)),
        element("tbody", together(rows)),
    )


def split(text: str) -> tuple[str, str]:
    """Return a score's value and its interval, of "96.2 % (94.3-97.4)"."""
    value, _, within = text.partition(" (")
    return value, within.removesuffix(")")
