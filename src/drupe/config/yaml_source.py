"""A YAML text as Map and Items: the core schema of YAML 1.2, in which JSON's scalars mean the same.

PyYAML's own scalars are those of YAML 1.1, in which `no` is false and `1e-4` is a text; here they
are a text and a number. Aliases are followed; a text that they would blow up is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from drupe.config.source import Items, Map, Origin, syntax_fault

MOST_NODES = 100_000
DEEPEST = 100


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars (https://yaml.org/spec/1.2.2, 10.3.2)."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _number(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _number,
}
KINDS = {*SCALARS, "map", "seq"}

for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def parse(text: str, file: Path) -> tuple[Any, list[Origin]]:
    """Return the value of a YAML text, and the origins of keys that are there twice.

    Raises ConfigError with line and column for what is not YAML.
    """
    if not text.strip():
        raise syntax_fault(file, 1, None, "is empty", "Write the config's names and values.")
    builder = _Builder(file)
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        return (None if node is None else builder.value(node, "", 0)), builder.repeated
    except RecursionError as fault:
        raise syntax_fault(file, 1, None, "is nested too deeply") from fault
    except ValueError as fault:  # a number of thousands of digits
        raise syntax_fault(file, 1, None, f"cannot be read: {fault}", "Mend the value.") from fault
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, None)
        what = f"is not YAML: {fault.problem or fault.context}"
        raise syntax_fault(file, line, column, what) from fault
    except yaml.YAMLError as fault:
        raise syntax_fault(file, 1, None, f"is not YAML: {str(fault).splitlines()[0]}") from fault


class _Builder:
    """Turns nodes into values that remember their lines."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._count = 0
        self.repeated: list[Origin] = []

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        """Return the value of `node`; path: in the user's words."""
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            self._refuse(node, "is larger or deeper, its aliases followed, than any config")
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in KINDS:
            self._refuse(node, f"has the tag {node.tag}, and a config has none")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            found = Items()
            for index, inner in enumerate(node.value):
                origin = self._origin(inner, f"{path}[{index}]")
                found.add(self.value(inner, origin.path, depth + 1), origin)
            return found
        return SCALARS[kind](str(node.value))

    def _map(self, node: yaml.MappingNode, path: str, depth: int) -> Map:
        found = Map()
        for key_node, inner in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "has a name that is no text")
            key = str(key_node.value)
            origin = self._origin(key_node, f"{path}.{key}" if path else key)
            if key in found:
                self.repeated.append(origin)
            found.put(key, self.value(inner, origin.path, depth + 1), origin)
        return found

    def _refuse(self, node: yaml.Node, what: str) -> NoReturn:
        mark = node.start_mark
        raise syntax_fault(self._file, mark.line + 1, mark.column + 1, what)

    def _origin(self, node: yaml.Node, path: str) -> Origin:
        return Origin(f"{self._file.name}:{node.start_mark.line + 1}", path)
