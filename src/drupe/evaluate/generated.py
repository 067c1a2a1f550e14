"""What a model says after a prompt, its likeliest token each time: the first line of it.

A checkpoint speaks by transformers, an exported model by ONNX Runtime GenAI, as it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnxruntime
import torch

from drupe.core.model import KINDS, Model
from drupe.core.target import Target
from drupe.evaluate.chat import Chat
from drupe.evaluate.runtimes import TorchRuntime, check_provider


class Speaker(Protocol):
    """Returns the first line that a model says after a prompt."""

    def __call__(self, prompt: str, most: int, *, special: bool) -> str:
        """Return it: of at most `most` tokens, white space around it taken off."""


def speaker(model: Model, target: Target, threads: int) -> Speaker:
    """Return what speaks for `model`; raises NotRunHereError where it cannot be run here."""
    if KINDS[model.kind].on_target:
        check_provider(target, onnxruntime.get_available_providers())
        return _of_genai(Chat(model.path))
    return _of_torch(TorchRuntime(model, threads))


def _of_genai(chat: Chat) -> Speaker:
    def speak(prompt: str, most: int, *, special: bool) -> str:
        pieces: list[str] = []
        ids = chat.encode(prompt, special=special)[-max(1, chat.context_length - most - 1) :]
        for piece in chat.pieces(ids, most):
            pieces.append(piece)
            if "\n" in "".join(pieces).lstrip():
                break
        return first_line("".join(pieces))

    return speak


def _of_torch(runtime: TorchRuntime) -> Speaker:
    def speak(prompt: str, most: int, *, special: bool) -> str:
        ids = runtime.encode(prompt, special=special)[-max(1, runtime.context_length - most - 1) :]
        said: list[int] = []
        for token in runtime.greedy(ids, most):
            said.append(token)
            if "\n" in _text(runtime, said).lstrip():
                break
        return first_line(_text(runtime, said))

    return speak


def _text(runtime: TorchRuntime, ids: Sequence[int]) -> str:
    text: str = runtime.tokenizer.decode(torch.tensor(ids), skip_special_tokens=True)
    return text


def first_line(text: str) -> str:
    """Return the first line that is not blank, white space around it taken off."""
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""
