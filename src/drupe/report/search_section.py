"""What report.html tells of a search: what binds, the charts, and every trial."""

from __future__ import annotations

from pathlib import Path

from drupe.report import search
from drupe.report.markup import Markup, element, together
from drupe.report.scatter import scatters, told
from drupe.search.searched import Searched

SCRIPT = Path(__file__).with_name("search.js")


def search_section(searched: Searched) -> Markup:
    """Return the section of a search."""
    limits = [element("li", search.limit_words(limit)) for limit in searched.limits]
    about = (
        f"{search.tried(searched)} by {searched.sampler} (seed {searched.seed}); {searched.why}."
    )
    parts = [
        element("h2", "The search"),
        element("p", about, class_="about"),
    ]
    if limits:
        parts.append(element("ul", together(limits), class_="limits"))
    charts = scatters(searched)
    if charts:
        parts += [
            element("div", together(charts), class_="scatters"),
            element("div", together(told(searched)), class_="pointed", aria_live="polite"),
        ]
    return element("section", together([*parts, _trials(searched)]), class_="search")


def _trials(searched: Searched) -> Markup:
    """Return the table of trials, the best first."""
    order = [*searched.ranking]
    order += [trial for trial in searched.trials if trial not in order]
    titles = [element("th", name, scope="col") for name in search.header(searched)]
    rows = []
    for trial, cells in zip(order, search.rows(searched), strict=True):
        reason = element("small", f" {trial.reason}") if trial.reason else Markup("")
        shown = [element("td", element("bdi", text, class_="data")) for text in cells[:-1]]
        shown.append(element("td", cells[-1], reason))
        final = "final" if trial in searched.chosen[:1] else None
        rows.append(element("tr", *shown, class_=final, data_trial=trial.number))
    table = element(
        "table",
        element("caption", "Every point that was tried; * is on the Pareto front."),
        element("thead", element("tr", *titles)),
        element("tbody", together(rows)),
    )
    return element(
        "div", table, class_="wide", tabindex="0", role="region", aria_label="Trials of the search"
    )


def script() -> str:
    """Return the script of the charts."""
    return SCRIPT.read_text(encoding="utf-8")
