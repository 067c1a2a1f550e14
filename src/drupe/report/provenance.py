"""Where a result comes from, for the report: versions, seeds, digests, keys, machines."""

from __future__ import annotations

from typing import Any

from drupe.core.secrets import redacted_values
from drupe.outcome import Outcome
from drupe.report.markup import Markup, element, together
from drupe.report.words import machine


def provenance(outcome: Outcome, report: dict[str, Any]) -> list[Markup]:
    """Return what the result was made of, by what, and under which keys."""
    planned = outcome.plan
    source, target = report["input_model"], report["target"]
    settings = redacted_values(list(planned.workflow.settings))
    facts = [
        ("Made with", f"drupe {report['drupe']}"),
        ("Config", report["config"]),
        *[("Set in its place", setting) for setting in settings],
        ("Input model", source["name"]),
        ("Revision", source["revision"] or ""),
        ("Target", ", ".join(f"{name} {value}" for name, value in target.items())),
        ("Final model", report["model"] or ""),
        ("Seeds", _seeds(outcome)),
        ("Written", written_at(report)),
    ]
    libraries = [
        (name, version or "not installed") for name, version in report["libraries"].items()
    ]
    digests = [(s.name, s.model.digest) for s in outcome.stages if s.within is None]
    keys = [(step.name, step.key) for step in planned.steps]
    machines = [(stage.name, machine(stage.machine)) for stage in outcome.stages if stage.machine]
    folded = (
        ("Libraries", libraries),
        ("Machines", machines),
        ("Digests", digests),
        ("Keys of the steps", keys),
    )
    parts = [
        element(
            "details",
            element("summary", f"{title} ({len(entries)})"),
            listing(entries, "codes"),
        )
        for title, entries in folded
        if entries
    ]
    shown = listing([(name, value) for name, value in facts if value], "facts")
    return [shown, *parts]


def _seeds(outcome: Outcome) -> str:
    """Return the seeds of the passes that train."""
    found = []
    for step in outcome.plan.steps:
        arguments = getattr(step.operation, "training_args", None)
        seeds = [
            f"{name} {getattr(arguments, name)}"
            for name in ("seed", "data_seed")
            if getattr(arguments, name, None) is not None
        ]
        if seeds:
            found.append(f"{step.name}: {', '.join(seeds)}")
    return "; ".join(found)


def listing(entries: list[tuple[str, str]], kind: str) -> Markup:
    """Return names with their values."""
    cells = [
        element("div", element("dt", data(name)), element("dd", data(value)))
        for name, value in entries
    ]
    return element("dl", together(cells), class_=kind)


def written_at(report: dict[str, Any]) -> Markup:
    """Return when a report was written."""
    written = str(report["written"])
    shown = written.replace("T", " ")[:16] + " UTC"
    return element("time", shown, datetime=written)


def data(text: str, name: str = "bdi") -> Markup:
    """Return what is not ours; it is kept apart, so that it turns no other text around."""
    return element(name, text, class_="data")
