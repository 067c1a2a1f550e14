"""Find the best model of MODEL for this machine that keeps the limits.

MODEL: a checkpoint or an adapter (folder or Hub name). With a limit, or with
rows, some exports are made and measured; those that cannot keep the limits are
not. Fields of the rows are options: --text-template "{question} {answer}".
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import drupe
from drupe.cli.run import add_result_arguments, execute
from drupe.cli.single import DATA, FORMATS, SOURCE, input_model, options_of
from drupe.config.load import load
from drupe.config.overrides import field_of
from drupe.config.schema import Said, Workflow
from drupe.core.amounts import read_bytes
from drupe.core.dataset import LoadDataset, TextPreprocess
from drupe.core.declared import Declared
from drupe.core.errors import Refused, nearest
from drupe.core.model import KINDS, Model
from drupe.core.target import PROVIDERS
from drupe.cost.machine import Machine, read_machine
from drupe.cost.rules import Choice, choose
from drupe.export.passes import OWN_FIELDS, exporter_of
from drupe.search.economy import MOST

EXAMPLES = """\
  drupe optimize models/phi3 --max-size 2GB --data rows.jsonl -o best
  drupe optimize models/phi3 --min-tokens-per-second 40 -o best
"""
TAKES_FIELDS = True
TEXTS = Path(drupe.__file__).parent / "templates/texts.jsonl"
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
MILLISECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:ms)?")
ROWS = 200  # that quality is measured on, where no other number is named
# Answers that are timed: enough for an interval, few enough for a large model.
TIMED = {"warmup_num": 2, "repeat_test_num": 10, "max_seconds": 60.0}
BLOCKS = (32, 64, 128)
UNTOLD = ("passes", "threads")  # one export, by all cores that may be used
SEARCHED = ("precision", "int4_block_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe optimize`."""
    parser.add_argument("model", metavar="MODEL", help="what is optimized")
    parser.add_argument("--base", metavar="MODEL", help="of an adapter: the model it is for")
    parser.add_argument("--data", metavar="FILE", help="rows to judge by: JSON, CSV or Parquet")
    parser.add_argument("--max-size", metavar="1.5GB", help="of all files of the model")
    parser.add_argument("--max-memory", metavar="4GB", help="of a process that answers")
    parser.add_argument("--max-latency", metavar="20ms", help="of each token after the first")
    parser.add_argument("--min-tokens-per-second", metavar="20", type=float)
    parser.add_argument("--max-loss", metavar="1%%", help="of what the rows show, to MODEL itself")
    parser.add_argument("--target", metavar="auto|cpu|cuda|dml|webgpu", default="auto",
                        help="made for this; auto: what this machine suits best")  # fmt: skip
    parser.add_argument("--evaluations", metavar="N", type=int, default=MOST,
                        help=f"exports that are made and measured at most ({MOST})")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the result there")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="PATH=VALUE",
        help="as in drupe run",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="take every warning for an error")
    add_result_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, and deliver the best; return 0 (that nothing keeps the limits is raised)."""
    return execute(arguments, lambda: optimizing(arguments))


def optimizing(arguments: argparse.Namespace) -> Workflow:
    """Return the workflow that the arguments describe; raises Refused for what makes no sense."""
    given = list(options_of(arguments.fields))
    fields = [field_of(option) for option, _ in given]
    machine = read_machine()
    choices = known_to(exporter(arguments), chosen(machine, arguments.target))
    config = config_of(arguments, fields, choices)
    places = {f"data_configs.{DATA}.{_part(option, arguments)}": (option, value)
              for option, value in given}  # fmt: skip
    workflow = load(
        SOURCE,
        target=PROVIDERS[choices["provider"].value][1],
        output=arguments.output,
        settings=[
            *(f"{place}={value}" for place, (_, value) in places.items()),
            *arguments.settings,
        ],
        strict=arguments.strict,
        text=json.dumps(config),
        typed={place: option for place, (option, _) in places.items()},
    )
    told = reasons(machine, choices, SEARCHED if workflow.search else ())
    return replace(workflow, notes=(*workflow.notes, *told))


def reasons(
    machine: Machine, choices: Mapping[str, Choice], searched: Sequence[str] = ()
) -> Iterator[Said]:
    """Yield what was chosen by the rules, and why; what is searched is not chosen yet."""
    yield Said(f"This machine: {machine.told}")
    for name, choice in choices.items():
        if name not in (*UNTOLD, *searched):
            yield Said(f"{name} {choice.value}: {choice.reason}")


def chosen(machine: Machine, target: str) -> dict[str, Choice]:
    """Return what the rules choose for a machine, or for a provider of it that is named."""
    if target == "auto":
        return choose(machine)
    named = [provider for provider, (_, short) in PROVIDERS.items() if short == target]
    if not named:
        known = ["auto", *(short for _, short in PROVIDERS.values())]
        what = f'"{target}" is no target{nearest(target, known)}'
        raise Refused("--target", what, f"Known: {', '.join(known)}.")
    return choose(machine.with_provider(named[0]))


def exporter(arguments: argparse.Namespace) -> str:
    """Return who will export MODEL, as far as a folder here tells: native or genai."""
    model = input_model(arguments.model, arguments.base)
    folder = Path(model["model_path"])
    return exporter_of(Model("hf", folder, "")) if (folder / "config.json").is_file() else "native"


def known_to(exporter: str, choices: dict[str, Choice]) -> dict[str, Choice]:
    """Return the choices without what an exporter does not know."""
    if exporter == "native":
        return choices
    return {name: choice for name, choice in choices.items() if name not in OWN_FIELDS}


def config_of(
    arguments: argparse.Namespace, fields: list[str], choices: Mapping[str, Choice]
) -> dict[str, Any]:
    """Return the config of the job: one export where nothing is asked of it, else a search."""
    limits = limits_of(arguments)
    is_open = bool(limits or arguments.data)
    model = input_model(arguments.model, arguments.base)
    if model["type"] != "HfModel":
        what = f"{arguments.model} is {KINDS['onnx-genai'].meaning} already"
        raise Refused("MODEL", what, "Give the checkpoint that it was made of.")
    merge = {"merge": {"type": "MergeAdapterWeights"}} if "adapter_path" in model else {}
    if not is_open:
        passes = {**merge, "export": _first(choices)}
        return {"input_model": model, "passes": passes, "engine": {"evaluate": "none"}}
    strategy = {"sampler": "economy", "max_iter": arguments.evaluations}
    return {
        "input_model": model,
        "data_configs": [_rows(arguments.data)],
        "evaluators": {"limits": {"metrics": list(metrics_of(arguments, fields, limits))}},
        "passes": {**merge, "export": list(exports(choices))},
        "engine": {"evaluator": "limits", "evaluate": "ends", "search_strategy": strategy},
    }


def limits_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return {what is limited: goal}."""
    found: dict[str, dict[str, Any]] = {}
    for option, name in (("max_size", "size"), ("max_memory", "memory")):
        text = getattr(arguments, option)
        if text is not None:
            found[name] = _threshold(_checked(option, text, read_bytes))
    if arguments.max_latency is not None:
        found["latency"] = _threshold(_checked("max_latency", arguments.max_latency, _milliseconds))
    if arguments.min_tokens_per_second is not None:
        found["speed"] = _threshold(arguments.min_tokens_per_second)
    if arguments.max_loss is not None:
        if arguments.data is None:
            what = "is a part of what MODEL reaches on rows, and none are named"
            raise Refused("--max-loss", what, "Name them: --data FILE")
        percent = _checked("max_loss", arguments.max_loss, _percent)
        found["quality"] = {"type": "percent-max-degradation", "value": percent}
    return found


def metrics_of(
    arguments: argparse.Namespace, fields: list[str], limits: Mapping[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what is measured: quality leads, unless it is limited; then speed does, then size."""
    ranks = ["quality", "speed", "size"]
    if "quality" in limits:
        ranks = ["speed", "size", "quality"]
    if arguments.data is None:
        quality = ("KLDivergence", "kl")
    elif "text_template" in fields:
        quality = ("Accuracy", "accuracy_score")
    else:
        quality = ("Perplexity", "perplexity")
    rows = {"data_config": DATA, "max_samples": ROWS}
    told: dict[str, tuple[str, str, dict[str, Any]]] = {
        "quality": (*quality, rows),
        "speed": ("Throughput", "p50", TIMED),
        "size": ("Size", "bytes", {}),
        "latency": ("Latency", "per_token", TIMED),
        "memory": ("PeakMemory", "peak_bytes", {}),
    }
    for name, (registered, number, more) in told.items():
        if name not in ranks and name not in limits:
            continue
        sub_type: dict[str, Any] = {"name": number}
        if name in ranks:
            sub_type["priority"] = ranks.index(name) + 1
        if name in limits:
            sub_type["goal"] = limits[name]
        yield {"name": name, "type": registered, "sub_types": [sub_type], **more}


def exports(choices: Mapping[str, Choice]) -> Iterator[dict[str, Any]]:
    """Yield the exports to choose among: the rules' own precision in several grids, then more."""
    whole = "fp32" if choices["provider"].value == "CPUExecutionProvider" else "fp16"
    for precision in ("int4", "int8"):
        grids = {"int4_block_size": {"search": list(BLOCKS)}}
        settings = _settings(choices)
        if precision == "int4" and "rounding" in choices:  # drupe's own exporter
            grids["int4_is_symmetric"] = {"search": [True, False]}
        if precision == "int8" and not settings["int4_accuracy_level"]:
            del settings["int4_accuracy_level"]  # 8 bits have fast kernels at level 4 alone
        yield {"type": "ModelBuilder", "precision": precision, **settings, **grids}
    yield {"type": "ModelBuilder", "precision": whole}


def _first(choices: Mapping[str, Choice]) -> dict[str, Any]:
    names = ("precision", "int4_block_size")
    own = {name: choices[name].value for name in names}
    return {"type": "ModelBuilder", **own, **_settings(choices)}


def _settings(choices: Mapping[str, Choice]) -> dict[str, Any]:
    names = [name for name in ("int4_accuracy_level", "rounding") if name in choices]
    return {name: choices[name].value for name in names}


def _rows(data: str | None) -> dict[str, Any]:
    file = TEXTS if data is None else Path(data)
    source = {"data_name": FORMATS.get(file.suffix.lower(), "json"),
              "data_files": str(file.absolute())}  # fmt: skip
    found: dict[str, Any] = {"name": DATA, "load_dataset_config": source}
    if data is None:
        found["pre_process_data_config"] = {"text_cols": "text"}
    return found


def _part(option: str, arguments: argparse.Namespace) -> str:
    """Return where in the data config a field that is named alone belongs."""
    name = field_of(option)
    parts: dict[str, type[Declared]] = {
        "pre_process_data_config": TextPreprocess,
        "load_dataset_config": LoadDataset,
    }
    for part, kind in parts.items():
        if name in kind.model_fields:
            if arguments.data is None:
                raise Refused(option, "is about rows, and none are named", "Name them: --data FILE")
            return f"{part}.{name}"
    fields = [name for kind in parts.values() for name in kind.model_fields]
    own = [name for name in vars(arguments) if name not in ("model", "fields", "settings")]
    known = [_dashed(name) for name in (*own, *fields)]
    what = f"is no option of this, and no field of the rows{nearest(option, known)}"
    raise Refused(option, what, "drupe optimize --help has the options.")


def _threshold(value: float) -> dict[str, Any]:
    return {"type": "threshold", "value": float(value)}


def _checked(option: str, text: str, read: Any) -> float:
    try:
        return float(read(text))
    except ValueError as fault:
        what = f'is "{text}": {fault}'
        raise Refused(_dashed(option), what, "Mend the value.") from fault


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _milliseconds(text: str) -> float:
    match = MILLISECONDS.fullmatch(text)
    if match is None:
        raise ValueError("should be the time of a token, such as 20ms")
    return float(match[1])


def _percent(text: str) -> float:
    match = PERCENT.fullmatch(text)
    if match is None:
        raise ValueError("should be a part of a hundred, such as 1%")
    return float(match[1])
