"""How likely answers are after prompts: each distinct prompt is read once.

    prompt  P tokens, with its answers   "joy"  "sad ness"  "fear"

ONNX Runtime reads prompts of equal length in one batch, and keeps the keys and values; from there
the answers' tokens go on, all answers of all these prompts side by side, one token a step (its
GroupQueryAttention takes several tokens behind a cache for one sequence alone), or, where an
answer is long, by themselves and all tokens at once. Where all prompts begin alike (examples
before each question), that beginning is read once for all.

Where nothing is shared, and in torch, a prompt and its answer are read together.  Heavy file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from drupe.evaluate.runtimes import LOGITS_BYTES, OnnxRuntime, Past, Runtime

CACHE_BYTES = 256 * 2**20  # of keys and values that are kept at once
LONG_ANSWER = 8  # tokens from which on an answer is read by itself, all at once
LONG_BEGINNING = 32  # tokens from which on what all prompts begin with is read once


@dataclass(frozen=True)
class Asked:
    """An answer after a prompt, in tokens; neither is empty."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What is read to know it: the last token is only predicted."""
        return (*self.prompt, *self.answer[:-1])


@dataclass
class Likelihood:
    """How likely an answer is: the log of its probability, and whether it would be said.

    greedy: each of its tokens is the likeliest after those before it.
    """

    log_probability: float = 0.0
    greedy: bool = True

    def add(self, log_probability: float, *, greedy: bool) -> None:
        """Count one more token, or several."""
        self.log_probability += log_probability
        self.greedy &= greedy


def asked_within(ids: Sequence[int], start: int, context_length: int) -> Asked:
    """Return what is asked by `ids`, of which the answer begins at `start`.

    What is longer than the context loses its beginning; nothing predicts a text's first token.
    """
    cut = max(0, len(ids) - 1 - context_length)
    first = max(1, start - cut)
    kept = tuple(ids[cut:])
    return Asked(kept[:first], kept[first:])


def likelihoods(
    runtime: Runtime,
    asked: Sequence[Asked],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Likelihood]:
    """Return how likely each answer is. progress: is told how many of how many are known."""
    distinct = list(dict.fromkeys(asked))
    scorer = _Scorer(runtime, distinct, progress)
    if isinstance(runtime, OnnxRuntime) and runtime.keeps_past:
        scorer.share(runtime)
    scorer.read_the_others()
    return [scorer.found[each] for each in asked]


class _Scorer:
    """The answers that are to be scored, and what is known of them."""

    def __init__(
        self, runtime: Runtime, asked: list[Asked], progress: Callable[[int, int], None]
    ) -> None:
        self._runtime = runtime
        self._asked = asked
        self._progress = progress
        self._done = 0
        self.found = {each: Likelihood() for each in asked}
        self._left = dict.fromkeys(asked)

    def _finish(self, asked: Sequence[Asked]) -> None:
        for each in asked:
            del self._left[each]
        self._done += len(asked)
        self._progress(self._done, len(self._asked))

    def _score(self, asked: Asked, logits: torch.Tensor, first: int) -> None:
        """Count the answer's tokens from number `first` on, which these logits predict, in order.

        logits: (tokens, vocabulary), float32.
        """
        tokens = torch.tensor(asked.answer[first : first + len(logits)])
        found = logits[: len(tokens)].log_softmax(-1)
        picked = found.gather(1, tokens[:, None])[:, 0].double().sum()
        likeliest = bool((found.argmax(-1) == tokens).all())
        self.found[asked].add(float(picked), greedy=likeliest)

    # Together: a prompt and one answer

    def read_the_others(self) -> None:
        """Score what is left by reading each prompt with its answer."""
        together: dict[tuple[int, ...], list[Asked]] = {}
        for each in self._left:
            together.setdefault(each.read, []).append(each)
        inputs = list(together)
        for batch in self._runtime.batches(inputs):
            logits = self._runtime.logits([inputs[index] for index in batch])
            for place, index in enumerate(batch):
                own = together[inputs[index]]
                for each in own:
                    self._score(each, logits[place, len(each.prompt) - 1 :], 0)
                self._finish(own)

    # Shared: a prompt once, and the answers behind it

    def share(self, runtime: OnnxRuntime) -> None:
        """Score the answers whose prompt has several to go on with."""
        groups: dict[tuple[int, ...], list[Asked]] = {}
        for each in self._left:
            groups.setdefault(each.prompt, []).append(each)
        beginning = _beginning(list(groups))
        if beginning >= LONG_BEGINNING and len(groups) > 1:
            self._share_beginning(runtime, groups, beginning)
            return
        shared = {
            prompt: own
            for prompt, own in groups.items()
            if sum(len(each.answer) > 1 for each in own) > 1
        }
        for prompts in _in_batches(shared, runtime):
            logits, past = runtime.begin(np.array(prompts))
            self._go_on(runtime, [shared[prompt] for prompt in prompts], logits[:, -1], past)

    def _share_beginning(
        self, runtime: OnnxRuntime, groups: dict[tuple[int, ...], list[Asked]], beginning: int
    ) -> None:
        """Read what all prompts begin with once, then the rest of each."""
        first = next(iter(groups))[:beginning]
        _, past = runtime.begin(np.array([first]))
        for prompt, own in groups.items():
            rest = np.array([prompt[beginning:]])
            logits, own_past = runtime.go_on(rest, past, beginning)
            self._go_on(runtime, [own], logits[:, -1], own_past)

    def _go_on(
        self,
        runtime: OnnxRuntime,
        groups: Sequence[Sequence[Asked]],
        logits: torch.Tensor,
        past: Past,
    ) -> None:
        """Score the answers behind prompts of one length.

        groups: of each prompt its answers. logits: after the prompts, (prompts, vocabulary).
        """
        flat = [(row, each) for row, own in enumerate(groups) for each in own]
        for row, each in flat:
            self._score(each, logits[row : row + 1], 0)
        going = [(row, each) for row, each in flat if len(each.answer) > 1]
        long = [(row, each) for row, each in going if len(each.answer) > LONG_ANSWER]
        for row, each in long:
            rest = np.array([each.answer[:-1]])
            found, _ = runtime.go_on(rest, past.rows([row]), len(each.prompt))
            self._score(each, found[0], 1)
        self._in_step([pair for pair in going if pair not in long], runtime, past)
        self._finish([each for _, each in flat])

    def _in_step(self, going: list[tuple[int, Asked]], runtime: OnnxRuntime, past: Past) -> None:
        """Score answers side by side, a token a step; those that end drop out."""
        kept, step = past, 0
        rows = [row for row, _ in going]
        while going:
            kept = kept.rows(rows)
            tokens = np.array([[each.answer[step]] for _, each in going])
            start = len(going[0][1].prompt) + step
            logits, kept = runtime.go_on(tokens, kept, start)
            step += 1
            for place, (_, each) in enumerate(going):
                self._score(each, logits[place], step)
            rows = [place for place, (_, each) in enumerate(going) if len(each.answer) > step + 1]
            going = [going[place] for place in rows]


def _beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all prompts begin with in common, less one that each keeps."""
    if not prompts:
        return 0
    least, most = min(prompts), max(prompts)  # in order, so that these two differ the most
    pairs = zip(least, most, strict=False)
    shared = next((place for place, (a, b) in enumerate(pairs) if a != b), len(least))
    return min(shared, min(map(len, prompts)) - 1)


def _in_batches(
    groups: dict[tuple[int, ...], list[Asked]], runtime: OnnxRuntime
) -> list[list[tuple[int, ...]]]:
    """Return the prompts in batches of equal length whose logits and caches stay within bounds."""
    batches: list[list[tuple[int, ...]]] = []
    rows = 0
    for prompt in sorted(groups, key=len):
        more = len(groups[prompt])
        rows += more
        last = batches[-1] if batches else None
        if last and len(last[0]) == len(prompt):
            logits = 4 * runtime.vocabulary * len(prompt) * (len(last) + 1)
            cache = runtime.past_bytes * (len(prompt) + LONG_ANSWER) * rows
            if logits <= LOGITS_BYTES and cache <= CACHE_BYTES:
                last.append(prompt)
                continue
        batches.append([prompt])
        rows = more
    return batches
