"""What both models are asked when an export is proven: token ids, side by side in one batch.

Rows are filled up on the right, which changes nothing before it in a model that looks back alone;
so a streamed model reads each weight once for all of them.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drupe.evaluate.runtimes import OnnxRuntime

PROBE_TOKENS = 96
# Of a large model. Its weights are unpacked anew for each batch, however many tokens there are;
# but they are multiplied in float32.
PROBE_TOKENS_OF_LARGE = 24
LARGE_BYTES = 512 * 2**20
LOGITS_BYTES = 96 * 2**20  # of all rows: several such tensors are in memory together
PROBE_TEXTS = (
    "The old man opened the window and looked at the boats. It had rained so that nobody",
    "### Text: I can't believe they remembered my birthday!\n### The tone is:\n",
    "def total(prices: list[float], tax: float = 0.2) -> float:\n    return sum(prices)",
    "In 1969, 3 people flew 384,400 km; 2 of them walked on the Moon for 2 h 31 min. Q: Who? A:",
)


@dataclass(frozen=True)
class Golden:
    """The greedy tokens that an export gave after a prompt, as far as each led clearly."""

    prompt: list[int]
    tokens: list[int]

    @classmethod
    def read(cls, goldens: dict[str, Any]) -> list[Golden]:
        """Return those of a goldens.json that have tokens."""
        return [cls(each["ids"], each["tokens"]) for each in goldens["prompts"] if each["tokens"]]


@dataclass(frozen=True)
class Probes:
    """Sequences of ids: texts, a walk over the vocabulary, and the golden prompts with answers."""

    sequences: list[list[int]]
    goldens: list[Golden]

    @property
    def batch(self) -> list[list[int]]:
        """The rows, all of one length."""
        longest = max(map(len, self.sequences))
        return [row + [row[-1]] * (longest - len(row)) for row in self.sequences]

    @property
    def positions(self) -> int:
        """How many positions are looked at."""
        return sum(map(len, self.sequences))

    def cut(
        self,
        logits: torch.Tensor,  # (rows, columns, values)
    ) -> list[torch.Tensor]:
        """Return what belongs to each sequence: (its length, values)."""
        return [row[: len(ids)] for row, ids in zip(logits, self.sequences, strict=True)]

    def answers(self, logits: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the logits from which each golden token would follow, (tokens, values) each."""
        found = logits[len(logits) - len(self.goldens) :] if self.goldens else []
        return [
            row[len(golden.prompt) - 1 :][: len(golden.tokens)]
            for row, golden in zip(found, self.goldens, strict=True)
        ]


def choose_probes(
    runtime: OnnxRuntime, goldens: Sequence[Golden], most: int, *, large: bool
) -> Probes:
    """Return what to ask, rows of at most `most` tokens, golden prompts that are longer left out.

    large: the model's weights are unpacked for each batch, and multiplied slowly.
    """
    rows = len(PROBE_TEXTS) + 1 + len(goldens)
    most = min(
        PROBE_TOKENS_OF_LARGE if large else PROBE_TOKENS,
        most,
        runtime.context_length,
        max(1, LOGITS_BYTES // (4 * runtime.vocabulary * rows)),
    )
    fitting = [each for each in goldens if len(each.prompt) + len(each.tokens) <= most]
    texts = [runtime.tokenizer(text)["input_ids"][:most] for text in PROBE_TEXTS]
    step = max(1, runtime.vocabulary // most)
    walk = [*range(0, runtime.vocabulary, step)][:most]
    asked = [each.prompt + each.tokens for each in fitting]
    return Probes([each for each in [*texts, walk] if each] + asked, fitting)
