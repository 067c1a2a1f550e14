"""What the verbs of one step share: a config made of a command line's words, run like any other.

drupe apply PASS MODEL --name value     passes.step.name, or where a name of that kind belongs:
training_args.name, the data's own fields
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.catalog import PASSES
from drupe.cli.run import add_result_arguments, execute
from drupe.config.load import load
from drupe.config.overrides import COMMAND_LINE, field_of
from drupe.config.schema import Workflow
from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.declared import Declared
from drupe.core.errors import Refused

DATA, EVALUATION = "data", "evaluation"
FORMATS = {".csv": "csv", ".parquet": "parquet"}
OPTION = "--"
# A shell hands on the two characters \n as they are; in a config they are the end of a line.
OF_LINES = ("text_template", "input_template", "output_template", "joiner")
SOURCE = Path(COMMAND_LINE)  # what stands for a config's file in errors and reports
HELD_OUT = 0.1  # of the rows, to measure on, where no others are named


def add_single_arguments(parser: argparse.ArgumentParser, *, rows: bool = True) -> None:
    """Declare the model, the data, the result; all other options are fields.

    rows: whether the help names the data. Where the pass reads none they are understood all the
    same, so that the refusal can say why.
    """
    parser.add_argument("model", metavar="MODEL", help="folder, Hub name, or a run's output folder")
    parser.add_argument("--base", metavar="MODEL", help="of an adapter: the model it is for")
    for option, told in (
        ("--data", "rows to train on: JSON, CSV or Parquet"),
        ("--eval-data", "rows to measure on; else a tenth of --data"),
    ):
        parser.add_argument(option, metavar="FILE", help=told if rows else argparse.SUPPRESS)
    parser.add_argument("--target", metavar="cpu|cuda|dml|webgpu", help="make the model for this")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the result there")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="PATH=VALUE",
        help="as in drupe run",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="take every warning for an error")
    add_result_arguments(parser)


def run_single(arguments: argparse.Namespace, registered: str, name: str) -> int:
    """Run the pass that is `registered` so, as a stage of this name; return 0, or raise."""
    return execute(arguments, lambda: single_job(arguments, registered, name))


def single_job(
    arguments: argparse.Namespace,
    registered: str,
    name: str,
    usual: Mapping[str, Any] | None = None,
) -> Workflow:
    """Return the workflow of one pass on one model.

    usual: what a verb takes for fields that the command line does not name.
    """
    schema = PASSES.find(registered)
    config = {
        "input_model": input_model(arguments.model, arguments.base),
        "data_configs": list(_data_configs(arguments)),
        "passes": {
            name: {"type": registered, **(usual or {}), **_rows(registered, schema, arguments)}
        },
        "engine": {"evaluate": "ends"},
    }
    given = [
        (option, place_of(field_of(option), schema, name), value)
        for option, value in options_of(arguments.fields)
    ]
    for option, place, _ in given:
        if place.startswith("data_configs.") and arguments.data is None:
            what = "is about the rows to train on, and none are named"
            raise Refused(option, what, "Name them: --data FILE.")
    return load(
        SOURCE,
        target=arguments.target,
        output=arguments.output,
        settings=[*(f"{place}={value}" for _, place, value in given), *arguments.settings],
        strict=arguments.strict,
        text=json.dumps(config),
        typed={place: option for option, place, _ in given},
    )


def input_model(named: str, base: str | None) -> dict[str, Any]:
    """Return `input_model` for a model or an adapter, or for what a run made of them.

    Raises Refused for an adapter whose base is not to be found.
    """
    folder, source = _result(Path(named))
    if (folder / "genai_config.json").is_file():
        if base is not None:
            raise Refused("--base", f"belongs to an adapter, and {named} is none", "Leave it out.")
        return {"type": "ONNXModel", "model_path": str(folder)}
    if not (folder / "adapter_config.json").is_file() or (folder / "config.json").is_file():
        if base is not None:
            raise Refused("--base", f"belongs to an adapter, and {named} is none", "Leave it out.")
        return {"type": "HfModel", "model_path": str(folder) if folder.is_dir() else named}
    found = base or source or _named_base(folder)
    if found is None:
        what = f"is an adapter ({named}), and nothing here tells the model that it was trained on"
        raise Refused("MODEL", what, "Name that model: --base MODEL.")
    return {"type": "HfModel", "model_path": found, "adapter_path": str(folder)}


def _result(folder: Path) -> tuple[Path, str | None]:
    """Return the model's folder in a run's output folder, and the input model that it names."""
    try:
        report, lock = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("report.json", "config.lock.json")
        )
        model = folder / report["model"]
        source = lock["config"]["input_model"]["model_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder, None
    there = isinstance(source, str) and (Path(source).is_dir() or _is_hub_name(source))
    return (model, source if there else None) if model.is_dir() else (folder, None)


def _named_base(adapter: Path) -> str | None:
    """Return the base that PEFT's adapter_config.json names, if it is one that can be had."""
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        name = settings.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) and (Path(name).is_dir() or _is_hub_name(name)) else None


def _is_hub_name(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    return bool(owner and slash and rest) and "/" not in rest and not name.startswith((".", "~"))


def _data_configs(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name, file in ((DATA, arguments.data), (EVALUATION, arguments.eval_data)):
        if file is not None:
            kind = FORMATS.get(Path(file).suffix.lower(), "json")
            source = {"data_name": kind, "data_files": str(Path(file).absolute())}
            yield {"name": name, "load_dataset_config": source}


def _rows(registered: str, schema: type[Declared], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that name rows."""
    named = {"train_data_config": (DATA, arguments.data)}
    named["eval_data_config"] = (EVALUATION, arguments.eval_data)
    found: dict[str, Any] = {}
    for field, (name, file) in named.items():
        if file is not None and field not in schema.model_fields:
            option = "--data" if name == DATA else "--eval-data"
            raise Refused(option, f"{registered} reads no rows", "Leave it out.")
        if file is not None:
            found[field] = name
    if arguments.data and not arguments.eval_data and "eval_dataset_size" in schema.model_fields:
        found["eval_dataset_size"] = HELD_OUT
    return found


def options_of(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield ("--name", value) of `--name value`, `--name=value`, `--name a b`, `--name` (true).

    Raises Refused for a word that stands behind no option.
    """
    place = 0
    while place < len(words):
        word = words[place]
        if not word.startswith(OPTION) or word == OPTION:
            raise Refused(f'"{word}"', "belongs to no option", "Write: --name value")
        option, equals, value = word.partition("=")
        values = [value] if equals else []
        place += 1
        while not equals and place < len(words) and not words[place].startswith(OPTION):
            values.append(words[place])
            place += 1
        value = _value(values)
        of_lines = field_of(option) in OF_LINES
        plain = of_lines and not value.startswith('"')  # else it is JSON, with its own \n
        yield option, value.replace("\\n", "\n") if plain else value


def _value(values: Sequence[str]) -> str:
    if len(values) > 1:
        return json.dumps(list(values))
    return values[0] if values else "true"


def place_of(name: str, schema: type[Declared], step: str) -> str:
    """Return the path in the config of a field that is named alone."""
    if "." in name or name in schema.model_fields:
        return f"passes.{step}.{name}"
    for field, info in schema.model_fields.items():
        inner = info.annotation
        if inner is Dataset:
            for part, kind in (("pre_process", TextPreprocess), ("load_dataset", LoadDataset)):
                if name in kind.model_fields:
                    return f"data_configs.{DATA}.{part}_data_config.{name}".replace(
                        "load_dataset_data_config", "load_dataset_config"
                    )
        elif isinstance(inner, type) and issubclass(inner, Declared) and name in inner.model_fields:
            return f"passes.{step}.{field}.{name}"
    return f"passes.{step}.{name}"
