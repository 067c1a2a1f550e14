"""The likeliest tokens by ONNX Runtime GenAI, as a user would ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime_genai


def greedy(
    folder: Path, prompt: Sequence[int], count: int, *, to_the_end: bool = False
) -> list[int]:
    """Return `count` tokens after a prompt; to_the_end: fewer, where the model's own end is one."""
    model = onnxruntime_genai.Model(str(folder))
    parameters = onnxruntime_genai.GeneratorParams(model)
    most = len(prompt) + count
    least = 0 if to_the_end else most
    parameters.set_search_options(do_sample=False, max_length=most, min_length=least)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(list(prompt))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]
