"""The laws of the tree: everything points down, no cycle, heavy packages in heavy files alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# What a package (or a module at the top) may import of ours, beside itself. Everything may import
# core; `drupe` itself (the public names, loaded lazily) is imported for its version alone.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "search": set(),
    "catalog": set(),
    "config": {"catalog", "data", "search"},  # of data the light files: see below
    "resources": {"checkpoint"},  # the light file
    "systems": {"catalog", "resources"},  # of resources the light file that asks AzureML
    "chain": {"catalog", "config", "resources"},
    "plan": {"catalog", "chain", "config", "resources"},
    "outcome": {"plan", "search"},
    "packaging": {"config", "outcome", "plan", "resources"},
    "preflight": {"chain", "output", "plan", "report", "resources", "systems"},
    "report": {"outcome", "plan", "search"},
    "output": {"outcome", "packaging", "plan", "report", "search"},
    "listener": {"chain", "plan", "preflight", "search"},
    "dispatch": {"chain", "listener", "plan", "preflight", "resources", "systems"},
    "engine": {
        "config",
        "dispatch",
        "listener",
        "outcome",
        "output",
        "packaging",
        "plan",
        "preflight",
        "report",
        "forecasts",
        "search",
        "trials",
    },
    "forecasts": {
        "config",
        "cost",
        "evaluate",
        "export",
        "finetune",
        "search",
    },  # of all but search light files
    "doctor": set(),
    "shared_plan": {"chain", "plan", "search"},
    "numbers": {"outcome", "search"},
    "trials": {
        "config",
        "dispatch",
        "listener",
        "numbers",
        "outcome",
        "plan",
        "preflight",
        "search",
        "shared_plan",
    },
    "foresight": {"chain", "config", "plan", "search", "shared_plan", "trials"},
    "cli": {
        "catalog",
        "chain",
        "config",
        "cost",  # the light files
        "doctor",
        "engine",
        "export",  # the light file of passes
        "evaluate",  # the light files by which a model is timed
        "foresight",
        "inspect",
        "listener",
        "outcome",
        "output",
        "plan",
        "preflight",
        "report",
        "resources",  # what a batch fetches where it runs
        "search",
        "systems",
        "trials",
    },
    "inspect": {"checkpoint", "export", "resources"},
    "__main__": {"cli"},
    "testing": set(),
    "data": set(),
    "checkpoint": {"data"},
    "finetune": {"checkpoint", "data"},
    "quantize": {"checkpoint", "data"},
    "evaluate": {"checkpoint", "data"},
    "export": {"checkpoint", "quantize", "evaluate", "finetune"},
    "cost": {"checkpoint", "doctor", "export"},
    "": set(),
}
LIGHT_PACKAGES = {
    "core", "catalog", "config", "resources", "search", "systems", "chain", "plan", "outcome",
    "output", "report", "packaging", "preflight", "listener", "dispatch", "engine",
    "trials", "numbers", "shared_plan", "foresight", "forecasts", "cli", "doctor", "inspect",
    "__main__", "testing", "",
}  # fmt: skip
# Declarations, in packages whose other files are heavy.
LIGHT_FILES = {
    "adapter_config",
    "grid",
    "quantized_base",
    "header",
    "target_modules",
    "passes",
    "metrics",
    "bill",
    "correction",
    "machine",
    "rounding_errors",
    "rules",
    "memory",
    "prediction",
    "times",
    "cost_metrics",
    "answer_times",
    "spread",
    "timed",
    "size",
    "training_args",
    "text_template",
    "columns",
    "decoder",
    "families",
    "form",
    "genai_folder",
    "parts",
    "placement",
    "row_form",
    "settings",
    "strategies",
    "__init__",
}
LIGHT_LIBRARIES = {"packaging", "pydantic", "pydantic_core", "pytest", "rich", "yaml"}
# Files of light packages that are imported by name when what they are about is there (a system, an
# ONNX graph), with what they may import.
WHEN_USED = {
    "drupe.inspect.graph": {"onnx_ir"},
    "drupe.search.samplers.tpe": {"optuna"},
    "drupe.systems.azureml.job": {"azure"},
    "drupe.systems.azureml.workspace": {"azure"},
    "drupe.systems.ray.cluster": {"ray"},
    "drupe.systems.ray.desk": {"ray"},
    "drupe.systems.ray.driver": {"ray"},
    "drupe.systems.ray.files": {"ray"},
    "drupe.systems.ray.placement": {"ray"},
}
FEW_LINES = 400
# Programs that are delivered with a model: no modules of ours, and nothing of ours is with them.
DELIVERED = SOURCE / "drupe" / "packaging" / "delivered"
THEY_IMPORT = {"onnxruntime_genai", "transformers"}


@cache
def modules() -> dict[str, Path]:
    """Return {module's name: its file} of all that we wrote."""
    found = {}
    for file in sorted((SOURCE / "drupe").rglob("*.py")):
        if file.parent == DELIVERED:
            continue
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the direction"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else str(node.module))
    return frozenset(found - {"__future__"})


def package(module: str) -> str:
    """Return the part of the tree that one of our modules belongs to."""
    return [*module.split("."), ""][1]


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "drupe"}


@pytest.mark.parametrize("module", sorted(modules()))
def test_everything_points_down(module: str) -> None:
    here = package(module)
    allowed = MAY_IMPORT[here] | {here, "core", ""}
    up = {name for name in ours(module) if package(name) not in allowed}
    assert not up, f"{here} may import {sorted(allowed - {''})} only"


def test_the_table_itself_has_no_cycle() -> None:
    def below(name: str, seen: tuple[str, ...] = ()) -> Iterator[str]:
        assert name not in seen, f"{name} is below itself: {seen}"
        for inner in MAY_IMPORT[name]:
            yield inner
            yield from below(inner, (*seen, name))

    for name in MAY_IMPORT:
        assert name not in set(below(name))


def test_no_cycle_between_modules() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for name in sorted(ours(module)):
            if name != "drupe" and name in modules():  # its public names are loaded lazily
                visit(name, (*path, module))
        done.add(module)

    for module in modules():
        visit(module, ())


def test_core_imports_its_errors_and_nothing_above_them() -> None:
    assert ours("drupe.core.errors") == set()


@pytest.mark.parametrize("module", sorted(modules()))
def test_heavy_packages_are_imported_by_heavy_files_alone(module: str) -> None:
    light = package(module) in LIGHT_PACKAGES or module.rsplit(".", 1)[-1] in LIGHT_FILES
    if modules()[module].name == "__init__.py":
        light = True
    if not light:
        return
    libraries = {name.split(".")[0] for name in imports(module)} - {"drupe"}
    assert libraries - sys.stdlib_module_names <= LIGHT_LIBRARIES | WHEN_USED.get(module, set())


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_light_file_imports_no_heavy_file_of_ours(module: str) -> None:
    last = module.rsplit(".", 1)[-1]
    if package(module) not in LIGHT_PACKAGES and last not in LIGHT_FILES:
        return
    if module in WHEN_USED:
        return
    for name in ours(module):
        assert package(module) != "inspect" or name not in WHEN_USED, f"{name}: by name alone"
        assert package(name) in LIGHT_PACKAGES or name.rsplit(".", 1)[-1] in LIGHT_FILES, name


@pytest.mark.parametrize("file", sorted(DELIVERED.glob("*.py")), ids=lambda file: file.name)
def test_what_is_delivered_needs_the_runtime_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    libraries = {name.split(".")[0] for name in found} - sys.stdlib_module_names
    assert len(libraries) == 1
    assert libraries <= THEY_IMPORT


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_file_is_short_named_for_what_it_does_and_says_so(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FEW_LINES
    names = {"util", "utils", "helper", "helpers", "manager", "common", "misc", "base", "handler"}
    assert not names & set(module.split("."))
    first = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    assert first, "a file opens with one sentence on what it is for"
