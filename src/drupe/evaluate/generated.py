"""What a model says after a prompt, its likeliest token each time.

A checkpoint speaks by transformers, an exported model by ONNX Runtime GenAI, as it is deployed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import onnxruntime

from drupe.core.model import KINDS, Model
from drupe.core.target import Target
from drupe.evaluate.chat import Chat
from drupe.evaluate.runtimes import TorchRuntime, check_provider


class Speaker(ABC):
    """A model that speaks. context_length: most tokens of a prompt and what is said."""

    context_length: int

    @abstractmethod
    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text; special: after begin of text if the tokenizer has it so."""

    @abstractmethod
    def texts(self, ids: Sequence[int], most: int) -> Iterator[str]:
        """Yield all that is said after `ids` so far, longer each time, in at most `most` tokens."""

    def kept(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the end of a prompt that leaves room for `most` tokens."""
        return list(ids)[-max(1, self.context_length - most - 1) :]

    def first_line(self, prompt: str, most: int, *, special: bool) -> str:
        """Return the first line of what is said after a prompt."""
        said = ""
        for said in self.texts(self.kept(self.encode(prompt, special=special), most), most):
            if "\n" in said.lstrip():
                break
        return first_line(said)


def speaker(model: Model, target: Target, threads: int) -> Speaker:
    """Return what speaks for `model`; raises NotRunHereError where it cannot be run here."""
    if KINDS[model.kind].on_target:
        check_provider(target, onnxruntime.get_available_providers())
        return GenAISpeaker(Chat(model.path))
    return TorchSpeaker(TorchRuntime(model, threads))


class GenAISpeaker(Speaker):
    """An exported model, by ONNX Runtime GenAI."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.context_length = chat.context_length

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids by GenAI's tokenizer."""
        return self._chat.encode(text, special=special)

    def texts(self, ids: Sequence[int], most: int) -> Iterator[str]:
        """Yield what is said so far."""
        said = ""
        for piece in self._chat.pieces(ids, most):
            said += piece
            yield said


class TorchSpeaker(Speaker):
    """A checkpoint, or an adapter on its base, by transformers."""

    def __init__(self, runtime: TorchRuntime) -> None:
        self._runtime = runtime
        self.context_length = runtime.context_length

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids by the checkpoint's tokenizer."""
        return self._runtime.encode(text, special=special)

    def texts(self, ids: Sequence[int], most: int) -> Iterator[str]:
        """Yield what is said so far."""
        said: list[int] = []
        for token in self._runtime.greedy(ids, most):
            said.append(token)
            text: str = self._runtime.tokenizer.decode(said, skip_special_tokens=True)
            yield text


def first_line(text: str) -> str:
    """Return the first line that is not blank, white space around it taken off."""
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""
