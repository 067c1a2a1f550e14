"""Rows of tokens become samples: by the line or joined, in order, drawn, or in a sliding window.

    rows      [a a a] [b b] [c c c c]          max_seq_len 4, joiner j, stride 2
    line-by-line            [a a a] [b b] [c c c c]
    join                    [a a a j] [b b j c] [c c c j]
    join-sliding-window     [a a a j] [a j b b] [b b j c] ...   what is shared has no label again
    ...-random              samples that begin at rows that are drawn by random_seed

Light: plain Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from drupe.core.dataset import TextPreprocess
from drupe.core.job import Job
from drupe.data.row_form import RowForm

NO_LABEL = -100  # what transformers' losses leave out


@dataclass(frozen=True)
class Row:
    """Ids and labels, of one length. answer: where the last segment begins. ends: has its end."""

    ids: list[int]
    labels: list[int]
    answer: int = 0
    ends: bool = False

    def cut(self, begin: int, end: int) -> Row:
        """Return a part of it."""
        return Row(self.ids[begin:end], self.labels[begin:end])

    def __len__(self) -> int:
        return len(self.ids)


def longest(form: RowForm, preprocess: TextPreprocess) -> int:
    """Return the most tokens of a sample: of a pair, those of both parts and the end of text."""
    if form.kind != "pair" or preprocess.joins:
        return preprocess.max_seq_len
    return preprocess.max_seq_len + (preprocess.target_max_len or preprocess.max_seq_len) + 1


def cut_pairs(rows: Iterable[Row], preprocess: TextPreprocess, job: Job) -> Iterator[Row]:
    """Yield pairs, the question cut to max_seq_len and the answer to target_max_len.

    The end of text stays behind an answer that was cut.
    """
    target = preprocess.target_max_len or preprocess.max_seq_len
    count = cut = 0
    for row in rows:
        last = len(row) - row.ends
        kept = [
            *range(min(row.answer, preprocess.max_seq_len)),
            *range(row.answer, min(last, row.answer + target)),
            *range(last, len(row)),
        ]
        count += 1
        cut += len(kept) < len(row)
        ids, labels = [row.ids[place] for place in kept], [row.labels[place] for place in kept]
        yield replace(row, ids=ids, labels=labels)
    if cut:
        job.warn(
            f"{cut} of {count} pairs were cut: questions to max_seq_len {preprocess.max_seq_len}, "
            f"answers to target_max_len {target} tokens."
        )


def blocks(
    rows: Iterable[Row],
    between: Sequence[int],
    longest: int,
    preprocess: TextPreprocess,
    job: Job,
) -> list[Row]:
    """Return the samples of `rows` by the strategy of `preprocess`.

    between: ids of the joiner. longest: most tokens of a sample.
    """
    if preprocess.strategy == "line-by-line":
        return _line_by_line(rows, longest, preprocess, job)
    if preprocess.strategy == "line-by-line-random":
        return _drawn_lines(list(rows), longest, preprocess, job)
    if preprocess.strategy == "join-random":
        return _drawn_blocks(list(rows), between, longest, preprocess, job)
    if preprocess.strategy == "join-sliding-window":
        return _windows(rows, between, longest, preprocess, job)
    return _joined(rows, between, longest, preprocess, job)


def _line_by_line(
    rows: Iterable[Row], longest: int, preprocess: TextPreprocess, job: Job
) -> list[Row]:
    kept: list[Row] = []
    count = cut = short = empty = 0
    for row in rows:
        count += 1
        cut += len(row) > longest
        if len(row) < 2:
            empty += 1
        elif preprocess.drop_short_sequences and len(row) < longest:
            short += 1
        else:
            kept.append(row.cut(0, longest))
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


def _drawn_lines(
    rows: Sequence[Row], longest: int, preprocess: TextPreprocess, job: Job
) -> list[Row]:
    drawing = random.Random(preprocess.random_seed)
    enough = longest if preprocess.drop_short_sequences else 2
    kept: list[Row] = []
    for _ in range(preprocess.max_samples or 0):
        for _ in range(preprocess.random_retries + 1):
            row = rows[drawing.randrange(len(rows))]
            if len(row) >= enough:
                kept.append(row.cut(0, longest))
                break
    _tell_missing(len(kept), enough, preprocess, job)
    return kept


def _drawn_blocks(
    rows: Sequence[Row],
    between: Sequence[int],
    longest: int,
    preprocess: TextPreprocess,
    job: Job,
) -> list[Row]:
    drawing = random.Random(preprocess.random_seed)
    kept: list[Row] = []
    for _ in range(preprocess.max_samples or 0):
        for _ in range(preprocess.random_retries + 1):
            ids: list[int] = []
            labels: list[int] = []
            for row in rows[drawing.randrange(len(rows)) :]:
                ids += [*row.ids, *between]
                labels += [*row.labels, *between]
                if len(ids) >= longest:
                    kept.append(Row(ids, labels).cut(0, longest))
                    break
            if len(ids) >= longest:
                break
    _tell_missing(len(kept), longest, preprocess, job)
    return kept


def _tell_missing(kept: int, enough: int, preprocess: TextPreprocess, job: Job) -> None:
    wanted = preprocess.max_samples or 0
    if kept < wanted:
        job.warn(
            f"{wanted - kept} of {wanted} draws gave fewer than {enough} tokens "
            f"{preprocess.random_retries + 1} times over and were left out."
        )


def _windows(
    rows: Iterable[Row],
    between: Sequence[int],
    longest: int,
    preprocess: TextPreprocess,
    job: Job,
) -> list[Row]:
    """Return overlapping blocks; the first is learnt whole, the others where they are new."""
    stride = preprocess.stride or longest
    shared = longest - stride
    line = _in_one_line(rows, between)
    found = []
    for begin in range(0, len(line) - longest + 1, stride):
        block = line.cut(begin, begin + longest)
        if begin:
            block = replace(block, labels=[NO_LABEL] * shared + block.labels[shared:])
        found.append(block)
        if len(found) == preprocess.max_samples:
            return found
    left = len(line) - ((len(found) - 1) * stride + longest) if found else len(line)
    return _with_the_rest(found, line, left, longest, job)


def _in_one_line(rows: Iterable[Row], between: Sequence[int]) -> Row:
    line = Row([], [])
    for row in rows:
        line.ids.extend((*row.ids, *between))
        line.labels.extend((*row.labels, *between))
    return line


def _joined(
    rows: Iterable[Row],
    between: Sequence[int],
    longest: int,
    preprocess: TextPreprocess,
    job: Job,
) -> list[Row]:
    found: list[Row] = []
    ids: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids += [*row.ids, *between]
        labels += [*row.labels, *between]
        full = len(ids) - len(ids) % longest
        stream = Row(ids, labels)
        found += [stream.cut(begin, begin + longest) for begin in range(0, full, longest)]
        del ids[:full], labels[:full]
        if preprocess.max_samples is not None and len(found) >= preprocess.max_samples:
            return found[: preprocess.max_samples]
    return _with_the_rest(found, Row(ids, labels), len(ids), longest, job)


def _with_the_rest(found: list[Row], rest: Row, left: int, longest: int, job: Job) -> list[Row]:
    """Tell what fills no block; where there is no block at all, the rest is one."""
    if found and left:
        job.note(
            f"The rows gave {len(found)} blocks of {longest} tokens; the last {left} tokens "
            "fill none and were left out."
        )
    elif not found and left > 1:
        job.warn(
            f"All rows together have {left} tokens, less than one block of {longest}: they "
            "are one short block. A smaller max_seq_len gives more, line-by-line a sample a row."
        )
        return [rest]
    return found
