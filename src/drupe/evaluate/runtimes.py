"""One small interface over what is judged: torch for checkpoints, onnxruntime for exports.

    runtime = open_runtime(model, target, threads)
    runtime.logits([[5, 8, 13], [5, 9, 2]])   # (2, 3, vocabulary), float32

A direct onnxruntime session scores nearly four times faster than a GenAI generator, and it gives
the logits of all positions at once.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from drupe.checkpoint.external_data import check_folder
from drupe.checkpoint.genai_folder import SETTINGS, decoder_file
from drupe.checkpoint.load import load_causal_lm, load_tokenizer
from drupe.checkpoint.quantized_base import quantized_base
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target

LOGITS_BYTES = 64 * 2**20
# Up to here a checkpoint is scored in float32: it costs nothing, and it leaves no rounding of
# activations in a comparison of models. Above, its own type is 4 times as fast (bf16 with AMX) and
# half as large.
FLOAT32_BYTES = 256 * 2**20
ONNX_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class NotRunHereError(DrupeError):
    """The model is made for a provider that this machine does not have: no fault of the model."""


class Runtime(ABC):
    """A model that is ready to score.

    context_length: most tokens of a sequence. vocabulary: the size of a row of logits.
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    vocabulary: int

    @abstractmethod
    def logits(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits of id lists of equal length: (batch, length, vocabulary), float32."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of `text`; special: after begin of text if the tokenizer has that habit.

        An end of text that a tokenizer adds by itself is taken off: callers add it where due.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids[:-1] if special and self._adds_end else ids

    @cached_property
    def _adds_end(self) -> bool:
        last = self.tokenizer("a")["input_ids"][-1]
        return bool(last == self.tokenizer.eos_token_id)

    def batches(self, sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield the indices of `sequences`, shortest first, in batches of equal length.

        A batch's logits stay within LOGITS_BYTES, unless one sequence alone is larger. Equal
        lengths need no padding, so that no runtime's treatment of it can matter.
        """
        batch: list[int] = []
        for index in sorted(range(len(sequences)), key=lambda index: len(sequences[index])):
            length = len(sequences[index])
            most = max(1, LOGITS_BYTES // (4 * self.vocabulary * length))
            if batch and (len(batch) >= most or len(sequences[batch[0]]) != length):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


class TorchRuntime(Runtime):
    """A Hugging Face checkpoint, or an adapter on its base, in torch on the CPU.

    dtype: in which it is loaded; None: as `scoring_dtype` says.
    """

    def __init__(self, model: Model, threads: int, dtype: torch.dtype | None = None) -> None:
        torch.set_num_threads(threads)
        checkpoint = model.base if model.kind == "hf-adapter" else model
        if checkpoint is None:
            raise DrupeError(
                str(model.path),
                "is an adapter without the model that it was trained on",
                "Give the adapter together with its base model.",
            )
        has_tokenizer = (model.path / "tokenizer_config.json").is_file()
        self.tokenizer = load_tokenizer(model if has_tokenizer else checkpoint)
        network = load_causal_lm(checkpoint, dtype or scoring_dtype(checkpoint.path))
        if model.kind == "hf-adapter":
            quantized = quantized_base(model.path)
            if quantized is not None:  # scored as it was trained, in whichever type scoring is done
                from drupe.checkpoint.four_bit import dequantize_in_place

                dequantize_in_place(network, quantized)
            network = PeftModel.from_pretrained(network, model.path)
        self.network = network.eval()
        self.context_length = int(getattr(network.config, "max_position_embeddings", 2**31))
        self.vocabulary = int(network.get_input_embeddings().weight.shape[0])

    def logits(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits of id lists of equal length: (batch, length, vocabulary), float32."""
        with torch.inference_mode():
            found: torch.Tensor = self.network(torch.tensor(batch), use_cache=False).logits
        return found.float()

    def greedy(self, ids: Sequence[int], most: int) -> Iterator[int]:
        """Yield the likeliest token after `ids`, and after that, until an end of the model's own.

        most: how many tokens at most.
        """
        ends = _end_tokens(self.network.generation_config, self.tokenizer)
        read, cache = torch.tensor([list(ids)]), None
        for _ in range(most):
            with torch.inference_mode():
                found = self.network(read, past_key_values=cache, use_cache=True)
            token = int(found.logits[0, -1].argmax())
            if token in ends:
                return
            yield token
            read, cache = torch.tensor([[token]]), found.past_key_values


class OnnxRuntime(Runtime):
    """An exported folder, in one onnxruntime session without GenAI's search.

    prepack: whether weights are laid out anew for the provider's fast kernels. Without, they stay
    mapped to their file, and the CPU multiplies quantized ones in float32, which is slow.
    """

    def __init__(self, model: Model, provider: str, threads: int, *, prepack: bool = True) -> None:
        check_folder(model.path)
        settings = json.loads((model.path / SETTINGS).read_text(encoding="utf-8"))
        decoder = settings["model"]["decoder"]
        if "input_ids" not in decoder["inputs"] or "logits" not in decoder["outputs"]:
            raise DrupeError(
                str(model.path),
                "takes no token ids or gives no logits (exported without embeddings or head)",
                "Export it with exclude_embeds and exclude_lm_head false to have it judged.",
            )
        self.tokenizer = load_tokenizer(model)
        self.context_length = int(settings["model"]["context_length"])
        self.vocabulary = int(settings["model"]["vocab_size"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # A pool that spins while torch works on the same cores is 4-10 times slower.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        self._session = onnxruntime.InferenceSession(
            str(decoder_file(model.path, settings)), options, providers=[provider]
        )
        self._names: dict[str, str] = decoder["inputs"]
        self._output: str = decoder["outputs"]["logits"]
        # The graph names the size of a head by a symbol; the settings have the number.
        self._head_size = int(decoder["head_size"])
        self._key_value_heads = int(decoder["num_key_value_heads"])
        self._inputs = {item.name: ONNX_DTYPES[item.type] for item in self._session.get_inputs()}
        self._present = self._caches(decoder)

    def _caches(self, decoder: dict[str, Any]) -> dict[str, str]:
        """Return {input of a cache: the output that holds it a run later}; {} where none is known.

        An input that is neither (the state of a layer without attention) cannot be gone on from.
        """
        given = {item.name for item in self._session.get_outputs()}
        found = {
            self._names[f"past_{part}_names"] % layer: decoder["outputs"][f"present_{part}_names"]
            % layer
            for part in ("key", "value")
            for layer in range(int(decoder["num_hidden_layers"]))
            if f"past_{part}_names" in self._names
        }
        own = ("input_ids", "attention_mask", "position_ids")
        others = set(self._inputs) - {self._names.get(name) for name in own}
        return found if others == set(found) and set(found.values()) <= given else {}

    @property
    def keeps_past(self) -> bool:
        """Whether a run can go on where another ended."""
        return bool(self._present)

    @property
    def past_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        one = self._key_value_heads * self._head_size
        return sum(one * np.dtype(self._inputs[name]).itemsize for name in self._present)

    def logits(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits of id lists of equal length: (batch, length, vocabulary), float32."""
        ids = np.asarray(batch)
        (found,) = self._session.run([self._output], self._feeds(ids, self._empty(len(ids)), 0))
        return torch.from_numpy(found.astype(np.float32, copy=False))

    def begin(self, ids: np.ndarray[Any, Any]) -> tuple[torch.Tensor, Past]:
        """Return the logits of ids (batch, length), and what a run goes on from."""
        return self.go_on(ids, self._empty(len(ids)), 0)

    def go_on(self, ids: np.ndarray[Any, Any], past: Past, start: int) -> tuple[torch.Tensor, Past]:
        """Return the logits of ids (batch, length) behind `start` tokens that `past` holds.

        More than one token behind others: of a batch of one alone.
        """
        names = [self._output, *self._present.values()]
        found, *caches = self._session.run(names, self._feeds(ids, past, start))
        logits = torch.from_numpy(found.astype(np.float32, copy=False))
        return logits, Past(dict(zip(self._present, caches, strict=True)))

    def _empty(self, rows: int) -> Past:
        shape = (rows, self._key_value_heads, 0, self._head_size)
        own = {self._names.get(name) for name in ("input_ids", "attention_mask", "position_ids")}
        return Past(
            {name: np.zeros(shape, kind) for name, kind in self._inputs.items() if name not in own}
        )

    def _feeds(
        self, ids: np.ndarray[Any, Any], past: Past, start: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the session's inputs for ids (batch, length) behind `start` others."""
        rows, length = ids.shape
        places = np.broadcast_to(np.arange(start, start + length), ids.shape)
        known = {
            self._names.get("input_ids"): ids,
            self._names.get("attention_mask"): np.ones((rows, start + length)),
            self._names.get("position_ids"): places,
            **past.caches,
        }
        return {name: known[name].astype(kind, copy=False) for name, kind in self._inputs.items()}


@dataclass(frozen=True)
class Past:
    """The keys and values of what was read: {input: (rows, heads, tokens, head size)}."""

    caches: Mapping[str | None, np.ndarray[Any, Any]]

    def rows(self, places: Sequence[int]) -> Past:
        """Return those of some rows, in this order; a row may be there more than once."""
        count = next(iter(self.caches.values())).shape[0]
        if list(places) == list(range(count)):
            return self
        chosen = np.asarray(places, np.int64)
        return Past({name: cache[chosen] for name, cache in self.caches.items()})


def _end_tokens(settings: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens at which an answer ends."""
    named = settings.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return {token for token in ends if token is not None}


def open_runtime(model: Model, target: Target, threads: int) -> Runtime:
    """Return `model` ready to score with `threads` threads.

    Raises NotRunHereError where an export is for a provider that this machine does not have.
    """
    if model.kind in ("hf", "hf-adapter"):
        return TorchRuntime(model, threads)
    check_provider(target, onnxruntime.get_available_providers())
    return OnnxRuntime(model, target.provider, threads)


def check_provider(target: Target, available: Sequence[str]) -> None:
    """Raise NotRunHereError unless the target's provider is one of those that are here."""
    if target.provider not in available:
        raise NotRunHereError(
            target.provider,
            "is not available on this machine, so the exported model cannot be judged here",
            "Judge it on a machine that has the device.",
        )


def write_skipped(metric: str, fault: NotRunHereError, out: Path, job: Job) -> None:
    """Write a score.json that says "not run", and why, and warn the user."""
    why = f"{fault.where} {fault.what}"
    score = {"metric": metric, "value": None, "skipped": why}
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    job.warn(f"{metric} was not measured: {why}")


def checkpoint_bytes(folder: Path) -> int:
    """Return how many bytes the weights of a checkpoint have."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def scoring_dtype(checkpoint: Path) -> torch.dtype | str:
    """Return the dtype in which a checkpoint is loaded for scoring ("auto": its own)."""
    return torch.float32 if checkpoint_bytes(checkpoint) <= FLOAT32_BYTES else "auto"
