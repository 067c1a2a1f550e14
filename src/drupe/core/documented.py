"""Documented: a value whose fields are described by the strings below them.

The strings are read from the source when somebody asks: read for every class at its definition,
as pydantic's `use_attribute_docstrings` has it, they are a tenth to a fifth of what a start takes.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Documented(BaseModel):
    """A value whose JSON Schema has the strings below its fields as their descriptions."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> dict[str, Any]:
        """Return the class's JSON Schema, its fields described."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            described = properties.get(field.alias or name)
            if described is not None and (text := description(cls, name)):
                described.setdefault("description", text)
        return schema


def description(declared: type[BaseModel], name: str) -> str:
    """Return what a field says that it is, in its class or the nearest above, or ""."""
    for each in filter(lambda one: issubclass(one, Documented), declared.__mro__):
        if text := _strings(each.__module__).get(each.__qualname__, {}).get(name):
            return text
    field = declared.model_fields.get(name)
    return field.description or "" if field else ""


@functools.cache
def _strings(module: str) -> dict[str, dict[str, str]]:
    """Return {qualified name of a class: {field: the string below it}} of a module's source."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):  # made in a session, or come without its source
        return {}
    return dict(_classes(ast.parse(source), ""))


def _classes(node: ast.AST, within: str) -> Iterator[tuple[str, dict[str, str]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield within + child.name, dict(_fields(child))
            yield from _classes(child, f"{within}{child.name}.")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _classes(child, f"{within}{child.name}.<locals>.")
        else:
            yield from _classes(child, within)


def _fields(found: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(found.body, found.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, inspect.cleandoc(text)
