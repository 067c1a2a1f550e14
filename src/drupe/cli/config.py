"""Check a config, rewrite one in today's words, or print the schema for editors.

check runs nothing and looks at no model: `drupe plan` does that.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from drupe.cli.job import add_job_arguments, read_job
from drupe.config.load import canonical
from drupe.config.schema import Said
from drupe.core.errors import ConfigError, Fault, Refused
from drupe.core.files import write_atomic

EXAMPLES = """\
  drupe config check olive-config.json --strict
  drupe config upgrade olive-config.json -o config.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe config`."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="check|upgrade|schema")
    check = verbs.add_parser("check", help="tell every fault and warning of a config")
    add_job_arguments(check)
    check.add_argument("--json", action="store_true", help="print them as JSON")
    upgrade = verbs.add_parser("upgrade", help="write a config in drupe's own words")
    upgrade.add_argument("file", metavar="FILE", type=Path, help="the config")
    upgrade.add_argument("-o", "--output", metavar="FILE", type=Path, help="a .json or .yaml file")
    schema = verbs.add_parser("schema", help="print the JSON Schema of a config")
    schema.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it there")


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked; return 0 (faults are raised)."""
    if arguments.action == "check":
        return _check(arguments)
    if arguments.action == "upgrade":
        return _upgrade(arguments.file, arguments.output)
    schema = importlib.import_module("drupe.config.json_schema").json_schema()
    _write(json.dumps(schema, indent=2) + "\n", arguments.output)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    faults: list[dict[str, str]] = []
    try:
        workflow = read_job(arguments, "config check")
    except ConfigError as error:
        if not arguments.json:
            raise
        faults = [
            {"where": fault.where, "what": fault.what, "remedy": fault.remedy}
            for fault in error.faults
        ]
    said = [] if faults else [*workflow.notes, *map(_said, workflow.unready)]
    if arguments.json:
        told = [{"level": each.level, "text": each.text} for each in said]
        print(json.dumps({"faults": faults, "notes": told}, indent=2, ensure_ascii=False))
        return 2 if faults else 0
    for each in said:
        print(f"{'!' if each.level == 'warning' else ' '} {each.text}")
    warnings = sum(each.level == "warning" for each in said)
    counted = "1 warning" if warnings == 1 else f"{warnings} warnings"
    print(f"{arguments.file or arguments.config}: no fault, {counted}")
    return 0


def _said(fault: Fault) -> Said:
    """Return what a plan would refuse, as a warning: the config itself is sound."""
    remedy = fault.remedy[:1].lower() + fault.remedy[1:].removesuffix(".")
    return Said(f"{fault.where}: {fault.what}: {remedy}", "warning")


def _upgrade(file: Path, output: Path | None) -> int:
    root, notes, faults = canonical(file)
    if faults:
        raise ConfigError(str(file), faults)
    for note in notes:
        print(f"{note.where}: {note.text}", file=sys.stderr)
    values = json.loads(json.dumps(root))
    in_yaml = (output or file).suffix.lower() in (".yaml", ".yml")
    _write(
        _yaml(values) if in_yaml else json.dumps(values, indent=4, ensure_ascii=False) + "\n",
        output,
    )
    return 0


def _yaml(values: Any) -> str:
    text: str = importlib.import_module("yaml").safe_dump(
        values, sort_keys=False, allow_unicode=True
    )
    return text


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    if output.exists():
        raise Refused(str(output), "is there already", "Give another name, or remove it.")
    write_atomic(output, text.encode())
