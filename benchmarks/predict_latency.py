"""Is what is foretold of an export what the export then takes: size, memory, time?

    python benchmarks/predict_latency.py [--shape smollm2-135m ...] [--folder FOLDER]
                                         [--prompt-length 64] [--new-tokens 32] [--repeats 10]
                                         [--threads N]

Random bfloat16 checkpoints of real models' shapes. Of each export (precision, block size, zero
points, accuracy level) size, memory and time are foretold, operators measured anew; then it is
exported, loaded in a process of its own and asked, all exports in turns. Two sessions (the first
and the last export of the list) correct the times of the others; those two are marked with a star.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from random_checkpoints import SHAPES, make

from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.process import usable_cores
from drupe.core.target import Target
from drupe.cost.correction import corrected_by
from drupe.cost.prediction import Prediction, Predictor
from drupe.evaluate.answer_times import latency_numbers
from drupe.evaluate.timed import Asked, Generation, Timed, in_turns
from drupe.export import native
from drupe.export.passes import ExportGenAI
from drupe.systems.worker import ENVIRONMENT

EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"
EXPORTS: dict[str, dict[str, Any]] = {
    "int4": {"precision": "int4"},
    "int4, blocks of 128": {"precision": "int4", "int4_block_size": 128},
    "int4, zero points": {"precision": "int4", "int4_is_symmetric": False},
    "int4, level 1": {"precision": "int4", "int4_accuracy_level": 1},
    "int8": {"precision": "int8"},
    "fp32": {"precision": "fp32"},
}


def folder_of(root: Path, name: str) -> Path:
    return root / name.replace(", ", "-").replace(" ", "-")


def exported(model: Model, steps: dict[str, ExportGenAI], root: Path) -> None:
    for name, step in steps.items():
        out = folder_of(root, name)
        if not out.exists():
            out.mkdir()
            native.export(step, model, out, Job(root / "scratch", threads=usable_cores()))


def sessions(names: list[str], root: Path, asked: Asked) -> dict[str, tuple[list[Generation], int]]:
    """Return the answers and the peak memory of each export."""
    environment = {**os.environ, **ENVIRONMENT}
    with ExitStack() as opened:
        timed = [
            opened.enter_context(
                Timed(Model("onnx-genai", folder_of(root, name), ""), 0, environment)
            )
            for name in names
        ]
        answers = in_turns(timed, asked)
    return {
        name: (each, process.peak)
        for name, each, process in zip(names, answers, timed, strict=True)
    }


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def told(name: str, foretold: float, measured: float, unit: str) -> str:
    return (
        f"{name} {foretold:8.4g} {measured:8.4g} {unit} {100 * (foretold / measured - 1):+6.1f} %"
    )


def compare(shape: str, root: Path, asked: Asked, threads: int) -> list[float]:
    """Print a line an export; return the relative errors of the corrected times of a token."""
    checkpoint = root / "checkpoint"
    if not checkpoint.exists():
        make(SHAPES[shape], checkpoint, EXAMPLE)
    model = Model("hf", checkpoint, "")
    target = Target(threads=threads)
    steps = {name: ExportGenAI(target=target, **fields) for name, fields in EXPORTS.items()}
    begun = time.perf_counter()
    predictor = Predictor(model, asked.prompt_length, asked.new_tokens, sessions=())
    foretold = dict(zip(steps, predictor.all(list(steps.values())), strict=True))
    print(f"{shape}: foretold in {time.perf_counter() - begun:.1f} s, operators measured")
    exported(model, steps, root)
    found = sessions(list(steps), root, asked)
    times = {name: latency_numbers(answers) for name, (answers, _) in found.items()}
    seconds = {
        name: (each["first_token"].value / 1000, each["per_token"].value / 1000)
        for name, each in times.items()
    }
    taken = next(iter(steps)), list(steps)[-1]
    correction = corrected_by([foretold[name].session(*seconds[name]) for name in taken])
    print(f"  {correction.reason}")
    errors = []
    for name, prediction in foretold.items():
        corrected = Prediction(**{**vars(prediction), "correction": correction})
        first, token = (1000 * each for each in seconds[name])
        peak, size = found[name][1], size_of(folder_of(root, name))
        star = "*" if name in taken else " "
        print(f" {star}{name}")
        print(f"    {told('per token, summed    ', prediction.ms_per_token or 0, token, 'ms')}")
        print(f"    {told('per token, corrected ', corrected.ms_per_token or 0, token, 'ms')}")
        print(f"    {told('first token, summed  ', prediction.ms_first_token or 0, first, 'ms')}")
        print(f"    {told('first token, corrected', corrected.ms_first_token or 0, first, 'ms')}")
        held = (prediction.memory_bytes or 0) / 1e6
        print(f"    {told('memory               ', held, peak / 1e6, 'MB')}")
        is_equal = "equal" if prediction.size_bytes == size else "DIFFERENT"
        print(f"    size                   {prediction.size_bytes} {size} bytes, {is_equal}")
        if name not in taken:
            errors.append((corrected.ms_per_token or 0) / token - 1)
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["smollm2-135m"])
    parser.add_argument("--folder", type=Path, help="keeps checkpoints and exports")
    parser.add_argument("--prompt-length", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=usable_cores())
    arguments = parser.parse_args()
    asked = Asked(arguments.prompt_length, arguments.new_tokens, arguments.repeats, 1, 0.0, 600.0)
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        os.environ["DRUPE_TIMES"] = str(Path(name) / "times")  # measured anew
        errors = []
        for shape in arguments.shape:
            root = (arguments.folder or Path(name)) / f"{shape}-{arguments.threads}-threads"
            root.mkdir(parents=True, exist_ok=True)
            errors += compare(shape, root, asked, arguments.threads)
    print(
        f"time of a token, of {len(errors)} exports that corrected nothing: median error "
        f"{100 * statistics.median(map(abs, errors)):.1f} %, largest "
        f"{100 * max(map(abs, errors)):.1f} %"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
