"""A checkpoint's weights as a 4-bit base has them: rounded by bitsandbytes, and read back.

QLoRA (Dettmers et al. 2023, arXiv:2305.14314, 3): blocks of 64 weights share a scale; each weight
is the nearest of 16 values (nf4: the quantiles of a normal distribution); with double quantization
the scales are rounded to 8 bits in blocks of 256.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes import functional
from bitsandbytes.nn.modules import Linear4bit
from torch import nn

from drupe.checkpoint.load import load_causal_lm
from drupe.checkpoint.one_thread import one_thread
from drupe.checkpoint.quantized_base import BLOCK, QuantizedBase
from drupe.checkpoint.tensors import Checkpoint, Rows, open_checkpoint, tensor_bytes
from drupe.core.model import Model

SCALES_BLOCK = 256  # scales that share one of theirs: bitsandbytes' own number
WEIGHTS_AT_A_TIME = 2**22
TENSORS_IN_HAND = 16  # of which the scales are kept: a sixteenth of a byte a weight


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
    scales: torch.Tensor | None = None,  # (blocks,), float32
) -> torch.Tensor:
    """Return `weight` as the 4-bit base has it: (out, in), of the dtype that the base names.

    scales: of each block, where they were rounded beside those of other rows.
    """
    codes, state = functional.quantize_4bit(
        weight.to(getattr(torch, base.dtype)).contiguous(),
        blocksize=BLOCK,
        compress_statistics=base.double_quant and scales is None,
        quant_type=base.quant_type,
    )
    if scales is not None:
        state.absmax = scales
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
        if name not in self._rounded:
            return tensor
        with one_thread():
            return round_trip(tensor, self._base)

    def rows_by(self, stored: Rows) -> Rows:
        """Return the tensors as they read here, some rows at a time; stored: as they lie."""
        shapes = {name: self.spec(name).shape for name in self._rounded if name in self}
        return DequantizedRows(stored, shapes, self._base)

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield a tensor's bytes in the stored dtype, rounded to it once."""
        if name not in self._rounded:
            yield from super().chunks(name)
            return
        stored = super().read(name).dtype
        values = tensor_bytes(self.read(name).to(stored))
        for start in range(0, len(values), 2**23):
            yield bytes(values[start : start + 2**23])


class DequantizedRows:
    """Rows of a checkpoint that read as training saw them, value for value as `Dequantized` has it.

    A block of weights is rounded on its own, but with double quantization its scale is rounded
    beside those of the whole tensor: these are found once, and kept for the tensors in hand.
    shapes: of the tensors that were quantized.
    """

    def __init__(
        self, stored: Rows, shapes: Mapping[str, tuple[int, ...]], base: QuantizedBase
    ) -> None:
        self._stored, self._shapes, self._base = stored, shapes, base
        self._scales: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._finding = threading.Lock()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return (stop - start, columns): of the base's dtype where it was quantized."""
        if name not in self._shapes:
            return self._stored.rows(name, start, stop)
        rows, columns = self._shapes[name]
        if columns % BLOCK:  # then rows share blocks
            with one_thread():
                return round_trip(self._stored.rows(name, 0, rows), self._base)[start:stop]
        part = self._stored.rows(name, start, stop)
        if not self._base.double_quant:
            return round_trip(part, self._base)
        of_row = columns // BLOCK
        return round_trip(part, self._base, self._scales_of(name)[start * of_row : stop * of_row])

    def expect(self, name: str, start: int, stop: int) -> None:
        """Hear that rows will be asked for soon."""
        self._stored.expect(name, start, stop)

    def drop(self, name: str, start: int, stop: int) -> None:
        """Hear that rows are not asked for again."""
        self._stored.drop(name, start, stop)

    def _scales_of(self, name: str) -> torch.Tensor:
        """Return the scale of each block of a tensor, as it is after the scales were rounded."""
        with self._finding:
            if name not in self._scales:
                self._scales[name] = self._found_scales(name)
                if len(self._scales) > TENSORS_IN_HAND:
                    self._scales.popitem(last=False)
            return self._scales[name]

    def _found_scales(self, name: str) -> torch.Tensor:
        rows, columns = self._shapes[name]
        held, count = getattr(torch, self._base.dtype), max(1, WEIGHTS_AT_A_TIME // columns)
        largest = torch.cat(
            [
                self._stored.rows(name, start, min(start + count, rows))
                .to(held)
                .view(-1, BLOCK)
                .abs()
                .amax(1)
                .float()
                for start in range(0, rows, count)
            ]
        )
        with one_thread():
            offset = largest.mean()
            codes, state = functional.quantize_blockwise(largest - offset, blocksize=SCALES_BLOCK)
            scales: torch.Tensor = functional.dequantize_blockwise(codes, state)
        return scales + offset
