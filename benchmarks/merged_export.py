"""What does it save to merge an adapter while exporting, beside writing the merged checkpoint?

    python benchmarks/merged_export.py --shape qwen2.5-0.5b [--precision int4] [--nf4] [--turns 3]
                                       [--folder FOLDER]

Makes a random bfloat16 checkpoint of a real model's shape and an adapter of rank 16 on all linear
layers, and exports base + adapter in both ways, each in children whose anonymous memory is sampled
every 10 ms: in one step, and in two, the merged checkpoint between them. Both give the same bytes,
which is checked. `--nf4`: the adapter was trained on a base in 4 bits, which is read back.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from memory import Measured, measure, ready
from random_checkpoints import SHAPES, make

MEGABYTE, GIGABYTE = 10**6, 10**9
EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"
RANK = 16


def make_adapter(base: Path, folder: Path, *, nf4: bool) -> None:
    """Write an adapter with random matrices for each linear layer of a base."""
    import torch
    from safetensors.torch import save_file

    from drupe.checkpoint.header import headers
    from drupe.checkpoint.quantized_base import QuantizedBase

    folder.mkdir()
    specs = {spec.name: spec.shape for spec in headers(base) if "_proj.weight" in spec.name}
    matrices = {}
    for name, (rows, columns) in specs.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        matrices[f"{prefix}.lora_A.weight"] = torch.randn(RANK, columns) * 0.02
        matrices[f"{prefix}.lora_B.weight"] = torch.randn(rows, RANK) * 0.02
    save_file(matrices, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": []}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if nf4:
        modules = tuple(name.removesuffix(".weight") for name in specs)
        QuantizedBase("nf4", True, "bfloat16", "bfloat16", modules).write(folder)


def work(program: str, folder: Path, out: Path, precision: str) -> None:
    """Do one step in this process; waits for a line on stdin when all is imported."""
    from drupe.core.job import Job
    from drupe.core.merging import Merging
    from drupe.core.model import Model
    from drupe.core.process import usable_cores
    from drupe.core.target import Target
    from drupe.export import native
    from drupe.export.passes import ExportGenAI
    from drupe.finetune.merge import merge
    from drupe.finetune.passes import MergeAdapterWeights

    if (folder / "adapter" / "quantized_base.json").is_file():
        import drupe.checkpoint.four_bit  # noqa: F401  it is imported before the clock starts
    ready()
    threads = usable_cores()
    job = Job(out.with_name(f"{out.name}-scratch"), threads=threads)
    adapter = Model("hf-adapter", folder / "adapter", "", Model("hf", folder / "base", ""))
    if program == "merge":
        merge(MergeAdapterWeights(), adapter, out, job)
        return
    merging = Merging() if program == "both" else None
    model = adapter if program == "both" else Model("hf", folder / "merge", "")
    fields = {"precision": precision, "target": Target(threads=threads), "merging": merging}
    native.export(ExportGenAI.model_validate(fields), model, out, job)


def done(program: str, folder: Path, precision: str) -> Measured:
    """Do one step in a child and sample its memory."""
    out = folder / program
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()  # else it waits for what was written before
    command = [sys.executable, __file__, "--work", program, "--precision", precision]
    return measure([*command, "--folder", str(folder)])


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--nf4", action="store_true", help="a base in 4 bits, read back")
    parser.add_argument("--turns", type=int, default=3, help="of which the median is told")
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    parser.add_argument("--work", choices=("both", "merge", "export"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        out = arguments.folder / arguments.work
        work(arguments.work, arguments.folder, out, arguments.precision)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="merged-export-") as name:
        folder = Path(name)
        make(SHAPES[arguments.shape], folder / "base", EXAMPLE)
        make_adapter(folder / "base", folder / "adapter", nf4=arguments.nf4)
        programs = ("both", "merge", "export")
        found: dict[str, list[Measured]] = {program: [] for program in programs}
        for _ in range(arguments.turns):
            for program in programs:
                found[program].append(done(program, folder, arguments.precision))
        seconds = {
            program: statistics.median(each.seconds for each in found[program])
            for program in programs
        }
        peaks = {program: max(each.peak for each in found[program]) for program in programs}
        disk = {program: size_of(folder / program) for program in programs}
        print(f"{arguments.shape}, {size_of(folder / 'base') / GIGABYTE:.2f} GB")
        for program in programs:
            print(
                f"{program:7} {seconds[program]:6.1f} s  peak {peaks[program] / MEGABYTE:6.0f} MB "
                f"(imports {found[program][0].imports / MEGABYTE:.0f})  "
                f"{disk[program] / GIGABYTE:.2f} GB written"
            )
        data = "model.onnx.data"
        if not filecmp.cmp(folder / "both" / data, folder / "export" / data, shallow=False):
            raise SystemExit("the two ways give other bytes")
        in_two = seconds["merge"] + seconds["export"]
        most = max(peaks["merge"], peaks["export"])
        written = disk["merge"] + disk["export"]
        print(
            f"in one step, of two: {seconds['both'] / in_two:.2f} of the time, "
            f"{peaks['both'] / most:.2f} of the memory, {disk['both'] / written:.2f} of the disk; "
            "the same bytes"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
