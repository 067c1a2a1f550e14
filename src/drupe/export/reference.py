"""The checkpoint in torch, as the reference of an export: with its own weights, or with others.

One layer is in memory at a time, where transformers gives its parameters the names that they have
in the files; else the whole model is.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drupe.checkpoint.load import load_causal_lm, runs_remote_code
from drupe.checkpoint.streamed import Instead, NamesDifferError, streamed_model
from drupe.core.errors import DrupeError
from drupe.core.process import total_memory_bytes
from drupe.evaluate.runtimes import checkpoint_bytes
from drupe.export.deployed import DeployedWeights
from drupe.export.probes import Probes
from drupe.export.source import Source
from drupe.quantize.codes import dequantize
from drupe.quantize.grid import Grid
from drupe.quantize.row_blocks import WEIGHTS_AT_A_TIME
from drupe.quantize.rtn import round_to_nearest

# Share of the machine's memory that a checkpoint may take that has to be loaded whole.
MEMORY_SHARE = 0.6
# Positions at which what comes out of each layer is kept.
LAYER_POSITIONS = 64


class TooLargeError(DrupeError):
    """The checkpoint cannot be streamed, and does not fit in memory: no fault of the export."""


@dataclass(frozen=True)
class Computed:
    """What a model gave for probes. logits: (length, vocabulary) of each sequence.

    layers: what came out of each layer, (some positions, hidden); empty where nobody asked.
    """

    logits: list[torch.Tensor]
    layers: list[torch.Tensor]


def of_checkpoint(source: Source, probes: Probes, *, layers: bool = False) -> Computed:
    """Return what the checkpoint computes in float32. layers: tell what comes out of each, too.

    Raises TooLargeError.
    """
    try:
        network = _streamed(source)
    except NamesDifferError:
        network = _whole(source)
    return _compute(network, probes, layers=layers)


def of_deployed(source: Source, deployed: DeployedWeights, probes: Probes) -> Computed:
    """Return what the checkpoint would compute with the weights of its export."""
    network = _streamed(source, lambda parameter, _: deployed.parameter(parameter))
    return _compute(network, probes, layers=True)


def of_rounded(source: Source, grid: Grid, probes: Probes) -> Computed:
    """Return what the checkpoint would compute with its linear layers rounded to nearest.

    Raises TooLargeError.
    """
    linear: set[str] = set()  # known when the network is, and asked for when it is called

    def rounded(parameter: str, stored: str) -> torch.Tensor | None:
        if parameter not in linear:
            return None
        values = source.checkpoint.read(stored).to(torch.float32, copy=True)
        round_in_place(values, grid, stored)
        return values

    try:
        network = _streamed(source, rounded)
        linear.update(f"{name}.weight" for name, _ in _linear(network))
    except NamesDifferError:
        network = _whole(source)
        for name, module in _linear(network):
            round_in_place(module.weight, grid, name)
    return _compute(network, probes)


def _streamed(source: Source, instead: Instead | None = None) -> nn.Module:
    model = source.model
    return streamed_model(model.path, runs_remote_code(model), source.checkpoint, instead)


def _linear(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, each) for name, each in network.named_modules() if isinstance(each, nn.Linear)]


def round_in_place(weight: torch.Tensor, grid: Grid, where: str = "weight") -> None:
    """Replace `weight` (out, in), of any float dtype, by what rounding to nearest leaves of it."""
    rows, columns = weight.shape
    at_a_time = max(1, WEIGHTS_AT_A_TIME // columns)
    with torch.no_grad():
        for first in range(0, rows, at_a_time):
            part = weight[first : first + at_a_time]
            part.copy_(dequantize(round_to_nearest(part, grid, where=where), grid, columns))


def _whole(source: Source) -> nn.Module:
    """Return the checkpoint's network with all its weights in memory."""
    checkpoint = source.model
    if source.merged is not None:
        raise TooLargeError(
            str(checkpoint.path),
            "transformers gives its tensors other names, so that it had to be loaded whole, and "
            "the merged checkpoint lies nowhere",
            'Have it written: measure each stage (engine.evaluate: "every-step").',
        )
    if 2 * checkpoint_bytes(checkpoint.path) > MEMORY_SHARE * total_memory_bytes():
        raise TooLargeError(
            str(checkpoint.path),
            "the checkpoint does not fit in the memory of this machine",
            "Prove the export on a machine with more.",
        )
    network: nn.Module = load_causal_lm(checkpoint, torch.float32).eval()
    return network


def _compute(network: Any, probes: Probes, *, layers: bool = False) -> Computed:
    outputs: list[torch.Tensor] = []
    every = -(-probes.positions // LAYER_POSITIONS)

    def keep(module: nn.Module, arguments: Any, result: Any) -> None:
        hidden = result[0] if isinstance(result, tuple) else result
        outputs.append(torch.cat(probes.cut(hidden))[::every].clone())

    hooks = [each.register_forward_hook(keep) for each in network.model.layers] if layers else []
    with torch.inference_mode():
        logits = network(torch.tensor(probes.batch), use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return Computed(probes.cut(logits.float()), outputs)


def relative_errors(found: Computed, reference: Computed) -> list[float]:
    """Return how far what comes out of each layer is from the reference, relatively."""
    return [
        float((ours - theirs).norm() / theirs.norm())
        for ours, theirs in zip(found.layers, reference.layers, strict=True)
    ]
