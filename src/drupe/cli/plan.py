"""Show what a run would do, what it would take, what is in its way; run nothing.

Times, memory and disk are fitted to earlier runs on this machine, or go by
a rule of thumb.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drupe.chain import Step
from drupe.cli.job import add_job_arguments, read_job
from drupe.cli.progress import Terminal
from drupe.config.schema import Search, Workflow
from drupe.core.errors import Refused, refuse
from drupe.core.secrets import redacted_values
from drupe.foresight import foresee
from drupe.plan import Plan, draft
from drupe.preflight.estimates import Estimate, estimates
from drupe.preflight.examine import blockers_of, examine
from drupe.preflight.finding import Finding
from drupe.preflight.texts import samples
from drupe.report.words import duration, size
from drupe.trials import STRATEGY

EXAMPLES = """\
  drupe plan olive-config.json
  drupe plan olive-config.json --show-samples 3
"""
SHORT = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe plan`."""
    add_job_arguments(parser)
    parser.add_argument(
        "--show-samples", type=int, metavar="N", default=0, help="print N samples of the training"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Show the plan; return 0, or 2 when something is in the way."""
    if arguments.show_samples < 0:
        raise Refused("--show-samples", f"is {arguments.show_samples}", "Give a number from 0.")
    workflow = read_job(arguments, "plan")
    return show(workflow, count=arguments.show_samples, as_json=arguments.json)


def show(workflow: Workflow, *, count: int = 0, as_json: bool = False) -> int:
    """Show the plan of `workflow` with `count` samples; raise what is in its way.

    as_json: print all of it, what is in the way too, and return 0, or 2 when something is.
    """
    terminal = Terminal()
    warned: list[str] = []
    if workflow.search is not None:
        return _show_search(workflow, workflow.search, as_json=as_json)
    planned = draft(workflow, warned.append, lambda text: print(text, file=sys.stderr))
    expected = estimates(planned)
    findings = examine(planned, expected)
    in_the_way = [*planned.blockers, *blockers_of(findings)]
    shown = samples(planned, count) if count and not in_the_way else {}
    if as_json:
        told = as_values(planned, expected, findings, warned, shown)
        print(json.dumps(redacted_values(told), indent=2, ensure_ascii=False))
    else:
        terminal.planned(planned)
        for text in warned:
            terminal.warning(text)
        _table(planned, expected)
        _totals(planned, expected)
        for name, found in shown.items():
            show_samples(name, found)
        for finding in findings:
            terminal.found(finding)
        refuse(workflow.file, in_the_way)
    return 2 if in_the_way else 0


def _show_search(workflow: Workflow, search: Search, *, as_json: bool) -> int:
    """Show what a search would do: its points as one plan."""
    terminal, warned = Terminal(), list[str]()
    found = foresee(workflow, search, warned.append, lambda text: print(text, file=sys.stderr))
    planned = found.plan or found.first
    expected = estimates(planned)
    findings = examine(replace(found.first, blockers=found.blockers), estimates(found.first))
    in_the_way = [*found.blockers, *blockers_of(findings)]
    if found.plan is None and not in_the_way:
        reason = found.refused[0][1]
        in_the_way.append(Refused(STRATEGY, f"no point can be run: {reason}", "Mend the passes."))
    if as_json:
        whole = replace(planned, blockers=tuple(in_the_way))
        values = as_values(whole, expected, findings, warned, {})
        print(json.dumps(redacted_values(values | {"search": found.to_json()}), indent=2))
        return 2 if in_the_way else 0
    terminal.planned(found.first)
    for text in warned:
        terminal.warning(text)
    print("\n".join(found.words))
    print()
    _table(planned, expected)
    _totals(planned, expected)
    for finding in findings:
        terminal.found(finding)
    refuse(workflow.file, in_the_way)
    return 0


def as_values(
    planned: Plan,
    expected: Mapping[str, Estimate],
    findings: list[Finding],
    warned: list[str],
    shown: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the plan as JSON values."""
    workflow = planned.workflow
    return {
        "format": 1,
        "config": workflow.file,
        "input_model": {"name": planned.source.name, "found": planned.source.found},
        "target": workflow.target.model_dump(),
        "steps": [
            {
                "name": step.name,
                "operation": step.registered,
                "key": step.key or None,
                "state": _state(step),
                "system": step.system.name,
                "fused": step.inside is not None,
                "inside": step.inside.stage if step.inside else None,
                "estimate": expected[step.name].to_json() if step.name in expected else None,
            }
            for step in planned.steps
        ],
        "notes": [
            *({"level": said.level, "text": said.text} for said in workflow.notes),
            *({"level": "note", "text": text} for text in planned.notes),
        ],
        "warnings": warned,
        "findings": [
            finding.to_json() for finding in [*map(Finding.blocker, planned.blockers), *findings]
        ],
        "samples": dict(shown),
    }


def _state(step: Step) -> str:
    if not step.key:
        return "unknown"
    return "cached" if step.hit else "to run"


def _table(planned: Plan, expected: Mapping[str, Estimate]) -> None:
    """Show a line a step; what is estimated by a rule of thumb is marked."""
    rows = [("step", "key", "state", "time", "memory", "disk")]
    for step in planned.steps:
        estimate = expected.get(step.name)
        cost = ("", "", "") if estimate is None else _cost(estimate)
        rows.append((step.name, step.key[:SHORT] or "unknown", _state(step), *cost))
    # Whole on any terminal: a number that is cut is worse than a line that is folded.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _cost(estimate: Estimate) -> tuple[str, str, str]:
    mark = "" if estimate.measured else "~"
    return (
        "?" if estimate.seconds is None else mark + duration(estimate.seconds),
        "?" if estimate.peak_bytes is None else mark + size(estimate.peak_bytes),
        "?" if estimate.output_bytes is None else mark + size(estimate.output_bytes),
    )


def _totals(planned: Plan, expected: Mapping[str, Estimate]) -> None:
    """Say where all runs, what it takes together, and where the numbers come from."""
    print(f"\n{_where(planned)}.")
    known = [each for each in expected.values() if each.seconds is not None]
    if not known:
        return
    seconds = sum(each.seconds or 0 for each in known)
    peak = max(each.peak_bytes or 0 for each in known)
    disk = sum(each.output_bytes or 0 for each in known)
    unknown = len(expected) - len(known)
    measured = sum(each.measured for each in known)
    by_rule = len(known) - measured
    sources = [
        f"{measured} fitted to earlier runs on this machine" if measured else "",
        f"{by_rule} by a rule of thumb (~)" if by_rule else "",
        f"{unknown} of unknown cost (?)" if unknown else "",
    ]
    print(
        f"About {duration(seconds)}, {size(peak)} of memory at peak, {size(disk)} of disk. "
        f"The estimates: {', '.join(filter(None, sources))}."
    )


def _where(planned: Plan) -> str:
    """Say on which system each step runs."""
    steps: dict[str, list[str]] = {}
    for step in planned.steps:
        steps.setdefault(step.system.words, []).append(step.name)
    if len(steps) <= 1:
        [words] = steps or {planned.workflow.host.words: []}
        return f"Each step runs {words}"
    most = max(steps, key=lambda words: len(steps[words]))
    others = (f"{words}: {', '.join(names)}" for words, names in steps.items() if words != most)
    return f"The steps run {most}, but {'; '.join(others)}"


def show_samples(name: str, found: list[dict[str, Any]]) -> None:
    """Print the samples of a pass, and how each token of them is learnt."""
    for number, sample in enumerate(found, 1):
        learnt = sum(label != -100 for label in sample["labels"])
        mask = sample.get("attention_mask")
        masked = "no attention mask" if mask is None else f"attended to: {sum(mask)}"
        print(f"\n{name}, sample {number}: {len(sample['ids'])} tokens, learnt: {learnt}, {masked}")
        print(sample["text"])
        told = zip(sample["ids"], sample["pieces"], sample["labels"], strict=True)
        shown = (f"{token}{piece!r}{'' if label != -100 else '-'}" for token, piece, label in told)
        print("  " + " ".join(shown))
    if found:
        print("\nToken by token: its number and its text; - behind it: read, and not learnt.")
