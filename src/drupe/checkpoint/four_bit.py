"""A checkpoint's weights as a 4-bit base has them: rounded by bitsandbytes, and read back.

QLoRA (Dettmers et al. 2023, arXiv:2305.14314, 3): blocks of 64 weights share a scale; each weight
is the nearest of 16 values (nf4: the quantiles of a normal distribution); with double quantization
the scales are rounded to 8 bits in blocks of 256.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes import functional
from bitsandbytes.nn.modules import Linear4bit
from torch import nn

from drupe.checkpoint.load import load_causal_lm
from drupe.checkpoint.quantized_base import BLOCK, QuantizedBase
from drupe.checkpoint.tensors import Checkpoint, open_checkpoint, tensor_bytes
from drupe.core.model import Model


def load_four_bit(
    model: Model, quant_type: str, double_quant: bool, dtype: torch.dtype, compute: torch.dtype
) -> tuple[Any, QuantizedBase]:
    """Return the checkpoint with its linear layers in 4 bits, and what was done to which.

    The output layer and what is tied to it stay as they are: transformers' own rule.
    """
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=compute,
    )
    network = load_causal_lm(model, dtype, quantization_config=settings)
    modules = [name for name, each in network.named_modules() if isinstance(each, Linear4bit)]
    held, products = (str(each).removeprefix("torch.") for each in (dtype, compute))
    return network, QuantizedBase(quant_type, double_quant, held, products, tuple(modules))


def round_trip(
    weight: torch.Tensor,  # (out, in), float
    base: QuantizedBase,
) -> torch.Tensor:
    """Return `weight` as the 4-bit base has it: (out, in), of the dtype that the base names."""
    codes, state = functional.quantize_4bit(
        weight.to(getattr(torch, base.dtype)).contiguous(),
        blocksize=BLOCK,
        compress_statistics=base.double_quant,
        quant_type=base.quant_type,
    )
    values: torch.Tensor = functional.dequantize_4bit(codes, state)
    return values


def dequantize_in_place(network: nn.Module, base: QuantizedBase) -> None:
    """Give the layers that were quantized in training the weights that they had there."""
    for name in base.modules:
        weight: Any = network.get_submodule(name).weight
        weight.data.copy_(round_trip(weight.data, base))


class Dequantized(Checkpoint):
    """A checkpoint whose quantized layers read as training saw them; the rest is as it is.

    Specs are those of the files. One tensor is in memory at a time.
    """

    def __init__(self, folder: Path, base: QuantizedBase) -> None:
        super().__init__(open_checkpoint(folder).files)
        self._base = base
        self._rounded = {f"{name}.weight" for name in base.modules}

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor: of the base's dtype where it was quantized, else as it is stored."""
        tensor = super().read(name)
        return round_trip(tensor, self._base) if name in self._rounded else tensor

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes in the stored dtype, rounded to it once."""
        if name not in self._rounded:
            yield from super().chunks(name)
            return
        stored = super().read(name).dtype
        values = tensor_bytes(self.read(name).to(stored))
        for start in range(0, len(values), 2**23):
            yield bytes(values[start : start + 2**23])
