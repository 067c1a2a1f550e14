"""How much memory does the merge of a LoRA adapter take, beside the size of the model?

    python benchmarks/merge_memory.py --parameters 1B [--peft] [--folder FOLDER]

Makes a random bfloat16 Phi-3 in ONE shard and an adapter of rank 16 on all linear layers, merges
them in a child process and samples that process's anonymous memory (what it holds and nobody can
take back: mapped files are not in it) every 10 ms. `--peft` merges the same with PEFT's
merge_and_unload. A model of N parameters takes 4 N bytes of disk while this runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memory import Measured, measure, ready
from random_checkpoints import write_random

MEGABYTE = 10**6
ALLOWANCE_BYTES = 256 * MEGABYTE
RANK = 16
SEED = 0


@dataclass(frozen=True)
class Size:
    hidden: int
    intermediate: int
    layers: int
    heads: int


# 3.8B: the shapes of microsoft/Phi-3-mini-4k-instruct.
SIZES = {
    "0.5B": Size(1536, 4096, 14, 16),
    "1B": Size(2048, 5632, 17, 16),
    "3.8B": Size(3072, 8192, 32, 32),
}
VOCABULARY = 32064


def linear_shapes(size: Size) -> dict[str, tuple[int, int]]:
    """Return (out, in) of the linear layers of one Phi-3 block."""
    return {
        "self_attn.qkv_proj": (3 * size.hidden, size.hidden),
        "self_attn.o_proj": (size.hidden, size.hidden),
        "mlp.gate_up_proj": (2 * size.intermediate, size.hidden),
        "mlp.down_proj": (size.hidden, size.intermediate),
    }


def base_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors by their names."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, size.hidden)}
    for layer in range(size.layers):
        prefix = f"model.layers.{layer}."
        for name, shape in linear_shapes(size).items():
            shapes[f"{prefix}{name}.weight"] = shape
        shapes[f"{prefix}input_layernorm.weight"] = (size.hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (size.hidden,)
    return {
        **shapes,
        "model.norm.weight": (size.hidden,),
        "lm_head.weight": (VOCABULARY, size.hidden),
    }


def make(size: Size, folder: Path) -> None:
    """Write folder/base and folder/adapter."""
    import torch
    from transformers import Phi3Config

    torch.manual_seed(SEED)
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    Phi3Config(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        architectures=["Phi3ForCausalLM"],
        dtype="bfloat16",
        pad_token_id=0,
    ).save_pretrained(base)
    write_random(base, base_shapes(size), 0.02, shard_bytes=2**62)
    sides = {}
    for layer in range(size.layers):
        for name, (outputs, inputs) in linear_shapes(size).items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            sides[f"{prefix}.lora_A.weight"] = (RANK, inputs)
            sides[f"{prefix}.lora_B.weight"] = (outputs, RANK)
    write_random(adapter, sides, 0.02, shard_bytes=2**62)
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    targets = [name.rpartition(".")[2] for name in linear_shapes(size)]
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": targets}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))


def work_drupe(folder: Path, out: Path) -> None:
    """Merge with drupe; waits for a line on stdin when all is imported."""
    from drupe.core.job import Job
    from drupe.core.model import Model
    from drupe.core.process import usable_cores
    from drupe.finetune.merge import merge
    from drupe.finetune.passes import MergeAdapterWeights

    ready()
    adapter = Model("hf-adapter", folder / "adapter", "", Model("hf", folder / "base", ""))
    merge(MergeAdapterWeights(), adapter, out, Job(folder, threads=usable_cores()))


def work_peft(folder: Path, out: Path) -> None:
    """Merge with PEFT's merge_and_unload; waits for a line on stdin when all is imported."""
    import peft
    import torch
    import transformers

    ready()
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged = peft.PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    merged.save_pretrained(out)


def merged(program: str, folder: Path) -> Measured:
    """Run `program` in a child and sample its memory."""
    (folder / f"out-{program}").mkdir()
    return measure([sys.executable, __file__, "--work", program, "--folder", str(folder)])


def report(program: str, measured: Measured, model_bytes: int, largest: int) -> None:
    above = measured.peak - measured.imports
    print(
        f"{program:6} peak {measured.peak / MEGABYTE:8.0f} MB"
        f" (imports {measured.imports / MEGABYTE:.0f} + {above / MEGABYTE:.0f})"
        f"  {measured.seconds:6.1f} s  {model_bytes / MEGABYTE / measured.seconds:6.0f} MB/s"
    )
    if program == "drupe":
        bound = measured.imports + 3 * largest + ALLOWANCE_BYTES
        verdict = "kept" if measured.peak <= bound else "BROKEN"
        print(f"       bound imports + 3 x largest + 256 MB = {bound / MEGABYTE:.0f} MB: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", choices=SIZES, default="0.5B")
    parser.add_argument("--peft", action="store_true", help="merge with PEFT too")
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    parser.add_argument("--work", choices=("drupe", "peft"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work = {"drupe": work_drupe, "peft": work_peft}[arguments.work]
        work(arguments.folder, arguments.folder / f"out-{arguments.work}")
        return 0
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    size = SIZES[arguments.parameters]
    shapes = [shape for shape in base_shapes(size).values() if len(shape) == 2]
    largest = 2 * max(rows * columns for rows, columns in shapes)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="merge-") as name:
        folder = Path(name)
        make(size, folder)
        os.sync()  # else the first to be measured waits for the disk
        model_bytes = (folder / "base" / "model.safetensors").stat().st_size
        print(
            f"Phi-3 of {model_bytes / 2e9:.2f}B parameters, bfloat16, one shard of "
            f"{model_bytes / MEGABYTE:.0f} MB, largest tensor {largest / MEGABYTE:.0f} MB"
        )
        for program in ("drupe", "peft") if arguments.peft else ("drupe",):
            report(program, merged(program, folder), model_bytes, largest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
