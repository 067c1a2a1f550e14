"""What both models are asked when an export is proven: token ids, side by side in one batch.

Rows are filled up on the right, which changes nothing before it in a model that looks back alone;
so a streamed model reads each weight once for all of them.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from drupe.evaluate.runtimes import OnnxRuntime

PROBE_TOKENS = 96
# Of a large model. Its weights are unpacked anew for each batch, however many tokens there are;
# but they are multiplied in float32.
PROBE_TOKENS_OF_LARGE = 24
LARGE_BYTES = 64 * 2**20
LOGITS_BYTES = 96 * 2**20  # of all rows: several such tensors are in memory together
PROBE_TEXTS = (
    "The old man opened the window and looked at the boats. It had rained so that nobody",
    "### Text: I can't believe they remembered my birthday!\n### The tone is:\n",
    "def total(prices: list[float], tax: float = 0.2) -> float:\n    return sum(prices)",
    "In 1969, 3 people flew 384,400 km; 2 of them walked on the Moon for 2 h 31 min. Q: Who? A:",
)


@dataclass(frozen=True)
class Answer:
    """The greedy tokens that an export gave after a prompt, as far as each led clearly."""

    prompt: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Probes:
    """Sequences of ids: texts, a walk over the vocabulary, and at the end prompts with answers."""

    sequences: list[list[int]]
    answers: list[Answer]

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

    def before_answers(self, logits: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the logits from which each token of an answer follows, (tokens, vocabulary)."""
        found = logits[len(logits) - len(self.answers) :]
        return [
            row[len(answer.prompt) - 1 :][: len(answer.tokens)]
            for row, answer in zip(found, self.answers, strict=True)
        ]


def choose_probes(
    runtime: OnnxRuntime, most: int, answers: Sequence[Answer] = (), *, large: bool
) -> Probes:
    """Return what to ask, rows of at most `most` tokens, answers that are longer left out.

    large: the model's weights are unpacked for each batch, and multiplied slowly.
    """
    rows = len(PROBE_TEXTS) + 1 + len(answers)
    most = min(
        PROBE_TOKENS_OF_LARGE if large else PROBE_TOKENS,
        most,
        runtime.context_length,
        max(1, LOGITS_BYTES // (4 * runtime.vocabulary * rows)),
    )
    fitting = [each for each in answers if len(each.prompt) + len(each.tokens) <= most]
    texts = [runtime.tokenizer(text)["input_ids"][:most] for text in PROBE_TEXTS]
    step = max(1, runtime.vocabulary // most)
    walk = [*range(0, runtime.vocabulary, step)][:most]
    asked = [each.prompt + each.tokens for each in fitting]
    return Probes([each for each in [*texts, walk] if each] + asked, fitting)
