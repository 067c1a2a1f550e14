"""How does the memory of an int4 export grow with the model, and within which limit does it pass?

    python benchmarks/export_memory.py [--shapes smollm2-135m qwen2.5-0.5b llama-3.2-1b]
                                       [--folder FOLDER]

Random bfloat16 checkpoints of real models' shapes are made one after the other, and removed. Each
is exported in a child, in which two things are told apart: that drupe writes the folder, and that
ONNX Runtime GenAI loads it and answers, by which each export ends. Of both the child's anonymous
memory is sampled every 5 ms; behind the last shape stand the slopes over all of them, in bytes a
parameter.

While drupe writes, the child is held (by RLIMIT_DATA, which counts what is not touched, too) to
what it has after its imports, and the largest tensor, and 256 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from memory import measure, ready
from random_checkpoints import SHAPES, make, tensors

MEGABYTE = 10**6
EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"
SIZES = ("smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b")
ROOM = 256 * 2**20
THREADS = 2
SAMPLE_SECONDS = 0.005


class Watch:
    """The most that this process had since `since` was last called, sampled by a thread."""

    def __init__(self) -> None:
        self._most = self.now()
        threading.Thread(target=self._sample, daemon=True).start()

    @staticmethod
    def now() -> dict[str, int]:
        """Return the bytes of anonymous memory, and of what RLIMIT_DATA counts."""
        lines = Path("/proc/self/status").read_text().splitlines()
        told = dict(line.split(":", 1) for line in lines)
        return {name: int(told[name].split()[0]) * 1024 for name in ("RssAnon", "VmData")}

    def _sample(self) -> None:
        while True:
            now = self.now()
            self._most = {name: max(now[name], most) for name, most in self._most.items()}
            time.sleep(SAMPLE_SECONDS)

    def since(self) -> dict[str, int]:
        found, self._most = self._most, self.now()
        return found


def work(checkpoint: Path, out: Path, allowed: int) -> None:
    """Export, and write down what it took; allowed: bytes above the imports while drupe writes."""
    import onnxruntime_genai  # noqa: F401  what it imports

    from drupe.core.job import Job
    from drupe.core.model import Model
    from drupe.core.target import Target
    from drupe.export import native
    from drupe.export.passes import ExportGenAI

    ready()
    watch = Watch()
    found = {"imports": watch.now()}
    load_and_ask = native.check_result

    def between(*arguments: Any) -> None:
        found["written"] = watch.since()
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        load_and_ask(*arguments)
        found["loaded"] = watch.since()

    native.check_result = between
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (found["imports"]["VmData"] + allowed, hard))
    step = ExportGenAI.model_validate({"precision": "int4", "target": Target(threads=THREADS)})
    job = Job(out.with_name(f"{out.name}-scratch"), threads=THREADS)
    native.export(step, Model("hf", checkpoint, ""), out, job)
    (out.parent / "found.json").write_text(json.dumps(found))


def exported(name: str, allowed: int, folder: Path | None) -> dict[str, dict[str, int]]:
    """Export a checkpoint of a shape in a child; return what it took."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="memory-") as made:
        checkpoint, out = Path(made) / "checkpoint", Path(made) / "out"
        make(SHAPES[name], checkpoint, EXAMPLE)
        out.mkdir()
        os.sync()
        command = [sys.executable, __file__, "--work", "--allowed", str(allowed)]
        measure([*command, "--folder", str(checkpoint), "--out", str(out)])
        found: dict[str, dict[str, int]] = json.loads((Path(made) / "found.json").read_text())
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SIZES)
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--allowed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.folder, arguments.out, arguments.allowed)
        return 0
    sizes: list[int] = []
    peaks: dict[str, list[int]] = {"written": [], "loaded": []}
    for name in arguments.shapes:
        shapes = tensors(SHAPES[name]).values()
        largest = 2 * max(map(math.prod, shapes))
        found = exported(name, largest + ROOM, arguments.folder)
        sizes.append(sum(map(math.prod, shapes)))
        print(f"{name}: {sizes[-1] / 1e9:.3f}B parameters")
        for part, each in peaks.items():
            each.append(found[part]["RssAnon"])
            above = each[-1] - found["imports"]["RssAnon"]
            print(
                f"  {part}: peak {each[-1] / MEGABYTE:.0f} MB, "
                f"{above / MEGABYTE:.0f} above the imports"
            )
        data = found["written"]["VmData"] - found["imports"]["VmData"]
        print(
            f"  written within the imports and {(largest + ROOM) / MEGABYTE:.0f} MB (largest "
            f"tensor {largest / MEGABYTE:.0f} + {ROOM / MEGABYTE:.0f}), of which it took "
            f"{data / MEGABYTE:.0f}",
            flush=True,
        )
    if len(sizes) > 1:
        for part, each in peaks.items():
            slope, _ = np.polyfit(sizes, each, 1)
            print(f"slope over {len(sizes)} sizes, {part}: {slope:.3f} bytes a parameter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
