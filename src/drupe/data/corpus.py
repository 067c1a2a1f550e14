"""Texts become samples of token ids, and samples a batch of tensors.

A sample is {"input_ids": [...], "labels": [...], "attention_mask": [...] if asked for}, each list
of the same length; labels are the ids themselves, since the model shifts them.

Begin and end of text: a text is tokenized with the tokenizer's own habit (most put a begin of
text, few an end), and the id of the end of text follows where the tokenizer did not put it.
Olive 0.6.2 wrote both into the text, "{bos} {text} {eos}": its spaces became tokens that no
prompt has. We do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError
from drupe.core.job import Job

Sample = dict[str, list[int]]
NO_LABEL = -100  # what transformers' losses leave out


def samples(
    texts: Sequence[str], tokenizer: Any, preprocess: TextPreprocess, job: Job
) -> list[Sample]:
    """Return the samples of `texts` in order, each of at most max_seq_len tokens.

    Raises DrupeError when nothing is left to train on.
    """
    if preprocess.add_special_tokens and tokenizer.eos_token_id is None:
        job.warn("The tokenizer has no end-of-text token: the model will not learn when to stop.")
    rows = _tokenized(texts, tokenizer, preprocess)
    if preprocess.strategy == "join":
        blocks = _joined(rows, tokenizer, preprocess, job)
    else:
        blocks = _line_by_line(rows, preprocess, job)
    if not blocks:
        raise DrupeError(
            "data",
            f"{len(texts)} rows gave no sample of two tokens or more",
            "Look at the data, text_template, max_seq_len and drop_short_sequences.",
        )
    return [_sample(block, mask=preprocess.use_attention_mask) for block in blocks]


def _tokenized(
    texts: Sequence[str], tokenizer: Any, preprocess: TextPreprocess
) -> Iterator[list[int]]:
    special = preprocess.add_special_tokens
    end = tokenizer.eos_token_id
    puts_end = special and tokenizer("a")["input_ids"][-1] == end
    ending = [end] if special and end is not None and not puts_end else []
    size = preprocess.processing_batch_size
    for start in range(0, len(texts), size):
        batch = list(texts[start : start + size])
        # verbose: no warning about rows longer than the model's context; they are cut below
        for ids in tokenizer(batch, add_special_tokens=special, verbose=False)["input_ids"]:
            yield [*ids, *ending]


def _line_by_line(
    rows: Iterator[list[int]], preprocess: TextPreprocess, job: Job
) -> list[list[int]]:
    longest = preprocess.max_seq_len
    kept: list[list[int]] = []
    count = cut = short = empty = 0
    for ids in rows:
        count += 1
        cut += len(ids) > longest
        if len(ids) < 2:
            empty += 1
        elif preprocess.drop_short_sequences and len(ids) < longest:
            short += 1
        else:
            kept.append(ids[:longest])
        if len(kept) == preprocess.max_samples:
            break
    if cut:
        job.warn(
            f"{cut} of {count} rows are longer than max_seq_len {longest} and were cut at the end."
        )
    if short:
        job.note(f"{short} of {count} rows are shorter than {longest} tokens and were left out.")
    if empty:
        job.warn(f"{empty} of {count} rows have fewer than two tokens and were left out.")
    return kept


def _joined(
    rows: Iterator[list[int]], tokenizer: Any, preprocess: TextPreprocess, job: Job
) -> list[list[int]]:
    size = preprocess.max_seq_len
    between = (
        tokenizer(preprocess.joiner, add_special_tokens=False)["input_ids"]
        if preprocess.joiner
        else []
    )
    blocks: list[list[int]] = []
    stream: list[int] = []
    for ids in rows:
        stream += ids
        stream += between
        full = len(stream) - len(stream) % size
        blocks += [stream[start : start + size] for start in range(0, full, size)]
        del stream[:full]
        if preprocess.max_samples is not None and len(blocks) >= preprocess.max_samples:
            return blocks[: preprocess.max_samples]
    if blocks and stream:
        job.note(
            f"The rows gave {len(blocks)} blocks of {size} tokens; the last {len(stream)} tokens "
            "fill none and were left out."
        )
    elif len(stream) > 1:
        job.warn(
            f"All rows together have {len(stream)} tokens, less than one block of {size}: they "
            "are one short block. A smaller max_seq_len gives more, line-by-line a sample a row."
        )
        blocks = [stream]
    return blocks


def _sample(ids: list[int], *, mask: bool) -> Sample:
    sample = {"input_ids": ids, "labels": list(ids)}
    if mask:
        sample["attention_mask"] = [1] * len(ids)
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
        raise DrupeError(
            "tokenizer",
            f'gives the data the token {token} ("{tokenizer.convert_ids_to_tokens(token)}"), but '
            f"the model has embeddings for {size} tokens, 0 to {size - 1}",
            "Take the model's own tokenizer, or remove the token that was added to it.",
        )


def padding(tokenizer: Any, preprocess: TextPreprocess, size: int) -> Padding:
    """Return how the samples of `preprocess` become batches for a model of `size` embeddings.

    Classes of tokenizers add a token for padding that their models may not have.
    """
    own = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    tokens = (*(token for token in own if token is not None and token < size), 0)
    fixed = preprocess.strategy == "line-by-line" and preprocess.pad_to_max_len
    return Padding(
        token=tokens[0],
        length=preprocess.max_seq_len if fixed else None,
    )
