"""The text that a pass would train on, looked at in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from drupe.chain import Step
from drupe.core.dataset import Dataset
from drupe.core.errors import Refused
from drupe.core.model import Model
from drupe.core.operation import Pass
from drupe.core.resource import Remote
from drupe.plan import Plan
from drupe.preflight.finding import Finding
from drupe.systems.worker import ENVIRONMENT

LONGEST_SECONDS = 120


def texts(planned: Plan) -> Iterator[Finding]:
    """Yield what is wrong, or looks wrong, with the rows of each pass that is to train."""
    for step in planned.to_run:
        rows = step.operation.training_rows() if isinstance(step.operation, Pass) else None
        if rows is not None and _is_elsewhere(planned, rows):
            what = "was not looked at: its rows, or the model's tokenizer, are not here"
            yield Finding("note", f"{step.name} ({rows.name})", what, "")
        elif rows is not None:
            yield from _look(planned, step, rows)


def _is_elsewhere(planned: Plan, rows: Dataset) -> bool:
    source = rows.load_dataset_config
    absent = isinstance(source.data_files, Remote) and source.fetched is None
    return absent or not planned.source.is_shown


def samples(planned: Plan, count: int) -> dict[str, list[dict[str, Any]]]:
    """Return the first samples of each pass that trains, by its name, as it would see them.

    A sample has `text`, `pieces` (one a token), `ids`, `labels` (-100: not learnt from) and, where
    the model is given one, `attention_mask`. Raises Refused for data that give none.
    """
    source = planned.source.model
    found = {}
    for step in planned.steps:
        if isinstance(step.operation, Pass) and step.operation.preview:
            asked = asked_for(step.operation, source.base or source, count)
            told = _asked(step.operation.preview, asked)
            if "fault" in told:
                where, what, remedy = told["fault"]
                raise Refused(f"{step.name}, {where}", what, remedy)
            found[step.name] = told["samples"]
    return found


def asked_for(trains: Pass, model: Model, count: int) -> dict[str, Any]:
    """Return what the program that shows samples of a pass is asked (see `finetune.preview`)."""
    schema = type(trains)
    return {
        "pass": f"{schema.__module__}:{schema.__qualname__}",
        "fields": json.loads(trains.model_dump_json()),
        "model": model.to_json(),
        "count": count,
    }


def _look(planned: Plan, step: Step, rows: Dataset) -> Iterator[Finding]:
    source = planned.source.model
    model = (source.base or source).path
    asked = {
        "dataset": _json(rows),
        "model": str(model),
        "others": [_json(other) for other in _measured_on(planned, step)],
    }
    where = f"{step.name} ({rows.name})"
    try:
        found = _asked("drupe.data.text_lints", asked)
    except (OSError, subprocess.SubprocessError, ValueError) as fault:
        yield Finding("note", where, f"was not looked at: {str(fault).splitlines()[-1]}", "")
        return
    for level, what, remedy in found:
        yield Finding(level, where, what, remedy)


def _json(dataset: Dataset) -> Any:
    return json.loads(dataset.model_dump_json())


def _measured_on(planned: Plan, trains: Step) -> list[Dataset]:
    """Return the data that a training and the metrics measure on, each once."""
    own = trains.operation.evaluation_rows() if isinstance(trains.operation, Pass) else None
    found = [] if own is None else [own]
    for step in planned.steps:
        data = getattr(step.operation, "data_config", None)
        if step.role == "metric" and isinstance(data, Dataset) and data not in found:
            found.append(data)
    return found


def _asked(module: str, question: dict[str, Any]) -> Any:
    """Return what `python -m module` answers to a question, JSON in and out."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST_SECONDS,
        env={**os.environ, **ENVIRONMENT, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr.strip() or f"{module} ended with {done.returncode}")
    return json.loads(done.stdout)
