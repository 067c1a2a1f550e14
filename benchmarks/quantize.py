"""How fast are weights rounded, and what does it cost them, beside ONNX Runtime's and Olive's ways?

    python benchmarks/quantize.py [--olive PYTHON] [--rounds 3]

Three things on the same random bfloat16 weights (heavy tails, as trained ones have), in turns:

- rounding to nearest with packing, symmetric int4, beside ONNX Runtime's kernel on the same rows;
- the least squared error (asymmetric int4) beside ONNX Runtime's `k_quant` and Olive's `KQuant`
  (PYTHON: the interpreter of an environment that has Olive), by time;
- the squared errors of all of them, relative to asymmetric rounding to nearest.

Ours is called as the exporter calls it: two threads, each on 128 rows at a time. Olive's and ONNX
Runtime's functions are timed alone, without what their passes do around them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_4bits
from onnxruntime.quantization.neural_compressor import weight_only

from drupe.quantize.codes import Packed, dequantize, pack, unpack
from drupe.quantize.grid import Grid
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

ROWS = 128
THREADS = 2
LARGE, SMALL = (16384, 3072), (4096, 3072)
SYMMETRIC, ASYMMETRIC = Grid(4, 32, symmetric=True), Grid(4, 32, symmetric=False)
Method = Callable[[torch.Tensor, Grid], object]

OLIVE = """
import sys, time, numpy, torch
from olive.passes.pytorch.kquant import kquant_find_qparams
torch.set_num_threads(int(sys.argv[2]))
weight = torch.from_numpy(numpy.load(sys.argv[1] + "/weight.npy"))
started = time.perf_counter()
scales, zero_points = kquant_find_qparams(weight, 32, 15, 0)
seconds = time.perf_counter() - started
numpy.savez(sys.argv[1] + "/olive.npz", scales=scales, zero_points=zero_points, seconds=seconds)
"""


def make_weight(rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.distributions.StudentT(4.0).sample((rows, columns)) * 0.02).bfloat16()


def in_threads(method: Method, weight: torch.Tensor, grid: Grid) -> Packed:
    """Return the weight packed, its rows shared out as the exporter does it."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda rows: pack(method(rows, grid), grid), weight.split(ROWS)))
    zero_points = None if grid.symmetric else torch.cat([part.zero_points for part in parts])
    weights = torch.cat([part.weights for part in parts])
    return Packed(weights, torch.cat([part.scales for part in parts]), zero_points)


def by_kernel(weight: torch.Tensor) -> tuple[float, Packed]:
    """Return the seconds of ONNX Runtime's kernel (and of the transposition it needs)."""
    started = time.perf_counter()
    rows, columns = weight.shape
    transposed = np.ascontiguousarray(weight.float().numpy().T)
    packed = np.zeros(SYMMETRIC.packed_shape(rows, columns), np.uint8)
    scales = np.zeros(SYMMETRIC.scales_shape(rows, columns), np.float32)
    unused = np.zeros(ASYMMETRIC.zero_points_shape(rows, columns), np.uint8)
    quantize_matmul_4bits(packed, transposed, scales, unused, 32, rows, columns, True)
    seconds = time.perf_counter() - started
    return seconds, Packed(torch.from_numpy(packed), torch.from_numpy(scales), None)


def by_olive(python: str, weight: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the seconds of Olive's KQuant, and the weight that it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "weight.npy"), weight.float().numpy())
        subprocess.run([python, "-c", OLIVE, folder, str(THREADS)], check=True)
        found = np.load(Path(folder, "olive.npz"))
        scales, zero_points = (torch.from_numpy(found[n]) for n in ("scales", "zero_points"))
        return float(found["seconds"]), left(weight, scales, zero_points)


def by_k_quant(weight: torch.Tensor, kind: str) -> tuple[float, torch.Tensor]:
    """Return the seconds of ONNX Runtime's `k_quant` or `rtn`, and the weight that it leaves."""
    values = weight.float().numpy()
    started = time.perf_counter()
    if kind == "k_quant":
        _, scales, zero_points = weight_only.quant_tensor_k_quant_cpu(values, 4, 32)
    else:
        _, scales, zero_points = weight_only.quant_tensor(values, 4, 32, "asym", "uint")
    seconds = time.perf_counter() - started
    shape = ASYMMETRIC.scales_shape(*weight.shape)
    scales, zero_points = (
        torch.from_numpy(part.reshape(shape)).float() for part in (scales, zero_points)
    )
    return seconds, left(weight, scales, zero_points)


def left(weight: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor) -> torch.Tensor:
    """Return what scales and zero points leave of a weight."""
    blocks = weight.float().view(*scales.shape, -1)
    codes = (blocks / scales[..., None]).round() + zero_points[..., None]
    steps = codes.clamp(0, 15) - zero_points[..., None]
    return (steps * scales[..., None]).flatten(1)


def told(name: str, seconds: list[float], weight: torch.Tensor, beside: float) -> float:
    middle = statistics.median(seconds)
    speed = weight.numel() / middle / 1e6
    runs = ", ".join(f"{one:.2f}" for one in sorted(seconds))
    ratio = f", {middle / beside:.2f} of the time of ours" if beside else ""
    print(f"  {name}: {speed:.0f} M weights/s ({middle:.2f} s: {runs}){ratio}")
    return middle


def rounding(rounds: int) -> None:
    weight = make_weight(*LARGE)
    print(f"rounding to nearest, {LARGE[0]} x {LARGE[1]}, int4, blocks of 32, packed")
    ours, theirs = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        packed = in_threads(round_to_nearest, weight, SYMMETRIC)
        ours.append(time.perf_counter() - started)
        seconds, reference = by_kernel(weight)
        theirs.append(seconds)
        assert torch.equal(packed.weights, reference.weights)
        assert torch.equal(packed.scales, reference.scales)
    told("ONNX Runtime's kernel", theirs, weight, told("ours", ours, weight, 0))
    print("  the same bytes")


def searching(rounds: int, olive: str | None) -> None:
    weight = make_weight(*SMALL)
    print(f"the least squared error, {SMALL[0]} x {SMALL[1]}, asymmetric int4, blocks of 32")
    peers: dict[str, Callable[[], tuple[float, torch.Tensor]]] = {
        "ONNX Runtime's k_quant": lambda: by_k_quant(weight, "k_quant"),
        "ONNX Runtime's rtn": lambda: by_k_quant(weight, "rtn"),
    }
    if olive:
        peers["Olive's KQuant"] = lambda: by_olive(olive, weight)
    times: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    weights: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        started = time.perf_counter()
        packed = in_threads(least_squared_error, weight, ASYMMETRIC)
        times["ours"].append(time.perf_counter() - started)
        weights["ours"] = dequantize(unpack(packed, ASYMMETRIC), ASYMMETRIC, SMALL[1])
        for name, method in peers.items():
            seconds, weights[name] = method()
            times[name].append(seconds)
    beside = told("ours", times["ours"], weight, 0)
    for name in peers:
        told(name, times[name], weight, beside)
    rounded = round_to_nearest(weight, ASYMMETRIC)
    base = error(weight, dequantize(rounded, ASYMMETRIC, SMALL[1]))
    print("squared error, relative to asymmetric rounding to nearest")
    for name, found in weights.items():
        print(f"  {name}: {error(weight, found) / base:.4f}")
    rounded = round_to_nearest(weight, SYMMETRIC)
    print(f"  symmetric: {error(weight, dequantize(rounded, SYMMETRIC, SMALL[1])) / base:.4f}")
    rounded = least_squared_error(weight, SYMMETRIC)
    found = error(weight, dequantize(rounded, SYMMETRIC, SMALL[1])) / base
    print(f"  ours, symmetric: {found:.4f}")


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
