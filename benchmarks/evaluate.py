"""How long does it take to judge an exported model, beside its checkpoint in torch?

    python benchmarks/evaluate.py --shape qwen2.5-0.5b [--questions 12] [--tokens 64] [--turns 3]
                                  [--folder FOLDER]

Makes a random bfloat16 checkpoint of a real model's shape, exports it in fp32 and int4, and gives
the same items to four runtimes, in turns, all in one process: torch in float32, torch in bfloat16,
ONNX Runtime in float32 and in int4. Two kinds of items: choices (a prompt with four answers of one
to four tokens, as Accuracy and lm-eval's multiple choice ask) and texts (each token of a row, as
Perplexity asks). The figures: the median of the turns, and its ratio to torch in float32, of
which the worst and best turn in brackets. The weights are random: time is told, no quality.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")

from random_checkpoints import SHAPES, make

EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"


def items(questions: int, tokens: int, vocabulary: int) -> tuple[list[Any], list[list[int]]]:
    """Return what is asked: prompts with their answers, and texts of the same tokens."""
    from drupe.evaluate.scoring import Asked

    chance = random.Random(0)

    def drawn(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(10, min(vocabulary, 4000)) for _ in range(length))

    asked, texts = [], []
    for _ in range(questions):
        prompt = drawn(chance.randrange(tokens - 8, tokens + 9, 4))
        asked += [Asked(prompt, drawn(chance.randint(1, 4))) for _ in range(4)]
        texts.append(list(prompt))
    return asked, texts


def opened(checkpoint: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Return the runtimes by their names, the exports made."""
    import torch

    from drupe.core.job import Job
    from drupe.core.model import Model
    from drupe.core.target import Target
    from drupe.evaluate.runtimes import OnnxRuntime, TorchRuntime
    from drupe.export import native
    from drupe.export.passes import ExportGenAI

    model = Model("hf", checkpoint, "")
    found: dict[str, Any] = {
        "torch float32": TorchRuntime(model, threads, torch.float32),
        "torch bfloat16": TorchRuntime(model, threads, torch.bfloat16),
    }
    for precision in ("fp32", "int4"):
        out = folder / precision
        if not (out / "genai_config.json").is_file():
            out.mkdir(exist_ok=True)
            step = ExportGenAI.model_validate({"precision": precision, "target": Target()})
            native.export(step, model, out, Job(folder / f"{precision}-scratch", threads=threads))
        deployed = Model("onnx-genai", out, "")
        found[f"onnx {precision}"] = OnnxRuntime(deployed, "CPUExecutionProvider", threads)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the models there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        checkpoint = folder / arguments.shape
        if not (checkpoint / "config.json").is_file():
            make(SHAPES[arguments.shape], checkpoint, EXAMPLE)
        measure(checkpoint, folder, arguments)


def measure(checkpoint: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Give the items to each runtime in turns."""
    from drupe.core.process import usable_cores
    from drupe.evaluate.scoring import likelihoods

    runtimes = opened(checkpoint, folder, usable_cores())
    vocabulary = next(iter(runtimes.values())).vocabulary
    asked, texts = items(arguments.questions, arguments.tokens, vocabulary)

    def read(runtime: Any) -> None:
        for batch in runtime.batches(texts):
            runtime.logits([texts[index] for index in batch])

    kinds: dict[str, Callable[[Any], Any]] = {
        "choices": lambda runtime: likelihoods(runtime, asked),
        "texts": read,
    }
    for kind, work in kinds.items():
        seconds: dict[str, list[float]] = {name: [] for name in runtimes}
        for turn in range(arguments.turns + 1):
            for name, runtime in runtimes.items():
                began = time.perf_counter()
                work(runtime)
                if turn:  # the first warms up
                    seconds[name].append(time.perf_counter() - began)
        first = seconds["torch float32"]
        print(f"{kind}: {arguments.questions} rows of about {arguments.tokens} tokens")
        for name, found in seconds.items():
            ratios = sorted(ours / theirs for ours, theirs in zip(found, first, strict=True))
            print(
                f"  {name:15} {statistics.median(found):7.2f} s  "
                f"x{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
