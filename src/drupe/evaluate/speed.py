"""Latency and throughput: the same answer again and again, and what the times say.

Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from drupe.core.job import Job
from drupe.core.machine import speed_class
from drupe.core.model import KINDS, Model
from drupe.core.target import Target
from drupe.evaluate.answer_times import latency_numbers, throughput_numbers
from drupe.evaluate.cost_metrics import Latency, RepeatedMetric, Throughput
from drupe.evaluate.spread import Estimate
from drupe.evaluate.timed import Generation, Timed, in_turns


def latency(metric: Latency, model: Model, out: Path, job: Job) -> None:
    """Write score.json, and runs.json: the seconds of each token of each answer."""
    answers = _answers(metric, model, out, job)
    if answers is not None:
        _write("latency", "ms", latency_numbers(answers), metric, answers, out)


def throughput(metric: Throughput, model: Model, out: Path, job: Job) -> None:
    """Write score.json, and runs.json: the seconds of each token of each answer."""
    answers = _answers(metric, model, out, job)
    if answers is not None:
        found = throughput_numbers(answers, metric.prompt_length)
        _write("throughput", "tokens/s", found, metric, answers, out)


def not_here(model: Model, target: Target) -> str:
    """Return why a model cannot answer on this machine, "" where it can."""
    if not KINDS[model.kind].on_target:
        return ""
    if target.provider in onnxruntime.get_available_providers():
        return ""
    return f"{target.provider} is not available on this machine"


def write_skipped(metric: str, why: str, out: Path, job: Job) -> None:
    """Write a score.json that says "not run", and why, and warn the user."""
    score = {"metric": metric, "value": None, "skipped": why}
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    job.warn(f"{metric} was not measured: {why}")


def _answers(metric: RepeatedMetric, model: Model, out: Path, job: Job) -> list[Generation] | None:
    name = type(metric).__name__.lower()
    why = not_here(model, metric.target)
    if why:
        write_skipped(name, why, out, job)
        return None
    asked = metric.asked()
    with Timed(model, job.threads) as timed:
        (answers,) = in_turns(
            [timed], asked, lambda done: job.progress(name, done, asked.repeats, "answers")
        )
    return answers


def _write(
    name: str,
    unit: str,
    found: Mapping[str, Estimate],
    metric: RepeatedMetric,
    answers: list[Generation],
    out: Path,
) -> None:
    value = found["p50"]
    score: dict[str, Any] = {
        "metric": name,
        **value.to_json(),
        "unit": unit,
        "count": len(answers),
        "higher_is_better": metric.numbers["p50"],
        "sub_types": {number: estimate.to_json() for number, estimate in found.items()},
        "prompt_length": metric.prompt_length,
        "new_tokens": metric.new_tokens,
        "machine": speed_class(),
    }
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    runs = [[each.first, *each.others] for each in answers]
    (out / "runs.json").write_text(json.dumps(runs) + "\n", encoding="utf-8")
