"""The schema of AzureML's job as JSON Schema, made of the models in azure-ai-ml's REST client.

The models are Microsoft's, generated from the published TypeSpec of the resource provider
Microsoft.MachineLearningServices; azure-ai-ml 1.35.2 sends command jobs as API_VERSION.
"""

from __future__ import annotations

import inspect
import typing
from enum import Enum
from functools import cache
from types import ModuleType
from typing import Any

API_VERSION = "2025-01-01-preview"
PLAIN = {str: "string", int: "integer", bool: "boolean", float: "number", type(None): "null"}


@cache
def job_schema() -> dict[str, Any]:
    """Return the schema of the body of PUT .../jobs/NAME for a command job."""
    from azure.ai.ml._restclient.arm_ml_service.models import _models

    definitions: dict[str, Any] = {}
    properties = _of_class(_models.CommandJob, _models, definitions)
    return {
        "type": "object",
        "properties": {"properties": properties},
        "required": ["properties"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _of_class(model: type, module: ModuleType, definitions: dict[str, Any]) -> dict[str, Any]:
    if model.__name__ not in definitions:
        definitions[model.__name__] = {}  # so that one that holds itself ends
        definitions[model.__name__] = _object(model, module, definitions)
    return {"$ref": f"#/$defs/{model.__name__}"}


def _object(model: type, module: ModuleType, definitions: dict[str, Any]) -> dict[str, Any]:
    below = [each for each in vars(module).values() if isinstance(each, type)]
    concrete = [each for each in below if each is not model and model in each.__mro__]
    if concrete and getattr(model, "__mapping__", None):  # told apart by a word in it
        return {"anyOf": [_of_class(each, module, definitions) for each in concrete]}
    space = {**vars(typing), **vars(module), "_models": module, "_types": module}
    fields: dict[str, Any] = {}
    required = []
    for each in reversed(model.__mro__):
        for name, hint in inspect.get_annotations(each).items():
            field = vars(each).get(name)
            if type(field).__name__ != "_RestField":
                continue
            wire = field._rest_name_input or name
            kind = eval(hint, space) if isinstance(hint, str) else hint
            fields[wire] = _of_hint(kind, module, definitions)
            if type(None) not in typing.get_args(kind) and field._visibility != ["read"]:
                required.append(wire)
    return {
        "type": "object",
        "properties": fields,
        "required": sorted(set(required)),
        "additionalProperties": False,
    }


def _of_hint(hint: Any, module: ModuleType, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Union:
        known = [_of_hint(each, module, definitions) for each in inner]
        if any("enum" in each for each in known):  # they let other words through; we send these
            known = [each for each in known if each != {"type": "string"}]
        return {"anyOf": known}
    if origin is typing.Literal:
        return {"enum": [each.value if isinstance(each, Enum) else each for each in inner]}
    if origin is list:
        return {"type": "array", "items": _of_hint(inner[0], module, definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_hint(inner[1], module, definitions)}
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    written = hint.__name__ if isinstance(hint, type) else getattr(hint, "__forward_arg__", hint)
    return _of_name(written.rpartition(".")[2], module, definitions)


def _of_name(name: str, module: ModuleType, definitions: dict[str, Any]) -> dict[str, Any]:
    from azure.ai.ml._restclient.arm_ml_service.models import _enums

    if hasattr(_enums, name):
        return {"enum": [each.value for each in getattr(_enums, name)]}
    known = getattr(module, name, None)
    return _of_class(known, module, definitions) if isinstance(known, type) else {"type": "string"}
