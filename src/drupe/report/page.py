"""report.html: one page, offline, that a person looks at after a run.

All that it quotes is escaped (`markup`), its policy allows its own style sheet and nothing else (of
a search: the script of its charts besides, which holds no data), and the same outcome gives the
same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drupe.outcome import Outcome, Score, Stage
from drupe.report import table
from drupe.report.charts import (
    Curve,
    bar,
    curves_figure,
    interval,
    points_of,
    swatch,
)
from drupe.report.layers import layers_figures
from drupe.report.markup import Markup, element, together
from drupe.report.proofs import figures, sentences, standing
from drupe.report.provenance import data, listing, provenance, written_at
from drupe.report.scores import scores_table, split
from drupe.report.search_section import script, search_section
from drupe.report.verdict import meaning, verdict
from drupe.report.words import NO_INTERVAL, difference_text, duration, score_text, size

STYLE = Path(__file__).with_name("page.css")
GENERATOR = '<meta name="generator" content="drupe'
CURVES = {"losses": "training", "eval_losses": "held-out rows"}


def page(outcome: Outcome, report: dict[str, Any]) -> str:
    """Return the page. report: what report.json holds, `written` included."""
    style = STYLE.read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    scripts = []
    if outcome.searched is not None:
        policy += f"; script-src {_hash(script())}"
        scripts = [element("script", Markup(script()))]
    title = _title(outcome)
    head = element(
        "head",
        together(
            [
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=policy),
                element("meta", name="generator", content=f"drupe {report['drupe']}"),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("title", f"{title} - drupe"),
                element("style", Markup(style)),
            ]
        ),
    )
    sections = (
        search_section(outcome.searched) if outcome.searched else None,
        _chain(outcome),
        _scores(outcome),
        *_trainings(outcome),
        _costs(outcome),
        _proofs(outcome),
        _samples(outcome),
        _section("Provenance", *provenance(outcome, report)),
    )
    header = element("header", *_header(outcome, report, title))
    main = element("main", together(part for part in sections if part))
    body = element("body", together([header, main, *scripts]))
    return f"<!doctype html>\n{element('html', together([head, body]), lang='en')}\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _title(outcome: Outcome) -> str:
    name = outcome.plan.source.name.rstrip("/").split("/")[-1]
    last = outcome.final
    return f"{name} → {meaning(last, outcome)}" if outcome.path else name


def _header(outcome: Outcome, report: dict[str, Any], title: str) -> list[Markup]:
    facts = (data(report["config"]), report["target"]["provider"], written_at(report))
    parts = [part for fact in facts for part in (" · ", fact)][1:]
    return [
        element("p", *parts, class_="above"),
        element("h1", title),
        element("p", verdict(outcome), class_="verdict"),
    ]


def _section(title: str, *parts: str, about: str = "") -> Markup:
    told = [element("p", about, class_="about")] if about else []
    return element("section", together([element("h2", title), *told, *parts]))


# The chain


def _main_metric(outcome: Outcome) -> str | None:
    """Return the metric that the verdict tells of, or the first one that gave a number."""
    for stage in (outcome.final, *outcome.stages):
        for name, score in stage.scores.items():
            if score.value is not None:
                return name
    return None


def _chain(outcome: Outcome) -> Markup:
    metric = _main_metric(outcome)
    cards = [_card(stage, outcome, metric) for stage in outcome.stages]
    return _section("The chain", element("ol", together(cards), class_="chain"))


def _card(stage: Stage, outcome: Outcome, metric: str | None) -> Markup:
    parts = [
        element("h3", meaning(stage, outcome)),
        element("p", data(stage.name), class_="name"),
        *([] if metric is None else _quality(stage, outcome, metric)),
    ]
    costs = [] if stage.within else [("size", size(stage.size_bytes))]
    if stage.within:
        told = element("p", "done while ", data(stage.within), " ran, and never written")
        parts.append(told)
    elif stage is not outcome.stages[0]:
        costs.append(("time", duration(stage.seconds)))
    if stage.peak_bytes:
        costs.append(("memory", size(stage.peak_bytes)))
    cells = [
        element("div", element("dt", name), element("dd", value, class_="number"))
        for name, value in costs
    ]
    last = stage is outcome.final and len(outcome.stages) > 1
    return element(
        "li",
        element("div", *parts, element("dl", *cells, class_="costs"), class_="card"),
        class_="final" if last else None,
    )


def _quality(stage: Stage, outcome: Outcome, metric: str) -> list[Markup]:
    score = stage.scores.get(metric)
    if score is None or score.value is None:
        told = "not measured" if score is None else "not run"
        why = f": {score.skipped}" if score is not None and score.skipped else ""
        because = element("p", data(metric), why, class_="interval")
        return [element("p", told, class_="big absent"), because]
    value, within = split(score_text(score))
    shown = [element("p", value, class_="big")]
    title = f"{metric} {value}" + (f", 95 % interval {within}" if within else "")
    if score.low is not None and score.high is not None:
        whole = _whole(metric, score, outcome)
        if 0 <= score.low <= score.high <= whole:  # False for what is no number
            shown.append(interval(score.low, score.value, score.high, whole, title))
    has_interval = within and within != NO_INTERVAL
    about = f", 95 % in {within}" if has_interval else f", {within}" if within else ""
    shown.append(element("p", data(metric), about, class_="interval"))
    found = outcome.difference(stage, metric)
    if found is not None:
        text = f"to the input model {difference_text(found, score)}"
        shown.append(element("p", text, class_="interval"))
    return shown


def _whole(metric: str, score: Score, outcome: Outcome) -> float:
    """Return the end of the line that a metric's intervals are drawn on, alike for all stages."""
    if score.metric == "accuracy":
        return 1.0
    others = (stage.scores.get(metric) for stage in outcome.stages)
    highs = [other.high for other in others if other is not None and other.high is not None]
    return max((high for high in highs if 0 < high < math.inf), default=1.0)


# Scores, training, costs


def _scores(outcome: Outcome) -> Markup:
    about = table.legend(outcome) or ("In ( ) the 95 % interval." if table.columns(outcome) else "")
    shown = _scrolling(scores_table(outcome), "Scores of each stage")
    return _section("Scores", shown, about=about)


def _scrolling(shown: Markup, label: str) -> Markup:
    """Return a table that may be wider than the page; the keyboard can scroll it."""
    return element("div", shown, class_="wide", tabindex="0", role="region", aria_label=label)


def _trainings(outcome: Outcome) -> list[Markup]:
    return [section for stage in outcome.stages if (section := _training(stage)) is not None]


def _training(stage: Stage) -> Markup | None:
    curves = [
        Curve(label, points, f"curve-{number}", marked=number > 1)
        for number, (fact, label) in enumerate(CURVES.items(), 1)
        if (points := points_of(stage.facts.get(fact)))
    ]
    if not curves:
        return None
    legend = [
        element(
            "li",
            swatch(curve),
            element("span", f"{curve.label}: "),
            element("b", f"{curve.points[-1][1]:.3g}", class_="number"),
            f" at step {curve.points[-1][0]:g}",
        )
        for curve in curves
    ]
    drawn = curves_figure(f"Loss of {stage.name} by step", "step", "loss", curves)
    figure = element("figure", element("ul", *legend, class_="legend"), drawn)
    return _section("Training", figure, about=f"The loss while {stage.name} was trained.")


def _costs(outcome: Outcome) -> Markup | None:
    made = [stage for stage in outcome.stages[1:] if stage.within is None]
    if not made:
        return None
    names = [table.label(stage, outcome) for stage in made]
    total = sum(stage.seconds for stage in made)
    charts = [
        _bars(f"Time, {duration(total)} together", names, [s.seconds for s in made], duration)
    ]
    if any(stage.peak_bytes for stage in made):
        peaks = [stage.peak_bytes for stage in made]
        charts.append(_bars("Memory at its peak", names, peaks, size))
    about = "Of the passes when they were made; what measuring and proving took is not in it."
    shown = element("div", together(charts), class_="pair")
    return _section("Time and memory", shown, about=about)


def _bars(
    title: str, names: Sequence[str], amounts: Sequence[float], words: Callable[[float], str]
) -> Markup:
    most = max(amounts) or 1
    rows = [
        element(
            "tr",
            element("th", data(name), scope="row"),
            element("td", bar(amount / most, f"{name}: {words(amount)}")),
            element("td", words(amount), class_="number"),
        )
        for name, amount in zip(names, amounts, strict=True)
    ]
    return element(
        "table", element("caption", title), element("tbody", together(rows)), class_="bars"
    )


# Proofs, samples


def _proofs(outcome: Outcome) -> Markup | None:
    proven = [(stage, stage.proof) for stage in outcome.stages if stage.proof is not None]
    if not proven:
        return None
    parts = []
    for stage, proof in proven:
        state = standing(proof)
        sign = element("span", state, class_="proof yes" if state == "proven" else "proof no")
        title = element("h3", meaning(stage, outcome), " ", data(stage.name, "small"), " ", sign)
        told = listing(figures(proof), "figures")
        details = element("details", element("summary", "Figures"), told)
        told_first = [title, element("p", sentences(proof)), *layers_figures(proof)]
        parts.append(element("article", *told_first, details))
    without = [s.name for s in outcome.stages[1:] if s.proof is None]
    if without:
        names = ", ".join(without)
        parts.append(element("p", f"No proof belongs to {names}.", class_="about"))
    about = "Whether each stage is what it should be, given the one before it."
    return _section("Proofs", *parts, about=about)


def _samples(outcome: Outcome) -> Markup | None:
    given = [
        (stage, name, score)
        for stage in outcome.stages
        for name, score in stage.scores.items()
        if score.samples
    ]
    if outcome.plan.workflow.engine.no_samples:
        return _section("Samples", about="Left out, as engine.no_samples asks.")
    if not given:
        return None
    parts = [_sample_table(*each, outcome) for each in given]
    return _section("Samples", *parts, about="What was asked, and what came back.")


def _sample_table(stage: Stage, name: str, score: Score, outcome: Outcome) -> Markup:
    columns = ("prompt", "expected", "answer")
    rows = []
    for sample in score.samples:
        cells = [
            element("td", data(str(sample.get(column, "")), "div"), class_=column)
            for column in columns
        ]
        rows.append(element("tr", *cells))
    return element(
        "table",
        element("caption", f"{meaning(stage, outcome)}, {name}"),
        element("thead", element("tr", *(element("th", each, scope="col") for each in columns))),
        element("tbody", together(rows)),
        class_="samples",
    )
