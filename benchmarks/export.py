"""What does an int4 export take, beside ONNX Runtime GenAI's builder; how fast is what it gives?

    python benchmarks/export.py --shape llama-3.2-1b [--precision int4] [--peer] [--decode] [--cold]
                                [--folder FOLDER]

Makes a random bfloat16 checkpoint of a real model's shape and exports it in a child, whose
anonymous memory (what it holds and nobody can take back) is sampled every 10 ms. `--peer` has the
builder export the same files. `--cold` has the files read from disk. `--decode` has ONNX Runtime
GenAI generate by each folder, in turns: the builder's as it is written, and with as many threads
as drupe names; beside it stands which share of the memory's bandwidth reading the weights takes.
The builder takes about 6 bytes of memory a parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import Measured, measure, ready
from random_checkpoints import SHAPES, make

MEGABYTE, GIGABYTE = 10**6, 10**9
EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"
LOOKED_UP = ("Gather", "GatherBlockQuantized", "GroupQueryAttention")  # the last: turning angles
PROMPT_TOKENS, NEW_TOKENS, TURNS = 64, 48, 3


def work_drupe(checkpoint: Path, out: Path, precision: str) -> None:
    """Export with drupe; waits for a line on stdin when all is imported."""
    from drupe.core.job import Job
    from drupe.core.model import Model
    from drupe.core.process import usable_cores
    from drupe.core.target import Target
    from drupe.export import native
    from drupe.export.passes import ExportGenAI

    ready()
    threads = usable_cores()
    step = ExportGenAI.model_validate({"precision": precision, "target": Target(threads=threads)})
    job = Job(out.with_name(f"{out.name}-scratch"), threads=threads)
    native.export(step, Model("hf", checkpoint, ""), out, job)


def work_builder(checkpoint: Path, out: Path, precision: str) -> None:
    """Export with the builder, in the same way; its own check is none."""
    import runpy

    import onnx_ir  # noqa: F401  what it imports
    import onnxruntime_genai  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    ready()
    cache = out.with_name(f"{out.name}-cache")
    words = ["-i", checkpoint, "-o", out, "-c", cache, "-p", precision, "-e", "cpu"]
    sys.argv = ["builder", *map(str, words)]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")


def exported(program: str, checkpoint: Path, out: Path, precision: str) -> Measured:
    """Run `program` in a child and sample its memory."""
    out.mkdir()
    command = [sys.executable, __file__, "--work", program, "--precision", precision]
    return measure([*command, "--folder", str(checkpoint), "--out", str(out)])


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def forget(folder: Path) -> None:
    """Have the system drop a folder's files from its memory."""
    os.sync()
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tokens_per_second(folder: Path) -> float:
    """Return how fast ONNX Runtime GenAI generates by a folder, in a process of its own."""
    command = [sys.executable, __file__, "--work", "decode", "--folder", str(folder)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(said.split()[-1])


def work_decode(folder: Path) -> None:
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    parameters = onnxruntime_genai.GeneratorParams(model)
    most = PROMPT_TOKENS + NEW_TOKENS
    parameters.set_search_options(do_sample=False, max_length=most, min_length=most)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(list(range(5, 5 + PROMPT_TOKENS)))
    generator.generate_next_token()
    begun = time.perf_counter()
    count = 0
    while not generator.is_done():
        generator.generate_next_token()
        count += 1
    print(count / (time.perf_counter() - begun))


def with_threads(folder: Path, threads: int) -> Path:
    """Return a copy of a folder whose settings name a number of threads; weights are linked."""
    copy = folder.with_name(f"{folder.name}-{threads}-threads")
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            os.link(file, copy / file.name)
    file = copy / "genai_config.json"
    settings = json.loads(file.read_text())
    settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    file.unlink()
    file.write_text(json.dumps(settings))
    return copy


def bytes_read(folder: Path) -> int:
    """Return how many bytes of weights a token reads; tables, of which it takes a row, aside."""
    import onnx_ir

    def is_read(value: onnx_ir.Value) -> bool:
        return any(node.op_type not in LOOKED_UP for node, _ in value.uses())

    graph = onnx_ir.load(folder / "model.onnx").graph
    values = [value for value in graph.initializers.values() if is_read(value)]
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def bandwidth() -> float:
    """Return the bytes a second that all cores read from memory, the best of some turns."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    values = torch.zeros(2**27, dtype=torch.int64)  # 1 GiB
    found = []
    for _ in range(6):
        begun = time.perf_counter()
        values.max()
        found.append(values.nbytes / (time.perf_counter() - begun))
    return max(found)


def decode(folders: dict[str, Path]) -> None:
    """Print tokens a second of each folder, the median of turns."""
    ceiling = bandwidth()
    print(f"memory is read at {ceiling / GIGABYTE:.1f} GB/s")
    found: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(TURNS):
        for name, folder in folders.items():
            found[name].append(tokens_per_second(folder))
    for name, each in found.items():
        rate = statistics.median(each)
        read = rate * bytes_read(folders[name])
        print(
            f"decode {name:24} {rate:7.1f} tokens/s, {read / GIGABYTE:5.1f} GB/s of weights, "
            f"{read / ceiling:.0%} of what memory gives"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--peer", action="store_true", help="the builder too")
    parser.add_argument("--decode", action="store_true", help="generate by what was exported")
    parser.add_argument("--cold", action="store_true", help="read the checkpoint from disk")
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    parser.add_argument("--work", choices=("drupe", "builder", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work == "decode":
        work_decode(arguments.folder)
        return 0
    if arguments.work:
        work = {"drupe": work_drupe, "builder": work_builder}[arguments.work]
        work(arguments.folder, arguments.out, arguments.precision)
        return 0
    shape = SHAPES[arguments.shape]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="export-") as name:
        checkpoint = Path(name) / "checkpoint"
        make(shape, checkpoint, EXAMPLE)
        os.sync()  # else the first to be measured waits for the disk
        source = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
        print(f"{arguments.shape}: {source / 2e9:.2f}B parameters, {source / GIGABYTE:.2f} GB")
        results = {}
        for program in ("drupe", "builder") if arguments.peer else ("drupe",):
            if arguments.cold:
                forget(checkpoint)
            out = Path(name) / program
            found = results[program] = exported(program, checkpoint, out, arguments.precision)
            print(
                f"{program:8} {found.seconds:6.1f} s  peak {found.peak / MEGABYTE:6.0f} MB "
                f"(imports {found.imports / MEGABYTE:.0f})  "
                f"{size_of(out) / GIGABYTE:.2f} GB written"
            )
        if arguments.peer:
            ours, theirs = results["drupe"], results["builder"]
            print(f"time {ours.seconds / theirs.seconds:.2f} of the builder's")
            print(f"memory {ours.peak / theirs.peak:.3f} of the builder's")
        if arguments.decode:
            folders = {"drupe": Path(name) / "drupe"}
            if arguments.peer:
                builder = Path(name) / "builder"
                folders["builder as it ships"] = builder
                threads = len(os.sched_getaffinity(0))
                folders[f"builder, {threads} threads"] = with_threads(builder, threads)
            decode(folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
