"""How far weights are from themselves once they are rounded: the squared error, relative.

Of normally distributed weights, by scripts/rounding_errors.py, which writes this file. Trained
weights are near enough to that for the order of grids; how much a model minds is measured.  Light.
"""

from __future__ import annotations

# {(bits, block size, symmetric, rounding): relative squared error}
ERRORS: dict[tuple[int, int, bool, str], float] = {
    (4, 16, True, "rtn"): 0.00576,
    (4, 16, True, "mse"): 0.00492,
    (4, 16, False, "rtn"): 0.00484,
    (4, 16, False, "mse"): 0.0042,
    (4, 32, True, "rtn"): 0.00739,
    (4, 32, True, "mse"): 0.00658,
    (4, 32, False, "rtn"): 0.00653,
    (4, 32, False, "mse"): 0.00591,
    (4, 64, True, "rtn"): 0.00902,
    (4, 64, True, "mse"): 0.00809,
    (4, 64, False, "rtn"): 0.0083,
    (4, 64, False, "mse"): 0.00755,
    (4, 128, True, "rtn"): 0.0107,
    (4, 128, True, "mse"): 0.0094,
    (4, 128, False, "rtn"): 0.0101,
    (4, 128, False, "mse"): 0.00902,
    (4, 256, True, "rtn"): 0.0123,
    (4, 256, True, "mse"): 0.0105,
    (4, 256, False, "rtn"): 0.012,
    (4, 256, False, "mse"): 0.0102,
    (8, 16, True, "rtn"): 2.17e-05,
    (8, 16, True, "mse"): 1.79e-05,
    (8, 16, False, "rtn"): 1.67e-05,
    (8, 16, False, "mse"): 1.41e-05,
    (8, 32, True, "rtn"): 2.82e-05,
    (8, 32, True, "mse"): 2.47e-05,
    (8, 32, False, "rtn"): 2.25e-05,
    (8, 32, False, "mse"): 2.02e-05,
    (8, 64, True, "rtn"): 3.47e-05,
    (8, 64, True, "mse"): 3.17e-05,
    (8, 64, False, "rtn"): 2.86e-05,
    (8, 64, False, "mse"): 2.67e-05,
    (8, 128, True, "rtn"): 4.13e-05,
    (8, 128, True, "mse"): 3.87e-05,
    (8, 128, False, "rtn"): 3.5e-05,
    (8, 128, False, "mse"): 3.34e-05,
    (8, 256, True, "rtn"): 4.79e-05,
    (8, 256, True, "mse"): 4.58e-05,
    (8, 256, False, "rtn"): 4.15e-05,
    (8, 256, False, "mse"): 4.01e-05,
}
