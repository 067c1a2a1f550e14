"""Talk with an exported folder, by ONNX Runtime GenAI alone: no torch, no transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

from drupe.checkpoint.external_data import check_folder
from drupe.core.errors import DrupeError

NEW_TOKENS = 256


class Chat:
    """An exported model that is loaded and answers; every prompt starts a new conversation.

    Raises DrupeError when the folder does not load, and for one that names files elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        try:
            check_folder(folder)
            self._model = onnxruntime_genai.Model(str(folder))
        except DrupeError:
            raise
        except Exception as fault:
            raise DrupeError(
                str(folder),
                f"does not load in ONNX Runtime GenAI: {fault}",
                "Give a folder that drupe exported for a device of this machine.",
            ) from fault
        settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.context_length = int(settings["model"]["context_length"])
        self._has_template = _has_template(folder)
        # A chat template writes the begin of text itself; before plain text it is the tokenizer's
        # business, which GenAI leaves out unless told (0.18), other than training did.
        self._templated = onnxruntime_genai.Tokenizer(self._model)
        self._templated.update_options(add_special_tokens="false")
        self._plain = onnxruntime_genai.Tokenizer(self._model)
        self._plain.update_options(add_special_tokens="true")

    def stream(
        self,
        prompt: str,
        *,
        raw: bool = False,
        greedy: bool = False,
        max_new_tokens: int = NEW_TOKENS,
        max_length: int | None = None,
    ) -> Iterator[str]:
        """Yield the answer piece by piece.

        The prompt is a user's message where the model has a chat template; raw: it is taken as it
        is. Sampling is as genai_config.json has it; greedy: always the likeliest token. The end is
        the model's own, max_new_tokens, or max_length tokens with the prompt.
        """
        ids = self._encode_text(self._text(prompt, raw=raw), raw=raw)
        most = len(ids) + max_new_tokens if max_length is None else max_length
        yield from self._stream(ids, most, greedy=greedy)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text as it is; special: after begin of text if that is its habit."""
        tokenizer = self._plain if special else self._templated
        return [int(token) for token in tokenizer.encode(text)]

    def pieces(self, ids: Sequence[int], most: int) -> Iterator[str]:
        """Yield what comes after `ids`, always the likeliest, piece by piece; `most` tokens."""
        return self._stream(ids, len(ids) + most, greedy=True)

    def _stream(self, ids: Sequence[int], most: int, *, greedy: bool) -> Iterator[str]:
        options: dict[str, Any] = {"do_sample": False} if greedy else {}
        generator = self._generator(ids, most, **options)
        pieces = self._plain.create_stream()
        while not generator.is_done():
            generator.generate_next_token()
            if generator.is_done() and generator.get_next_tokens()[0] in self._plain.eos_token_ids:
                return
            piece = pieces.decode(generator.get_next_tokens()[0])
            if piece:
                yield piece

    def choose(
        self, prompt: str, choices: Sequence[str], *, raw: bool = False
    ) -> list[tuple[str, float]]:
        """Return (choice, probability) in the order of `choices`; the probabilities add up to 1.

        A choice counts by the sum of the log-probabilities of its tokens after the prompt.
        """
        text = self._text(prompt, raw=raw)
        prompt_ids = self._encode_text(text, raw=raw)
        scores: list[float] = []
        known: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}
        for choice in choices:
            ids = self._encode_text(text + choice, raw=raw)
            start = max(1, _common_prefix(prompt_ids, ids))
            # Not rewind_to: in 0.18 the logits after it are not those of a fresh generator.
            scores.append(
                sum(self._next(ids[:end], known)[ids[end]] for end in range(start, len(ids)))
            )
        weights = [math.exp(score - max(scores)) for score in scores]
        return [
            (choice, weight / sum(weights)) for choice, weight in zip(choices, weights, strict=True)
        ]

    def _next(
        self, ids: Sequence[int], known: dict[tuple[int, ...], np.ndarray[Any, Any]]
    ) -> np.ndarray[Any, Any]:
        """Return the log-probabilities of what follows `ids`: (vocabulary,), float64."""
        key = tuple(ids)
        if key not in known:
            logits = self._generator(ids, len(ids) + 1).get_logits()[0, -1].astype(np.float64)
            shifted = logits - logits.max()
            known[key] = shifted - np.log(np.exp(shifted).sum())
        return known[key]

    def _generator(
        self, ids: Sequence[int], max_length: int, **options: Any
    ) -> onnxruntime_genai.Generator:
        most = min(self.context_length, max_length)
        if not 0 < len(ids) < most:
            raise DrupeError(
                "prompt",
                f"has {len(ids)} tokens, of 1 to {most - 1} that leave room for an answer",
                "Shorten it, or give the answer more room." if ids else "Write something.",
            )
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=most, **options)
        generator = onnxruntime_genai.Generator(self._model, parameters)
        generator.append_tokens(list(ids))
        return generator

    def _text(self, prompt: str, *, raw: bool) -> str:
        if raw or not self._has_template:
            return prompt
        messages = json.dumps([{"role": "user", "content": prompt}])
        text: str = self._plain.apply_chat_template(messages, add_generation_prompt=True)
        return text

    def _encode_text(self, text: str, *, raw: bool) -> list[int]:
        templated = self._has_template and not raw
        tokenizer = self._templated if templated else self._plain
        return [int(token) for token in tokenizer.encode(text)]


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(
        json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
    )


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
