"""LoRA -> merge -> int4, cold: drupe against Olive, on a random 4-layer Phi-3 of 6M parameters.

    python benchmarks/chain.py [--olive PATH_OF_OLIVE] [--runs 3]

Olive 0.13 lives in an environment of its own (olive-ai==0.13.0 with requests,
onnxruntime-genai==0.14.1, peft, datasets, bitsandbytes). The same rows, rank, steps and block
length; every run starts with an empty cache. The two run in turns; medians and their ratio are
printed. Neither evaluates; drupe's time includes its two proofs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

EXAMPLE = Path(__file__).parent.parent / "examples" / "phi3-emotion"
DRUPE = str(Path(sys.executable).parent / "drupe")
TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
TRAINING = {
    "seed": 0,
    "data_seed": 42,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": False,
    "learning_rate": 1e-4,
    "max_steps": 10,
    "logging_steps": 10,
    "optim": "adamw_torch",
}
TARGETS = ["o_proj", "qkv_proj"]


def make_model(folder: Path) -> int:
    """Write the random checkpoint with the example's tokenizer; return its parameter count."""
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        vocab_size=1540, hidden_size=320, intermediate_size=896, num_hidden_layers=4,
        num_attention_heads=10, num_key_value_heads=10, max_position_embeddings=512,
        original_max_position_embeddings=512, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    model = transformers.Phi3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    for file in (EXAMPLE / "model").glob("tokenizer*"):
        shutil.copy(file, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def drupe_config(scratch: Path) -> dict[str, object]:
    """Return the job in drupe's words."""
    return {
        "input_model": {"type": "HfModel", "model_path": "model"},
        "data_configs": [
            {
                "name": "train",
                "load_dataset_config": {"data_name": "json", "data_files": "train.json"},
                "pre_process_data_config": {
                    "text_template": TEMPLATE, "text_cols": ["phrase", "tone"],
                    "strategy": "join", "max_seq_len": 256, "use_attention_mask": False,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA", "r": 64, "alpha": 64, "lora_dropout": 0.1,
                "target_modules": TARGETS, "train_data_config": "train",
                "training_args": TRAINING,
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": "output"},
    }  # fmt: skip


def olive_config(scratch: Path) -> dict[str, object]:
    """Return the same job in Olive's words of today."""
    return {
        "input_model": {"type": "HfModel", "model_path": str(scratch / "model")},
        "systems": {
            "here": {
                "type": "LocalSystem",
                "accelerators": [
                    {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
                ],
            }
        },
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "data_name": "json", "data_files": str(scratch / "train.json"),
                    "split": "train",
                },
                "pre_process_data_config": {
                    "text_template": TEMPLATE, "text_cols": ["phrase", "tone"],
                    "strategy": "join", "max_seq_len": 256,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA", "r": 64, "alpha": 64, "lora_dropout": 0.1,
                "target_modules": TARGETS, "train_data_config": "train",
                "torch_dtype": "bfloat16", "training_args": TRAINING,
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "host": "here",
        "target": "here",
        "cache_dir": str(scratch / "olive-cache"),
        "output_dir": str(scratch / "olive-output"),
    }  # fmt: skip


def cold(command: list[str], scratch: Path, expected: str) -> float:
    """Return the wall time of one run from an empty cache; check that a model came out."""
    for name in ("cache", "output", "olive-cache", "olive-output"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "CI": "1"}, cwd=scratch
    )
    seconds = time.perf_counter() - started
    if done.returncode or not list(scratch.glob(expected)):
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


def repeated(command: list[str], scratch: Path) -> float:
    """Return the wall time of a run of which all is cached."""
    started = time.perf_counter()
    environment = {**os.environ, "CI": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=scratch)
    return time.perf_counter() - started


def main() -> None:
    """Measure in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--olive", help="path of the olive command")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="drupe-chain-"))
    count = make_model(scratch / "model")
    print(f"{count / 1e6:.1f}M parameters")
    shutil.copy(EXAMPLE / "dataset" / "dataset-classification.json", scratch / "train.json")
    (scratch / "drupe.json").write_text(json.dumps(drupe_config(scratch)))
    (scratch / "olive.json").write_text(json.dumps(olive_config(scratch)))
    commands = {"drupe": ([DRUPE, "run", "drupe.json"], "output/**/model.onnx")}
    if arguments.olive:
        olive = [arguments.olive, "run", "--config", "olive.json"]
        commands["olive"] = (olive, "olive-output/**/model.onnx")
    times: dict[str, list[float]] = {name: [] for name in commands}
    again: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.runs):
        for name, (command, expected) in commands.items():
            times[name].append(cold(command, scratch, expected))
            again[name].append(repeated(command, scratch))
    for name in commands:
        for what, values in (("cold", times[name]), ("all cached", again[name])):
            shown = ", ".join(f"{seconds:.2f}" for seconds in sorted(values))
            print(f"{name}, {what}: {statistics.median(values):.2f} s ({shown})")
    if "olive" in times:
        ratio = statistics.median(times["drupe"]) / statistics.median(times["olive"])
        print(f"drupe / olive: {ratio:.2f}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
