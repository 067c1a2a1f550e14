"""What rounding to a grid costs weights that are normally distributed: cost/rounding_errors.py.

    python scripts/rounding_errors.py

Writes the table anew: the squared error of a million weights, relative to their squares.
"""

from __future__ import annotations

from pathlib import Path

import torch

from drupe.quantize.codes import dequantize
from drupe.quantize.grid import BLOCK_SIZES, Grid
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

FILE = Path(__file__).parents[1] / "src/drupe/cost/rounding_errors.py"
ROUNDINGS = {"rtn": round_to_nearest, "mse": least_squared_error}
BEGINNING = '''\
"""How far weights are from themselves once they are rounded: the squared error, relative.

Of normally distributed weights, by scripts/rounding_errors.py, which writes this file. Trained
weights are near enough to that for the order of grids; how much a model minds is measured.  Light.
"""

from __future__ import annotations

# {(bits, block size, symmetric, rounding): relative squared error}
ERRORS: dict[tuple[int, int, bool, str], float] = {
'''


def main() -> None:
    """Write the table."""
    torch.manual_seed(0)
    weight = torch.randn(1024, 1024)
    lines = []
    for bits in (4, 8):
        for size in BLOCK_SIZES:
            for symmetric in (True, False):
                for name, rounding in ROUNDINGS.items():
                    grid = Grid(bits, size, symmetric)
                    back = dequantize(rounding(weight, grid), grid, weight.shape[1])
                    error = float((back - weight).square().sum() / weight.square().sum())
                    lines.append(f'    ({bits}, {size}, {symmetric}, "{name}"): {error:.3g},\n')
    FILE.write_text(BEGINNING + "".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
