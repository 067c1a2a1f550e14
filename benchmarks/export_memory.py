"""How does the memory of an int4 export grow with the model, and within which limit does it pass?

    python benchmarks/export_memory.py [--shapes smollm2-135m qwen2.5-0.5b llama-3.2-1b]
                                       [--folder FOLDER]

Random bfloat16 checkpoints of real models' shapes are made one after the other, and removed. Of
each the weights are streamed to int4 (`export`, but for loading the result at its end, which is
ONNX Runtime's memory) twice, each time in a child:

- its anonymous memory is sampled every 10 ms; behind the last shape stands the slope over all of
  them, in bytes a parameter;
- it is held by RLIMIT_DATA to what it has after its imports, and the largest tensor, and 256 MB.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from memory import Measured, measure, ready
from random_checkpoints import SHAPES, make, tensors

MEGABYTE = 10**6
EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion/model"
SIZES = ("smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b")
ROOM = 256 * 2**20
