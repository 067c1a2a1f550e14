"""Cosines and sines of a rotary embedding, as ONNX Runtime's attention looks them up.  torch.

Angles are position * frequency, computed in float32 as transformers does. How the frequencies are
scaled for longer texts:
  linear    divided by a factor (Chen et al. 2023, arXiv:2306.15595)
  llama3    low ones divided, high ones kept, between them a slope (Llama Team 2024,
            arXiv:2407.21783, 3.4.2, and its published code)
  yarn      the same by the number of turns, and values scaled (Peng et al. 2023, arXiv:2309.00071)
  longrope  each by a factor of its own, another one beyond the original length (Ding et al. 2024,
            arXiv:2402.13753)
"""

from __future__ import annotations

import math
from typing import Any

import torch

from drupe.export.decoder import Rotary


def angles(
    rotary: Rotary, start: int, stop: int, *, long: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of positions `start` to `stop`: (positions, size / 2), float32.

    long: of "longrope", with the factors for more than the original length.
    """
    frequencies, magnitude = _frequencies(rotary, long)
    turned = torch.arange(start, stop, dtype=torch.float32)[:, None] * frequencies[None]
    return turned.cos() * magnitude, turned.sin() * magnitude


def _frequencies(rotary: Rotary, long: bool) -> tuple[torch.Tensor, float]:
    """Return the frequency of each pair of values, and what cosine and sine are multiplied by."""
    exponents = torch.arange(0, rotary.size, 2, dtype=torch.int64).float() / rotary.size
    plain = 1.0 / (rotary.theta**exponents)
    values: dict[str, Any] = rotary.values
    match rotary.kind:
        case "linear":
            return plain / values["factor"], 1.0
        case "llama3":
            return _llama3(plain, rotary.original, values), 1.0
        case "yarn":
            return _yarn(rotary, plain, values)
        case "longrope":
            factors = torch.tensor(values["long_factor" if long else "short_factor"])
            factor, original = values["factor"], rotary.original
            usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
            frequencies = 1.0 / (factors * rotary.theta**exponents)
            return frequencies, float(values.get("attention_factor", usual))
    return plain, 1.0


def _llama3(plain: torch.Tensor, original: int, values: dict[str, Any]) -> torch.Tensor:
    """Divide frequencies that turn less than `low_freq_factor` times in the original length."""
    low, high, factor = (values[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = original / (2 * math.pi / plain)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    found: torch.Tensor = (1 - kept) * plain / factor + kept * plain
    return found


def _yarn(
    rotary: Rotary, plain: torch.Tensor, values: dict[str, Any]
) -> tuple[torch.Tensor, float]:
    """Divide frequencies that turn less than `beta_slow` times, keep those above `beta_fast`."""
    factor = values["factor"]

    def place(turns: float) -> float:
        """Return at which pair a frequency turns that often in the original length."""
        ratio = math.log(rotary.original / (turns * 2 * math.pi))
        return rotary.size * ratio / (2 * math.log(rotary.theta))

    first = max(math.floor(place(values.get("beta_fast", 32.0))), 0)
    last = min(math.ceil(place(values.get("beta_slow", 1.0))), rotary.size - 1)
    pairs = torch.arange(rotary.size // 2, dtype=torch.float32)
    divided = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    magnitude = values.get("attention_factor")
    if magnitude is None:
        one, all_of = (values.get(key) for key in ("mscale", "mscale_all_dim"))
        magnitude = _magnitude(factor, one or 1.0)
        magnitude = magnitude / _magnitude(factor, all_of) if one and all_of else _magnitude(factor)
    return plain / factor * divided + plain * (1 - divided), float(magnitude)


def _magnitude(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
