"""Texts become samples of token ids, and samples a batch of tensors.

A sample is {"input_ids": [...], "labels": [...], "attention_mask": [...] if asked for}, each list
of the same length; labels are the ids themselves, since the model shifts them, and NO_LABEL where
nothing is to be learnt.

Begin and end of text: a text is tokenized with the tokenizer's own habit (most put a begin of
text, few an end), and the id of the end of text follows where the tokenizer did not put it.
Olive 0.6.2 wrote both into the text, "{bos} {text} {eos}": its spaces became tokens that no
prompt has. We do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.data import strategies
from drupe.data.row_form import RowForm, Segment
from drupe.data.strategies import NO_LABEL, Row
from drupe.data.vocabulary import without_embedding

Sample = dict[str, list[int]]


def samples(
    examples: Sequence[Sequence[Segment]],
    form: RowForm,
    tokenizer: Any,
    preprocess: TextPreprocess,
    job: Job,
) -> list[Sample]:
    """Return the samples of `examples`, each of at most max_seq_len tokens.

    Raises DrupeError when nothing is left to train on.
    """
    if preprocess.add_special_tokens and tokenizer.eos_token_id is None:
        job.warn("The tokenizer has no end-of-text token: the model will not learn when to stop.")
    rows = tokenized(examples, form, tokenizer, preprocess)
    if form.kind == "pair" and not preprocess.joins:
        rows = strategies.cut_pairs(rows, preprocess, job)
    between: list[int] = []
    if preprocess.joins and preprocess.joiner:
        between = tokenizer(preprocess.joiner, add_special_tokens=False)["input_ids"]
    blocks = strategies.blocks(rows, between, strategies.longest(form, preprocess), preprocess, job)
    learnt = [block for block in blocks if any(label != NO_LABEL for label in block.labels[1:])]
    if len(learnt) < len(blocks):
        job.warn(
            f"{len(blocks) - len(learnt)} of {len(blocks)} samples hold no token of an answer "
            "and were left out: a longer max_seq_len keeps more."
        )
    if not learnt:
        raise DrupeError(
            "data",
            f"{len(examples)} rows gave no sample of two tokens or more",
            "Look at the data, text_template, max_seq_len and drop_short_sequences.",
        )
    return [_sample(block, mask=preprocess.use_attention_mask) for block in learnt]


def tokenized(
    examples: Sequence[Sequence[Segment]],
    form: RowForm,
    tokenizer: Any,
    preprocess: TextPreprocess,
) -> Iterator[Row]:
    """Yield each example as ids and labels, whole.

    The whole text is tokenized at once, so that no token is made that text would not give; a token
    belongs to the segment in which it begins.
    """
    special = preprocess.add_special_tokens and form.kind != "messages"
    end = tokenizer.eos_token_id
    puts_end = special and tokenizer("a")["input_ids"][-1] == end
    ending = [end] if special and end is not None and not puts_end else []
    size = preprocess.processing_batch_size
    for start in range(0, len(examples), size):
        batch = examples[start : start + size]
        marked = any(len(example) > 1 for example in batch)
        # verbose: no warning about rows longer than the model's context; they are cut later
        read = tokenizer(
            ["".join(segment.text for segment in example) for example in batch],
            add_special_tokens=special,
            return_offsets_mapping=marked,
            verbose=False,
        )
        for place, example in enumerate(batch):
            ids = read["input_ids"][place]
            offsets = read["offset_mapping"][place] if marked else None
            yield _row(ids, offsets, example, ending, ends_itself=puts_end)


def _row(
    ids: list[int],
    offsets: Sequence[tuple[int, int]] | None,
    example: Sequence[Segment],
    ending: list[int],
    *,
    ends_itself: bool,
) -> Row:
    whole = [*ids, *ending]
    if offsets is None:
        return Row(whole, list(whole) if example[0].learnt else [NO_LABEL] * len(whole))
    borders = list(itertools.accumulate(len(segment.text) for segment in example))
    last = len(example) - 1
    labels: list[int] = []
    answer = None
    current = 0
    for place, (token, (begin, _)) in enumerate(zip(ids, offsets, strict=True)):
        if ends_itself and place == len(ids) - 1:
            current = last  # an end of text lies nowhere in the text
        while current < last and begin >= borders[current]:
            current += 1
        if current == last and answer is None:
            answer = place
        labels.append(token if example[current].learnt else NO_LABEL)
    labels += [token if example[-1].learnt else NO_LABEL for token in ending]
    return Row(whole, labels, len(ids) if answer is None else answer, bool(ending) or ends_itself)


def _sample(row: Row, *, mask: bool) -> Sample:
    sample = {"input_ids": row.ids, "labels": row.labels}
    if mask:
        sample["attention_mask"] = [1] * len(row.ids)
    return sample


@dataclass(frozen=True)
class Padding:
    """Make one batch of samples: (batch, length), padded on the right, no loss on padding.

    length: pad to at least so many tokens; None: to the longest sample of the batch.
    Without an attention mask it does no harm: causal attention never looks to the right.
    """

    token: int
    length: int | None = None

    def __call__(self, batch: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Return each list of the samples as one tensor (batch, length), int64."""
        longest = max(self.length or 0, *(len(sample["input_ids"]) for sample in batch))
        fill = {"input_ids": self.token, "labels": NO_LABEL, "attention_mask": 0}
        return {
            name: torch.tensor(
                [
                    sample[name] + [fill[name]] * (longest - len(sample["input_ids"]))
                    for sample in batch
                ]
            )
            for name in batch[0]
        }


def check_vocabulary(samples: Iterable[Sample], tokenizer: Any, size: int) -> None:
    """Raise DrupeError where a sample has a token beyond a model's `size` embeddings."""
    token = max((max(sample["input_ids"]) for sample in samples), default=0)
    if token >= size:
        written = tokenizer.convert_ids_to_tokens(token)
        raise DrupeError("tokenizer", *without_embedding(token, written, size))


def padding(tokenizer: Any, preprocess: TextPreprocess, length: int, size: int) -> Padding:
    """Return how samples, at most `length` long, become batches for `size` embeddings.

    Classes of tokenizers add a token for padding that their models may not have.
    """
    own = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    tokens = (*(token for token in own if token is not None and token < size), 0)
    fixed = not preprocess.joins and preprocess.pad_to_max_len
    return Padding(
        token=tokens[0],
        length=length if fixed else None,
    )
