"""Measure a model on rows and tasks; with --baseline beside another one.

MODEL and BASE: a checkpoint, an adapter, an ONNX model, or a run's output
folder. Fields of the metrics and of the rows are options:
--max-samples 200, --text-template "{question} {answer}".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drupe.catalog import METRICS
from drupe.cli.run import add_result_arguments, execute
from drupe.cli.single import DATA, FORMATS, SOURCE, input_model, options_of
from drupe.config.load import load
from drupe.config.overrides import field_of
from drupe.config.schema import Workflow
from drupe.core.dataset import LoadDataset, TextPreprocess
from drupe.core.errors import Refused, nearest

EXAMPLES = """\
  drupe evaluate int4 --data rows.jsonl --baseline models/phi3
  drupe evaluate models/phi3 --tasks arc_easy,hellaswag --limit 100
"""
TAKES_FIELDS = True
# What --metrics may name: a metric, or one of a metric's numbers.
WORDS = {
    "accuracy": ("Accuracy", ""),
    "f1_score": ("Accuracy", "f1_score"),
    "precision": ("Accuracy", "precision"),
    "recall": ("Accuracy", "recall"),
    "auroc": ("Accuracy", "auroc"),
    "perplexity": ("Perplexity", ""),
    "kl": ("KLDivergence", ""),
    "same_top_1": ("KLDivergence", "same_top_1"),
    "flips": ("KLDivergence", "flips"),
    "answers": ("Answers", ""),
}
OVER_CLASSES = ("f1_score", "precision", "recall")  # of each class; the mean of them is told
OF_TASKS = ("num_fewshot", "apply_chat_template", "log_samples", "include_path")
GIVEN = {"HfModel": "GivenCheckpoint", "ONNXModel": "GivenExport"}
OUTPUT = "drupe-evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe evaluate`."""
    parser.add_argument("model", metavar="MODEL", help="what is measured")
    parser.add_argument("--base", metavar="MODEL", help="of an adapter: the model it is for")
    parser.add_argument("--baseline", metavar="BASE", help="compare with this one, item by item")
    parser.add_argument("--metrics", metavar="A,B", help=f"of {', '.join(WORDS)}")
    parser.add_argument("--data", metavar="FILE", help="rows: JSON, CSV or Parquet")
    parser.add_argument("--tasks", metavar="A,B", help="tasks of lm-evaluation-harness")
    parser.add_argument("--include-path", metavar="DIR", help="where tasks of your own lie")
    parser.add_argument("--num-fewshot", metavar="N", type=int, help="examples before a question")
    parser.add_argument("--limit", metavar="N", type=float, help="items of each task, and rows")
    parser.add_argument("--batch-size", metavar="N", help="understood; batches are made by length")
    parser.add_argument(
        "--apply-chat-template", action="store_true", default=None, help="ask as in a chat"
    )
    parser.add_argument(
        "--log-samples", action="store_true", default=None, help="keep questions and answers"
    )
    parser.add_argument("--target", metavar="cpu|cuda|dml|webgpu", help="what the model runs on")
    parser.add_argument("-o", "--output", metavar="DIR", default=OUTPUT, help=f"({OUTPUT})")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="PATH=VALUE",
        help="as in drupe run",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="take every warning for an error")
    add_result_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure; return 0 (failures are raised)."""
    return execute(arguments, lambda: judging(arguments))


def judging(arguments: argparse.Namespace) -> Workflow:
    """Return the workflow that the arguments describe; raises Refused for what makes no sense."""
    given = list(options_of(arguments.fields))
    metrics = list(_metrics(arguments, [field_of(option) for option, _ in given]))
    model = input_model(arguments.model, arguments.base)
    passes: dict[str, Any] = {}
    if arguments.baseline is not None:
        passes = {"model": _beside(model, arguments)}
        model = input_model(arguments.baseline, None)
    config = {
        "input_model": model,
        "data_configs": list(_rows(arguments)),
        "evaluators": {"judge": {"metrics": metrics}},
        "passes": passes,
        "engine": {"evaluator": "judge", "evaluate": "ends"},
    }
    places = [(option, place, value) for option, value in given
              for place in _places(field_of(option), option, metrics, arguments)]  # fmt: skip
    return load(
        SOURCE,
        target=arguments.target,
        output=arguments.output,
        settings=[*(f"{place}={value}" for _, place, value in places), *arguments.settings],
        strict=arguments.strict,
        text=json.dumps(config),
        typed={place: option for option, place, _ in places},
    )


def _metrics(arguments: argparse.Namespace, fields: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what is measured."""
    if arguments.data is None and arguments.tasks is None:
        what = "needs something to measure on"
        raise Refused("drupe evaluate", what, "Name rows or tasks: --data FILE, --tasks A,B")
    found: dict[str, dict[str, Any]] = {}
    for word in _words(arguments, fields):
        if word not in WORDS:
            what = f'"{word}" is no metric{nearest(word, WORDS)}'
            raise Refused("--metrics", what, f"Known: {', '.join(WORDS)}.")
        registered, number = WORDS[word]
        if METRICS.find(registered).compares and arguments.baseline is None:
            what = f"{word} compares two models, and one is named"
            raise Refused("--metrics", what, "Name the other one: --baseline BASE")
        entry = found.setdefault(
            registered, {"name": _name(registered), "type": registered, "data_config": DATA}
        )
        if number:
            entry.setdefault("sub_types", []).append({"name": number})
            if number in OVER_CLASSES:
                entry.setdefault("metric_config", {})[number] = {"average": "macro"}
        if arguments.limit is not None and registered != "Answers":
            if not arguments.limit.is_integer():
                what = f"is {arguments.limit}: a part of the tasks, and rows are measured too"
                raise Refused("--limit", what, "Give a whole number.")
            entry["max_samples"] = int(arguments.limit)
    yield from found.values()
    if arguments.tasks is not None:
        yield _of_tasks(arguments)


def _words(arguments: argparse.Namespace, fields: list[str]) -> list[str]:
    if arguments.metrics is not None:
        if arguments.data is None:
            what = "measures on rows, and none are named"
            raise Refused("--metrics", what, "Name them: --data FILE")
        return [word.strip() for word in arguments.metrics.split(",") if word.strip()]
    if arguments.data is None:
        return []
    usual = ["accuracy"] if "text_template" in fields else []
    return [*usual, "perplexity", *(["kl"] if arguments.baseline is not None else [])]


def _name(registered: str) -> str:
    return "kl" if registered == "KLDivergence" else registered.lower()


def _of_tasks(arguments: argparse.Namespace) -> dict[str, Any]:
    tasks = [task.strip() for task in arguments.tasks.split(",") if task.strip()]
    entry: dict[str, Any] = {"name": "lm_eval", "type": "LmEval", "tasks": tasks}
    for name in OF_TASKS:
        value = getattr(arguments, name)
        if value is not None:
            entry[name] = str(Path(value).absolute()) if name == "include_path" else value
    if arguments.limit is not None:
        entry["limit"] = arguments.limit
    return entry


def _beside(model: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the pass that puts MODEL behind the baseline."""
    if "adapter_path" in model:
        return {"type": "GivenAdapter", "model_path": model["adapter_path"]}
    if not Path(model["model_path"]).is_dir():
        what = f"{arguments.model} is no folder, and beside a baseline MODEL has to be one"
        raise Refused("MODEL", what, "Give the folder of the model.")
    folder = str(Path(model["model_path"]).absolute())
    return {"type": GIVEN[model["type"]], "model_path": folder}


def _rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if arguments.data is not None:
        kind = FORMATS.get(Path(arguments.data).suffix.lower(), "json")
        source = {"data_name": kind, "data_files": str(Path(arguments.data).absolute())}
        yield {"name": DATA, "load_dataset_config": source}


def _places(
    name: str, option: str, metrics: list[dict[str, Any]], arguments: argparse.Namespace
) -> list[str]:
    """Return where in the config a field that is named alone belongs."""
    for part, kind in (("pre_process_data_config", TextPreprocess),
                       ("load_dataset_config", LoadDataset)):  # fmt: skip
        if name in kind.model_fields and name != "max_samples":
            if arguments.data is None:
                raise Refused(option, "is about rows, and none are named", "Name them: --data FILE")
            return [f"data_configs.{DATA}.{part}.{name}"]
    found = [
        f"evaluators.judge.metrics.{entry['name']}.{name}"
        for entry in metrics
        if name in METRICS.find(entry["type"]).model_fields
    ]
    if not found:
        known = {each for entry in metrics for each in METRICS.find(entry["type"]).model_fields}
        known |= set(TextPreprocess.model_fields)
        dashed = [f"--{each.replace('_', '-')}" for each in known - {"target", "data_config"}]
        what = f"is no field of what is measured{nearest(option, dashed)}"
        raise Refused(option, what, "docs/evaluation.md has the fields of each metric.")
    return found
