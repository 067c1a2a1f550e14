"""List the passes, built in and plugged in; with a name, the fields of that pass."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drupe.catalog import PASSES
from drupe.cli.fields import FieldWords, fields_of
from drupe.config.json_schema import pass_schema

EXAMPLES = """\
  drupe passes
  drupe passes LoRA
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe passes`."""
    parser.add_argument("name", metavar="PASS", nargs="?", help="a pass")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with a JSON Schema of each"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the list or the fields."""
    if arguments.json:
        names = [arguments.name] if arguments.name else PASSES.names()
        print(json.dumps({name: _described(name) for name in names}))
        return 0
    console = Console()
    if arguments.name is None:
        table = Table("pass", "takes", "gives", "what it does", box=None, pad_edge=False)
        for name in PASSES.names():
            found = PASSES.find(name)
            line = (inspect.getdoc(found) or "").split("\n")[0]
            table.add_row(name, ", ".join(found.takes), found.gives, line)
        console.print(table)
        return 0
    found = PASSES.find(arguments.name)
    console.print(inspect.getdoc(found) or found.__name__, highlight=False)
    fields = fields_of(found)
    console.print(_table(fields))
    for field in fields:
        if field.parts:
            console.print(f"\n{field.name}: {field.meaning}", highlight=False)
            console.print(_table(field.parts))
    return 0


def _table(fields: tuple[FieldWords, ...]) -> Table:
    """Return a table with a line a field; names and defaults are whole on any terminal."""
    table = Table(box=None, show_edge=False, pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("type", ratio=1, min_width=len("constant_with_warmup,"))
    table.add_column("default", no_wrap=True)
    table.add_column("meaning", ratio=2)
    for field in fields:
        table.add_row(*map(escape, (field.name, field.type, field.default, field.meaning)))
    return table


def _described(name: str) -> dict[str, Any]:
    """Return what there is to know of a pass, with the JSON Schema of its entry in a config."""
    found = PASSES.find(name)
    return {
        "takes": list(found.takes),
        "gives": found.gives,
        "does": inspect.getdoc(found) or "",
        "schema": pass_schema(name),
    }
