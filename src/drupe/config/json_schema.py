"""The canonical schema as JSON Schema, by which editors complete and check a config."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from drupe.catalog import METRICS, PASSES, SYSTEMS
from drupe.config.faults import FILLED_IN
from drupe.config.schema import EngineConfig, InputModel
from drupe.core.dataset import Dataset
from drupe.core.goal import SubType
from drupe.core.operation import Metric, Operation
from drupe.core.registry import Registry
from drupe.core.resource import AzureMLClient

# What a field of a pass may be beside its own value: a choice that a search makes.
CHOICE = {
    "description": "What a search chooses from: values, or all that the field has.",
    "type": "object",
    "properties": {
        "search": {"anyOf": [{"const": "all"}, {"type": "array", "minItems": 1}]},
    },
    "required": ["search"],
    "additionalProperties": False,
}
OPEN = {"$ref": "#/$defs/Choice"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config, with the passes and metrics of installed plug-ins."""
    passes, metrics = _classes(PASSES), _classes(METRICS)
    systems: list[type[BaseModel]] = [SYSTEMS.find(name) for name in SYSTEMS.names()]
    sections: list[type[BaseModel]] = [
        InputModel,
        Dataset,
        EngineConfig,
        AzureMLClient,
        SubType,
        *systems,
    ]
    models: list[type[BaseModel]] = [*sections, *passes.values(), *metrics.values()]
    refs, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template="#/$defs/{model}",
    )
    found = {model: refs[model, "validation"] for model in dict.fromkeys(models)}
    shapes = definitions["$defs"]
    for shape in shapes.values():
        _leave_out_what_is_filled_in(shape)
    entries = {
        registry.group: [
            _entry(name, schema, shapes, named=registry is METRICS)
            for name, schema in classes.items()
        ]
        for registry, classes in ((PASSES, passes), (METRICS, metrics))
    }
    evaluator = {"metrics": {"type": "array", "items": {"anyOf": entries["metrics"]}}}
    described = {"anyOf": entries["passes"]}
    alternatives = {"type": "array", "items": described, "minItems": 1}
    shapes["Choice"] = CHOICE
    properties = {
        "$schema": {"type": "string"},
        "workflow_id": {"type": "string"},
        "input_model": found[InputModel],
        "data_configs": {"type": "array", "items": found[Dataset]},
        "systems": _named({"anyOf": [found[system] for system in systems]}),
        "evaluators": _named(_object(evaluator, ["metrics"])),
        "passes": _named({"anyOf": [*entries["passes"], alternatives]}),
        "engine": found[EngineConfig],
        "azureml_client": found[AzureMLClient],
    }
    whole = {"$schema": DIALECT, "title": "A config of drupe"}
    return {**whole, **_object(properties, ["input_model"]), "$defs": shapes}


def pass_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one entry of `passes`: of the pass that is registered as `name`."""
    found = PASSES.find(name)
    _, definitions = models_json_schema([(found, "validation")], ref_template="#/$defs/{model}")
    shapes = definitions["$defs"]
    for shape in shapes.values():
        _leave_out_what_is_filled_in(shape)
    shapes["Choice"] = CHOICE
    entry = _entry(name, found, shapes, named=False)
    used = _referred(entry, shapes)
    return {
        "$schema": DIALECT,
        **entry,
        "$defs": {each: shape for each, shape in shapes.items() if each in used},
    }


def _referred(shape: Any, shapes: dict[str, Any]) -> set[str]:
    """Return the names of `shapes` that a shape refers to, directly or through others."""
    used: set[str] = set()
    waiting = [shape]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference)} if (name := reference.rpartition("/")[2]) not in used:
                used.add(name)
                waiting.append(shapes[name])
            case dict(inner):
                waiting.extend(inner.values())
            case list(inner):
                waiting.extend(inner)
    return used


def _classes(registry: Registry) -> dict[str, type[Operation]]:
    """Return what a config can name: a proof is no such."""
    found = {name: registry.find(name) for name in registry.names()}
    return {
        name: schema
        for name, schema in found.items()
        if not (issubclass(schema, Metric) and schema.is_proof())
    }


def _entry(
    name: str, schema: type[Operation], shapes: dict[str, Any], *, named: bool
) -> dict[str, Any]:
    """Return the shape of an entry of type `name`; a field for data may name a data config."""
    shape = shapes[schema.__name__]
    fields = {
        field: {"anyOf": [{"type": "string"}, inner]} if field.endswith("data_config") else inner
        for field, inner in shape.get("properties", {}).items()
    }
    if not named:  # a pass: a search may choose
        fields = {field: _or_open(inner) for field, inner in fields.items()}
    fields = {"type": {"const": name}, **fields}
    fields["name" if named else "host"] = {"type": "string"}
    if named:
        fields["sub_types"] = {"type": "array", "items": {"$ref": "#/$defs/SubType"}}
    described = _object(fields, ["type", *shape.get("required", [])])
    return {"description": shape.get("description", ""), **described}


def _or_open(shape: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of a field that may also be a choice; what an editor shows stays."""
    shown: dict[str, Any] = {
        key: shape[key] for key in ("title", "description", "default") if key in shape
    }
    return {**shown, "anyOf": [shape, OPEN]}


def _leave_out_what_is_filled_in(shape: dict[str, Any]) -> None:
    filled = {f"#/$defs/{model.__name__}" for model in FILLED_IN}
    for name, inner in list(shape.get("properties", {}).items()):
        refs = {inner.get("$ref"), *(each.get("$ref") for each in inner.get("anyOf", ()))}
        if refs & filled:
            del shape["properties"][name]
            if name in shape.get("required", ()):
                shape["required"].remove(name)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _named(shape: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": shape}
