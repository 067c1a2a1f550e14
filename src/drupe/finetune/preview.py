"""Show samples as LoRA and its kin would train on them.

    python -m drupe.finetune.preview < {"pass": "module:Class", "fields": ..., "model": ...,
                                        "count": 3}
    > {"samples": [sample, ...]}, or {"fault": [where, what, remedy]} where the data give none

A program of its own, since it imports transformers; it runs the very code that training runs.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from drupe.checkpoint.load import load_tokenizer
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.finetune.lora import cut_to_context, samples_of
from drupe.finetune.passes import LoRA


def preview(step: LoRA, model: Model, count: int, scratch: Path) -> list[dict[str, Any]]:
    """Return the first `count` samples: text, pieces, ids, labels, attention_mask if asked for."""
    job = Job(scratch)
    train_data, _ = cut_to_context(step, model, job)
    tokenizer = load_tokenizer(model)
    return [
        {
            "text": tokenizer.decode(sample["input_ids"]),
            "pieces": [tokenizer.decode([token]) for token in sample["input_ids"]],
            "ids": sample["input_ids"],
            **{name: ids for name, ids in sample.items() if name != "input_ids"},
        }
        for sample in samples_of(train_data, tokenizer, job)[0][:count]
    ]


def main() -> None:
    """Read what to show from standard input, write the samples to standard output."""
    asked: dict[str, Any] = json.load(sys.stdin)
    module, _, name = asked["pass"].partition(":")
    schema: type[LoRA] = getattr(importlib.import_module(module), name)
    step = schema.model_validate_json(json.dumps(asked["fields"]))
    model = Model.from_json(asked["model"])
    told: dict[str, Any]
    with tempfile.TemporaryDirectory(prefix="drupe-preview-") as scratch:
        try:
            told = {"samples": preview(step, model, asked["count"], Path(scratch))}
        except DrupeError as fault:
            told = {"fault": [fault.where, fault.what, fault.remedy]}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
