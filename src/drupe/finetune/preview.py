"""Show samples as LoRA would train on them.

    python -m drupe.finetune.preview < {"fields": ..., "model": ..., "count": 3} > [sample, ...]

A program of its own, since it imports transformers; it runs the very code that training runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from drupe.checkpoint.load import load_tokenizer
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
    step = LoRA.model_validate_json(json.dumps(asked["fields"]))
    with tempfile.TemporaryDirectory(prefix="drupe-preview-") as scratch:
        found = preview(step, Model.from_json(asked["model"]), asked["count"], Path(scratch))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
