"""A transformers model whose weights come from disk just in time and go right after.

A module's parameters are read, in float32, when it is called, and given up when it returns: the
memory is that of the largest layer, whatever the size of the model. Built on torch's module hooks
(https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html, register_forward_pre_hook).
Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from drupe.checkpoint.tensors import Checkpoint, open_checkpoint
from drupe.core.errors import DrupeError

HELD = "_drupe_held"
# Gives a parameter's values, float32, in place of those that are stored; None for those. Asked by
# its own name and by that of what is stored, which is another one for a head that is tied.
Instead = Callable[[str, str], torch.Tensor | None]


class NamesDifferError(DrupeError):
    """The names in the files are not those of transformers' modules; the model may still be sound.

    transformers renames and joins the tensors of some architectures while it loads them.
    """


def streamed_model(
    folder: Path,
    remote_code: bool = False,
    checkpoint: Checkpoint | None = None,
    instead: Instead | None = None,
) -> nn.Module:
    """Return the causal language model in `folder`, for inference in float32 on the CPU.

    remote_code: the model's own Python code may run. checkpoint: its weights, where they are to
    be other ones than those in the folder. instead: gives the values of some parameters.
    Raises NamesDifferError when a parameter's name or shape is not found in the checkpoint.
    """
    checkpoint = checkpoint or open_checkpoint(folder)
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=remote_code
    )
    # Buffers (the rotary frequencies) are computed, not stored, so they are real from the start.
    with init_empty_weights(include_buffers=False):
        network: nn.Module = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=remote_code
        )
    stored = _stored_names(network, config, checkpoint)
    _check_names(network, checkpoint, stored, folder)
    _load_buffers(network, checkpoint)
    for name, module in network.named_modules():
        own = [parameter for parameter, _ in module.named_parameters(recurse=False)]
        if own:
            prefix = f"{name}." if name else ""
            names = {each: (prefix + each, stored[prefix + each]) for each in own}
            _stream(module, names, checkpoint, instead)
    return network.eval()


def _stored_names(network: Any, config: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """Return for each parameter the name of its values: its own, or what it is tied to."""
    stored = {name: name for name, _ in network.named_parameters(remove_duplicate=False)}
    if getattr(config, "tie_word_embeddings", False) and network.get_output_embeddings():
        names = {module: name for name, module in network.named_modules()}
        output = f"{names[network.get_output_embeddings()]}.weight"
        if output not in checkpoint:
            stored[output] = f"{names[network.get_input_embeddings()]}.weight"
    return stored


def _check_names(
    network: nn.Module, checkpoint: Checkpoint, stored: dict[str, str], folder: Path
) -> None:
    for name, parameter in network.named_parameters(remove_duplicate=False):
        source = stored[name]
        if source not in checkpoint:
            raise _names_differ(folder, f'holds no values for the parameter "{name}"')
        shape = checkpoint.spec(source).shape
        if shape != tuple(parameter.shape):
            raise _names_differ(
                folder, f'holds "{source}" as {list(shape)}, not {list(parameter.shape)}'
            )


def _names_differ(folder: Path, what: str) -> NamesDifferError:
    return NamesDifferError(
        str(folder),
        f"{what} of the model that its config.json describes",
        "Do config.json and the weights belong together? Save the model again with "
        "save_pretrained.",
    )


def _load_buffers(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Give buffers that were saved with the model their values; they are small."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name in checkpoint:
                buffer.copy_(checkpoint.read(name))


def _stream(
    module: nn.Module,
    names: dict[str, tuple[str, str]],
    checkpoint: Checkpoint,
    instead: Instead | None,
) -> None:
    """Have `module` read its own parameters when it is called and drop them when it returns.

    names: of each parameter, by what the module calls it: its full name, and that of its values.
    In between each is a zero that is repeated over the whole shape without taking memory. On the
    meta device it would take none either, but who adds an adapter asks the weight for its device.
    """
    empty = {
        name: nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False)
        for name, parameter in module.named_parameters(recurse=False)
    }

    def load(module: nn.Module, arguments: Any) -> None:
        for name, (parameter, source) in names.items():
            values = None if instead is None else instead(parameter, source)
            if values is None:
                values = checkpoint.read(source).float()
            setattr(module, name, nn.Parameter(values, requires_grad=False))

    def drop(module: nn.Module, arguments: Any, result: Any) -> None:
        if not getattr(module, HELD, False):
            for name, parameter in empty.items():
                setattr(module, name, parameter)

    drop(module, (), None)
    module.register_forward_pre_hook(load)
    module.register_forward_hook(drop, always_call=True)


def hold_within(outer: nn.Module, inner: nn.Module) -> None:
    """Keep the weights of `inner` until `outer` returns, which looks at them after its call."""

    def hold(module: nn.Module, arguments: Any) -> None:
        setattr(inner, HELD, True)

    def release(module: nn.Module, arguments: Any, result: Any) -> None:
        setattr(inner, HELD, False)
        for name, parameter in list(inner.named_parameters(recurse=False)):
            empty = torch.zeros(()).expand(parameter.shape)
            setattr(inner, name, nn.Parameter(empty, requires_grad=False))

    outer.register_forward_pre_hook(hold)
    outer.register_forward_hook(release, always_call=True)
