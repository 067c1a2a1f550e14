"""How fast are weights rounded, and what does it cost them, beside ONNX Runtime's and Olive's ways?

    python benchmarks/quantize.py [--olive PYTHON] [--rounds 3]

Three things on the same random bfloat16 weights (heavy tails, as trained ones have), in turns:

- rounding to nearest with packing, symmetric int4, beside ONNX Runtime's kernel on the same rows;
- the least squared error (asymmetric int4) beside ONNX Runtime's `k_quant` and Olive's `KQuant`
  (PYTHON: the interpreter of an environment that has Olive), by time;
- the squared errors of all of them, relative to asymmetric rounding to nearest.

Ours is called as the exporter calls it: two threads, each on 128 rows at a time. Olive's and ONNX
Runtime's functions are timed alone, without what their passes do around them. Beside the wall time
stands that of the processors: on a machine that others use too, the steadier of the two.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_4bits
from onnxruntime.quantization.neural_compressor import weight_only

from drupe.quantize.codes import Packed, Rounded, dequantize, pack, unpack
from drupe.quantize.grid import Grid
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

ROWS = 128
THREADS = 2
LARGE, SMALL = (16384, 3072), (4096, 3072)
SYMMETRIC, ASYMMETRIC = Grid(4, 32, symmetric=True), Grid(4, 32, symmetric=False)
Method = Callable[[torch.Tensor, Grid], Rounded]

OLIVE = """
import sys, time, numpy, torch
from olive.passes.pytorch.kquant import kquant_find_qparams
torch.set_num_threads(int(sys.argv[2]))
weight = torch.from_numpy(numpy.load(sys.argv[1] + "/weight.npy"))
before = time.perf_counter(), time.process_time()
scales, zero_points = kquant_find_qparams(weight, 32, 15, 0)
wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
numpy.savez(sys.argv[1] + "/olive.npz", scales=scales, zero_points=zero_points, spent=[wall, cpu])
"""


@dataclass
class Spent:
    """Seconds of each round: on the wall, and of the processors."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __enter__(self) -> None:
        self.before = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.add(time.perf_counter() - self.before[0], time.process_time() - self.before[1])

    def add(self, wall: float, cpu: float) -> None:
        self.wall.append(wall)
        self.cpu.append(cpu)


def make_weight(rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.distributions.StudentT(4.0).sample((rows, columns)) * 0.02).bfloat16()


def in_threads(method: Method, weight: torch.Tensor, grid: Grid) -> Packed:
    """Return the weight packed: each thread writes some rows to where they belong."""
    zero_points = grid.zero_points_shape(*weight.shape)
    whole = Packed(
        torch.empty(grid.packed_shape(*weight.shape), dtype=torch.uint8),
        torch.empty(grid.scales_shape(*weight.shape)),
        None if zero_points is None else torch.empty(zero_points, dtype=torch.uint8),
    )

    def write(first: int) -> None:
        rows = slice(first, first + ROWS)
        part = pack(method(weight[rows], grid), grid)
        whole.weights[rows], whole.scales[rows] = part.weights, part.scales
        if whole.zero_points is not None:
            whole.zero_points[rows] = part.zero_points

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(0, len(weight), ROWS)))
    return whole


def by_kernel(weight: torch.Tensor, spent: Spent) -> Packed:
    """Return the weight packed by ONNX Runtime's kernel, the transposition it needs counted."""
    rows, columns = weight.shape
    with spent:
        transposed = np.ascontiguousarray(weight.float().numpy().T)
        packed = np.zeros(SYMMETRIC.packed_shape(rows, columns), np.uint8)
        scales = np.zeros(SYMMETRIC.scales_shape(rows, columns), np.float32)
        unused = np.zeros(ASYMMETRIC.zero_points_shape(rows, columns), np.uint8)
        quantize_matmul_4bits(packed, transposed, scales, unused, 32, rows, columns, True)
    return Packed(torch.from_numpy(packed), torch.from_numpy(scales), None)


def by_olive(python: str, weight: torch.Tensor, spent: Spent) -> torch.Tensor:
    """Return the weight that Olive's KQuant leaves."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "weight.npy"), weight.float().numpy())
        done = subprocess.run(
            [python, "-c", OLIVE, folder, str(THREADS)], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = np.load(Path(folder, "olive.npz"))
        spent.add(*found["spent"])
        scales, zero_points = (torch.from_numpy(found[n]) for n in ("scales", "zero_points"))
        return left(weight, scales, zero_points)


def by_onnxruntime(kind: str, weight: torch.Tensor, spent: Spent) -> torch.Tensor:
    """Return the weight that ONNX Runtime's `k_quant`, or `rtn` ("asym" or "sym"), leaves."""
    values = weight.float().numpy()
    with spent:
        if kind == "k_quant":
            found = weight_only.quant_tensor_k_quant_cpu(values, 4, 32)
        else:
            found = weight_only.quant_tensor(values, 4, 32, kind, "uint")
    shape = ASYMMETRIC.scales_shape(*weight.shape)
    scales, zero_points = (torch.from_numpy(part.reshape(shape)).float() for part in found[1:])
    return left(weight, scales, zero_points)


def left(weight: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor) -> torch.Tensor:
    """Return what scales and zero points leave of a weight."""
    blocks = weight.float().view(*scales.shape, -1)
    codes = (blocks / scales[..., None]).round() + zero_points[..., None]
    steps = codes.clamp(0, 15) - zero_points[..., None]
    return (steps * scales[..., None]).flatten(1)


def told(name: str, spent: Spent, weight: torch.Tensor, beside: Spent | None) -> None:
    wall, cpu = statistics.median(spent.wall), statistics.median(spent.cpu)
    runs = ", ".join(f"{one:.2f}" for one in sorted(spent.wall))
    line = f"  {name}: {weight.numel() / wall / 1e6:.0f} M weights/s ({wall:.2f} s: {runs}; "
    line += f"processors {cpu:.2f} s)"
    if beside:
        ours = statistics.median(beside.wall), statistics.median(beside.cpu)
        line += f", ours x{wall / ours[0]:.2f} as fast, x{cpu / ours[1]:.2f} by the processors"
    print(line)


def rounding(rounds: int) -> None:
    weight = make_weight(*LARGE)
    print(f"rounding to nearest, {LARGE[0]} x {LARGE[1]}, int4, blocks of 32, packed")
    ours, theirs = Spent(), Spent()
    for _ in range(rounds):
        with ours:
            packed = in_threads(round_to_nearest, weight, SYMMETRIC)
        reference = by_kernel(weight, theirs)
        assert torch.equal(packed.weights, reference.weights)
        assert torch.equal(packed.scales, reference.scales)
    told("ours", ours, weight, None)
    told("ONNX Runtime's kernel", theirs, weight, ours)
    print("  the same bytes")


def searching(rounds: int, olive: str | None) -> None:
    weight = make_weight(*SMALL)
    print(f"the least squared error, {SMALL[0]} x {SMALL[1]}, asymmetric int4, blocks of 32")
    peers: dict[str, Callable[[torch.Tensor, Spent], torch.Tensor]] = {
        "ONNX Runtime's k_quant": partial(by_onnxruntime, "k_quant"),
        "ONNX Runtime's rtn": partial(by_onnxruntime, "asym"),
        "ONNX Runtime's rtn, symmetric": partial(by_onnxruntime, "sym"),
    }
    if olive:
        peers["Olive's KQuant"] = partial(by_olive, olive)
    spent = {name: Spent() for name in ("ours", *peers)}
    weights: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        with spent["ours"]:
            packed = in_threads(least_squared_error, weight, ASYMMETRIC)
        weights["ours"] = dequantize(unpack(packed, ASYMMETRIC), ASYMMETRIC, SMALL[1])
        for name, method in peers.items():
            weights[name] = method(weight, spent[name])
    told("ours", spent["ours"], weight, None)
    for name in peers:
        told(name, spent[name], weight, spent["ours"])
    for name, method, grid in (
        ("asymmetric rounding to nearest", round_to_nearest, ASYMMETRIC),
        ("symmetric rounding to nearest", round_to_nearest, SYMMETRIC),
        ("ours, symmetric", least_squared_error, SYMMETRIC),
    ):
        weights[name] = dequantize(method(weight, grid), grid, SMALL[1])
    base = error(weight, weights["asymmetric rounding to nearest"])
    print("squared error, relative to asymmetric rounding to nearest")
    for name, found in weights.items():
        print(f"  {name}: {error(weight, found) / base:.4f}")


def error(weight: torch.Tensor, found: torch.Tensor) -> float:
    return (found - weight.float()).double().square().sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--olive", help="Python of an environment that has Olive")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounding(arguments.rounds)
    searching(arguments.rounds, arguments.olive)


if __name__ == "__main__":
    main()
