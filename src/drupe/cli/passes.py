"""List the passes, built in and plugged in; with a name, the fields of that pass."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from drupe.catalog import PASSES

EXAMPLES = """\
  drupe passes
  drupe passes LoRA
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe passes`."""
    parser.add_argument("name", nargs="?", help="a pass")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, fields included"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the list or the fields."""
    if arguments.json:
        names = [arguments.name] if arguments.name else PASSES.names()
        print(json.dumps({name: _described(name) for name in names}))
        return 0
    console = Console()
    if arguments.name is None:
        table = Table("pass", "takes", "gives", "what it does", box=None)
        for name in PASSES.names():
            found = PASSES.find(name)
            line = (inspect.getdoc(found) or "").split("\n")[0]
            table.add_row(name, ", ".join(found.takes), found.gives, line)
        console.print(table)
        return 0
    found = PASSES.find(arguments.name)
    console.print(inspect.getdoc(found) or found.__name__, highlight=False)
    table = Table("field", "default", "meaning", box=None)
    for name, field in found.model_fields.items():
        if name != "target":
            default = "required" if field.is_required() else repr(field.default)
            table.add_row(name, default, field.description or "")
    console.print(table)
    return 0


def _described(name: str) -> dict[str, Any]:
    """Return what there is to know of a pass as JSON values; its fields as a JSON schema."""
    found = PASSES.find(name)
    fields = found.model_json_schema().get("properties", {})
    fields.pop("target", None)  # the engine fills it in
    return {
        "takes": list(found.takes),
        "gives": found.gives,
        "does": inspect.getdoc(found) or "",
        "fields": fields,
    }
