"""Tasks of lm-evaluation-harness: asked by its own code, answered by drupe's runtimes."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from drupe.core.errors import DrupeError, nearest
from drupe.core.intervals import NORMAL_95
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.evaluate.generated import speaker
from drupe.evaluate.lm_eval_model import JudgedModel
from drupe.evaluate.metrics import LmEval
from drupe.evaluate.runtimes import NotRunHereError, open_runtime, write_skipped

WHERE = "LmEval"
BOOTSTRAP_ITERATIONS = 1000  # of numbers that are no mean of the questions'


def measure(metric: LmEval, model: Model, out: Path, job: Job) -> None:
    """Write out/score.json, out/items.json and, where asked, out/samples.jsonl."""
    try:
        runtime = open_runtime(model, metric.target, job.threads)
    except NotRunHereError as fault:
        write_skipped("lm_eval", fault, out, job)
        return
    judged = JudgedModel(
        runtime,
        lambda: speaker(model, metric.target, job.threads),
        job,
        metric.max_length,
        metric.max_gen_toks,
    )
    given = results(metric, judged)
    numbers = _numbers(given)
    if not numbers:
        raise DrupeError(WHERE, "the tasks gave no number", "Name tasks that are scored.")
    items = _items(given, numbers)
    first = next(iter(numbers))
    alone = {name: numbers[first][name] for name in ("value", "low", "high")}
    single = len(given["results"]) == 1
    score = {
        "metric": "lm_eval",
        **(alone if single else {}),
        "count": sum(given.get("n-samples", {}).get(task, {}).get("effective", 0)
                     for task in given["results"]) or None,
        "higher_is_better": numbers[first]["higher_is_better"],
        "sub_types": numbers,
        "paired": dict.fromkeys(items, "mean"),
        "versions": given.get("versions", {}),
        "n_shot": given.get("n-shot", {}),
    }  # fmt: skip
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    (out / "items.json").write_text(json.dumps(items) + "\n", encoding="utf-8")
    if metric.log_samples:
        with (out / "samples.jsonl").open("w", encoding="utf-8") as file:
            for task, samples in given["samples"].items():
                for sample in samples:
                    line = json.dumps({"task": task, **sample}, ensure_ascii=False, default=str)
                    file.write(line + "\n")


def results(metric: LmEval, judged: Any) -> Mapping[str, Any]:
    """Return what lm-eval says of a model (a name of its own, or an LM)."""
    with _within(metric.include_path):
        tasks = _task_manager(metric)
        found = lm_eval.simple_evaluate(
            model=judged,
            tasks=list(metric.tasks),
            task_manager=tasks,
            num_fewshot=metric.num_fewshot,
            limit=metric.limit,
            apply_chat_template=metric.apply_chat_template,
            system_instruction=metric.system_instruction,
            confirm_run_unsafe_code=metric.confirm_run_unsafe_code,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=True,
        )
    if found is None:
        raise DrupeError(WHERE, "lm-eval gave no result", "Run it as one process.")
    return dict(found)


def _task_manager(metric: LmEval) -> TaskManager:
    """Return what knows the tasks: those of include_path alone, if all that is asked is there."""
    if metric.include_path is not None:
        own = TaskManager(include_path=str(metric.include_path), include_defaults=False)
        if set(metric.tasks) <= set(own.all_tasks):
            return own
    path = None if metric.include_path is None else str(metric.include_path)
    every = TaskManager(include_path=path)
    for task in metric.tasks:
        if not every.match_tasks([task]):
            raise DrupeError(
                f"{WHERE}.tasks",
                f'"{task}" is no task of lm-eval\'s{nearest(task, every.all_tasks)}',
                "`lm_eval ls tasks` lists them; those of your own lie in include_path.",
            )
    return every


@contextlib.contextmanager
def _within(folder: Path | None) -> Iterator[None]:
    """Work in a folder, so that its tasks' paths are relative to it."""
    before = Path.cwd()
    if folder is not None:
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _numbers(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {TASK.NUMBER: value with its interval} of all tasks; a filter is named behind it."""
    found: dict[str, dict[str, Any]] = {}
    for task, values in given["results"].items():
        directions = given.get("higher_is_better", {}).get(task, {})
        for key, value in values.items():
            name, _, picked = key.partition(",")
            if not picked or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{name}_stderr,{picked}")
            known = isinstance(error, int | float) and math.isfinite(error)
            half = NORMAL_95 * error if known and error is not None else None
            found[_called(task, name, picked)] = {
                "value": value,
                "low": None if half is None else value - half,
                "high": None if half is None else value + half,
                "higher_is_better": directions.get(name),
            }
    return found


def _called(task: str, name: str, picked: str) -> str:
    return f"{task}.{name}" if picked == "none" else f"{task}.{name}.{picked}"


def _items(
    given: Mapping[str, Any], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Sequence[float]]]:
    """Return what each question adds to a number that is the mean of them, in their order."""
    found: dict[str, list[Sequence[float]]] = {}
    for task, samples in given.get("samples", {}).items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for name in sample.get("metrics", ()):
                value = sample.get(name)
                if isinstance(value, bool | int | float):
                    called = _called(task, name, sample.get("filter", "none"))
                    found.setdefault(called, []).append((float(value), 1))
    return {
        name: rows
        for name, rows in found.items()
        if name in numbers
        and math.isclose(sum(row[0] for row in rows) / len(rows), numbers[name]["value"])
    }
