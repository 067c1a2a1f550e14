"""An exported folder that answers by ONNX Runtime GenAI and tells the seconds of each token.

The program of `evaluate.timed`; it holds the runtime and nothing else.  Heavy file.
"""

from __future__ import annotations

import json
import sys
import time

import onnxruntime_genai

from drupe.core.model import Model
from drupe.evaluate.timed import prompt_ids, serve


class _Folder:
    """An exported model as it is deployed: threads and provider are those of its settings."""

    def __init__(self, model: Model, threads: int) -> None:
        settings = json.loads((model.path / "genai_config.json").read_text(encoding="utf-8"))
        self.context = int(settings["model"]["context_length"])
        self._vocabulary = int(settings["model"]["vocab_size"])
        self._model = onnxruntime_genai.Model(str(model.path))

    def answer(self, prompt_length: int, new_tokens: int) -> list[float]:
        """Return the seconds of each token; the likeliest is taken, the end of text never."""
        ids = prompt_ids(prompt_length, self._vocabulary)
        most = prompt_length + new_tokens
        begun = time.perf_counter()
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, max_length=most, min_length=most)
        generator = onnxruntime_genai.Generator(self._model, parameters)
        generator.append_tokens(ids)
        seconds = []
        for _ in range(new_tokens):
            generator.generate_next_token()
            now = time.perf_counter()
            seconds.append(now - begun)
            begun = now
        return seconds


if __name__ == "__main__":
    sys.exit(serve(_Folder))
