"""Train a small byte-level Llama on this repository's own text, for measurements of quality.

    python benchmarks/small_llama.py FOLDER [--seed 0] [--steps 500]

Writes a Hugging Face checkpoint in float32: 1.7M parameters, a token a byte. Random weights tell
nothing of what rounding costs a model; these have learnt to spell, and something of how Python and
English go on. One file of text in ten is held out. The seed draws the weights and the order of the
text; the held-out files are the same for all.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
import zlib
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parents[1]
LENGTH, BATCH = 256, 16
PEAK_RATE, WARM_STEPS = 2e-3, 50
STEPS = 500
THREADS = 2


def text(*, held_out: bool) -> torch.Tensor:
    """Return the bytes of the repository's Markdown and Python, one file behind the other."""
    words = ["git", "ls-files", "-z", "*.md", "*.py"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = sorted(filter(None, listed.split("\0")))
    chosen = [name for name in names if (zlib.crc32(name.encode()) % 10 == 0) == held_out]
    content = b"\n\n".join((ROOT / name).read_bytes() for name in chosen)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).long()


def train(seed: int, steps: int) -> LlamaForCausalLM:
    """Return a model that was trained for so many steps of BATCH x LENGTH bytes."""
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=False,
        )
    )
    matrices = [each for each in network.parameters() if each.dim() > 1]
    vectors = [each for each in network.parameters() if each.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95))
    learnt = text(held_out=False)
    begun = time.perf_counter()
    for step in range(steps):
        warm = min(1.0, (step + 1) / WARM_STEPS)
        rate = PEAK_RATE * warm * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(learnt) - LENGTH, (BATCH,))
        batch = torch.stack([learnt[start : start + LENGTH] for start in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.perf_counter() - begun
            print(f"seed {seed}, step {step}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    return network.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    train(arguments.seed, arguments.steps).save_pretrained(arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
