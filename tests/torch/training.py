"""A training of a few steps on a few rows, as many tests begin: the step, the run, what is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.finetune import lora
from drupe.finetune.passes import LoRA
from drupe.finetune.training_args import TrainingArgs

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
PHRASES = [
    ("The butterflies made him upbeat.", "joy"),
    ("I looked hopeless and sank into despair.", "sadness"),
    ("That afternoon, the radio reported that the bull charged.", "fear"),
    ("\u03a7\u03b1\u03af\u03c1\u03bf\u03bc\u03b1\u03b9 \u03c0\u03bf\u03bb\u03cd!", "joy"),
    ("ကျွန်တော် ပျော်တယ်။", "joy"),
    ("எனக்கு பயமாக இருக்கிறது.", "fear"),
    ("Who took my lunch again?", "anger"),
    ("We won 🍑", "joy"),
]


def lora_step(
    phrases: Path, training: dict[str, Any] | None = None, text: Any = None, **fields: Any
) -> LoRA:
    arguments = {"max_steps": 6, "logging_steps": 2, "learning_rate": 1e-3} | (training or {})
    preprocess = {"strategy": "line-by-line", "max_seq_len": 96, "pad_to_max_len": False}
    data = Dataset(
        name="phrases",
        load_dataset_config=LoadDataset(data_files=phrases),
        pre_process_data_config=TextPreprocess(text_template=TEMPLATE, **preprocess | (text or {})),
    )
    settings: dict[str, Any] = {"r": 4, "target_modules": ("qkv_proj", "o_proj")} | fields
    return LoRA(train_data_config=data, training_args=TrainingArgs(**arguments), **settings)


def trained(step: LoRA, model: Path, place: Path, name: str = "run") -> tuple[Path, Job, list[Any]]:
    """Return the adapter's folder, the job and its events; the scratch is place/name."""
    events: list[dict[str, Any]] = []
    out = place / f"{name}.out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    job = Job(place / name, threads=1, send=events.append)
    job.scratch.mkdir(exist_ok=True)
    lora.train(step, Model("hf", model, ""), out, job)
    return out, job, events


def adapter_bytes(out: Path) -> bytes:
    return (out / "adapter_model.safetensors").read_bytes()


def told(events: list[Any]) -> list[str]:
    return [event["text"] for event in events if "text" in event]
