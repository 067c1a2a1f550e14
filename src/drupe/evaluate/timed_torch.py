"""A checkpoint, or an adapter on its base, that answers in torch, each token timed.

The program of `evaluate.timed`.  Heavy file.
"""

from __future__ import annotations

import sys
import time

import torch

from drupe.checkpoint.load import load_causal_lm
from drupe.core.model import Model
from drupe.evaluate.timed import prompt_ids, serve


class _Checkpoint:
    """A model in the type of its own weights, as transformers loads it."""

    def __init__(self, model: Model, threads: int) -> None:
        torch.set_num_threads(threads)
        network = load_causal_lm(model.base or model, "auto")
        if model.kind == "hf-adapter":
            from peft import PeftModel

            network = PeftModel.from_pretrained(network, model.path)
        self._network = network.eval()
        self.context = int(getattr(network.config, "max_position_embeddings", 2**31))
        self._vocabulary = int(network.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def answer(self, prompt_length: int, new_tokens: int) -> list[float]:
        """Return the seconds of each token; the likeliest is taken, the end of text never."""
        ids = torch.tensor([prompt_ids(prompt_length, self._vocabulary)])
        cache, seconds, begun = None, [], time.perf_counter()
        for _ in range(new_tokens):
            told = self._network(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = told.past_key_values, told.logits[:, -1:].argmax(-1)
            now = time.perf_counter()
            seconds.append(now - begun)
            begun = now
        return seconds


if __name__ == "__main__":
    sys.exit(serve(_Checkpoint))
