"""Write docs/passes: a page a pass, from what the pass itself declares.

    python scripts/pass_pages.py            write them
    python scripts/pass_pages.py --check    say which differ from what would be written

A test holds the committed pages to it. What a pass declares is its docstring, what it takes and
gives, its fields and its proof; only the smallest configs stand here.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from drupe.catalog import METRICS, PASSES
from drupe.cli.fields import FieldWords, fields_of
from drupe.core.model import KINDS
from drupe.export.passes import ARCHITECTURES, BUILDER, LOADABLE

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "passes"
PASS_NAMES = tuple(
    name
    for name in PASSES.names()
    if PASSES.find(name).__module__.startswith("drupe.") and PASSES.find(name).delivers
)  # without those of plug-ins that happen to be installed here

WRITTEN = "<!-- Written by scripts/pass_pages.py from what the passes declare. -->"
MODEL = {"type": "HfModel", "model_path": "model"}
ROWS = {
    "name": "train",
    "load_dataset_config": {"data_files": "dataset/dataset-classification.json"},
    "pre_process_data_config": {
        "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
        "max_seq_len": 128,
    },
}


def pages() -> dict[str, str]:
    """Return {name of a file in docs/passes: its text}."""
    return {"index.md": _index(), **{f"{name}.md": _page(name) for name in PASS_NAMES}}


def smallest(name: str) -> dict[str, Any]:
    """Return the smallest config in which this pass works, on the bundled model and data."""
    tuning = {"type": "LoRA", "train_data_config": "train"}
    chains: dict[str, dict[str, Any]] = {
        "MergeAdapterWeights": {"lora": tuning, "merge": {"type": name}},
        "ModelBuilder": {"builder": {"type": name, "precision": "int4"}},
    }
    passes = chains.get(name, {name.lower(): {**tuning, "type": name}})
    data = {"data_configs": [ROWS]} if name != "ModelBuilder" else {}
    return {"input_model": MODEL, **data, "passes": passes}


def _index() -> str:
    rows = []
    for name in PASS_NAMES:
        found = PASSES.find(name)
        summary = (inspect.getdoc(found) or "").split("\n")[0]
        proof = f"`{found.proof}`" if found.proof else ""
        rows.append(
            (f"[{name}]({name}.md)", _kinds(found.takes), f"`{found.gives}`", summary, proof)
        )
    kinds = sorted({kind for name in PASS_NAMES for kind in _of_a_pass(PASSES.find(name))})
    return _joined(
        WRITTEN,
        "# The passes",
        "A pass takes a model and gives a model; a config's `passes` are done in their order. "
        "Each page says what a pass takes and gives, all of its fields, the smallest config, and "
        "how its result is proven. `drupe passes NAME` tells the same on the terminal, for passes "
        "of plug-ins too.",
        _markdown_table(("pass", "takes", "gives", "what it does", "proof"), rows),
        "What lies in a model's folder is its kind:",
        _markdown_table(
            ("kind", "what it is", "files that it has at least"),
            [(f"`{kind}`", KINDS[kind].meaning, _kinds(KINDS[kind].needs)) for kind in kinds],
        ),
        "A chain is refused before any work where a pass does not take what the one before it "
        "gives. How a pass of your own is written stands in "
        "[ARCHITECTURE.md](../../ARCHITECTURE.md).",
    )


def _page(name: str) -> str:
    found = PASSES.find(name)
    fields = fields_of(found)
    parts = [
        WRITTEN,
        f"# {name}",
        inspect.getdoc(found) or "",
        _markdown_table(
            ("takes", "gives", "installed by"),
            [
                (
                    ", ".join(f"{KINDS[kind].meaning} (`{kind}`)" for kind in found.takes),
                    f"{KINDS[found.gives].meaning} (`{found.gives}`)",
                    f"`drupe[{found.extra}]`",
                )
            ],
        ),
        "## Fields",
        _fields(fields),
    ]
    for field in fields:
        if field.parts:
            parts += [f"## {field.name}", field.meaning, _fields(field.parts)]
    if name == "ModelBuilder":
        parts += _what_loads()
    return _joined(
        *parts,
        "## The smallest config",
        "For the model and the data of `examples/phi3-emotion`; paths are relative to the config.",
        f"```json config\n{json.dumps(smallest(name), indent=2)}\n```",
        "## Proof",
        _proof(found.proof),
    )


def _proof(name: str) -> str:
    if not name:
        return (
            "None of its own: what it changed is measured by the metrics of the config's "
            "`evaluator`, on the rows that they name. A loss that is no number, and an adapter "
            "that is as it was before, end the run with exit status 1."
        )
    proof = METRICS.find(name)
    return (
        f"`{name}`, a step of its own after it, cached like every step; what it finds wrong ends "
        f"the run with exit status 1.\n\n{inspect.getdoc(proof) or ''}"
    )


def _what_loads() -> list[str]:
    """Return what only exporting has: pairs that a runtime loads, and models that it knows."""
    rows = [(f"`{short}`", _kinds(precisions)) for short, precisions in LOADABLE.items()]
    known = ", ".join(f"`{each}`" for each in ARCHITECTURES)
    return [
        "## What loads",
        (
            "A precision that a target's runtime would not load is refused at plan time. Models "
            "for `cuda`, `dml` and `webgpu` are built and checked as graphs, and have not been run."
        ),
        _markdown_table(("target", "precisions"), rows),
        (
            f"ONNX Runtime GenAI's builder (of {BUILDER}) knows these architectures: {known}. With "
            "a builder of that version another one is refused at plan time."
        ),
    ]


def _of_a_pass(found: Any) -> tuple[str, ...]:
    return (*found.takes, found.gives)


def _kinds(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _fields(fields: tuple[FieldWords, ...]) -> str:
    rows = [
        (
            f"`{field.name}`",
            field.type,
            field.default if field.default in ("required", "as below") else f"`{field.default}`",
            field.meaning,
        )
        for field in fields
    ]
    return _markdown_table(("field", "type", "default", "what it means"), rows)


def _markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _joined(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Write the pages, or with --check compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    written = pages()
    FOLDER.mkdir(exist_ok=True)
    differing = [
        name
        for name, text in written.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    for name in differing:
        if not check:
            (FOLDER / name).write_text(text := written[name], encoding="utf-8")
            sys.stdout.write(f"docs/passes/{name}: {len(text)} characters\n")
        else:
            sys.stdout.write(f"docs/passes/{name} differs: run scripts/pass_pages.py\n")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
