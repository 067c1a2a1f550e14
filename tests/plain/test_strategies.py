"""Rows of tokens become samples: each strategy against a plain version of itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drupe.core.dataset import TextPreprocess
from drupe.core.job import Job
from drupe.data.strategies import NO_LABEL, Row, blocks, cut_pairs

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=2, max_size=9), min_size=1, max_size=8)
LONGEST = st.integers(2, 12)
BETWEEN = [0]
WINDOW = {"strategy": "join-sliding-window", "stride": 1}


def heard() -> tuple[Job, list[str]]:
    lines: list[str] = []
    return Job(Path(), send=lambda event: lines.append(event["text"])), lines


def rows_of(ids: list[list[int]]) -> list[Row]:
    return [Row(each, list(each)) for each in ids]


def made(ids: list[list[int]], longest: int, **fields: Any) -> tuple[list[Row], list[str]]:
    job, lines = heard()
    if not fields["strategy"].startswith("join"):
        fields = {"pad_to_max_len": False, **fields}
    preprocess = TextPreprocess(max_seq_len=longest, **fields)
    return blocks(rows_of(ids), BETWEEN, longest, preprocess, job), lines


def stream(ids: list[list[int]]) -> list[int]:
    return [token for each in ids for token in [*each, *BETWEEN]]


@given(ROWS, LONGEST)
def test_join(ids: list[list[int]], longest: int) -> None:
    found, lines = made(ids, longest, strategy="join")
    whole = stream(ids)
    count = len(whole) // longest
    if not count:
        assert [row.ids for row in found] == [whole]
        assert "less than one block" in lines[0]
        return
    assert [row.ids for row in found] == [
        whole[place * longest : (place + 1) * longest] for place in range(count)
    ]
    assert all(row.labels == row.ids for row in found)
    left = len(whole) % longest
    assert lines == ([] if not left else [lines[0]])
    assert not left or f"the last {left} tokens fill none" in lines[0]


@given(ROWS, LONGEST, st.data())
def test_a_sliding_window_learns_each_token_once(
    ids: list[list[int]], longest: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, longest))
    whole = stream(ids)
    assume(len(whole) >= longest)
    found, _ = made(ids, longest, strategy="join-sliding-window", stride=stride)
    learnt: list[int] = []
    for place, row in enumerate(found):
        assert row.ids == whole[place * stride : place * stride + longest]
        learnt += [label for label in row.labels if label != NO_LABEL]
        assert place == 0 or row.labels[: longest - stride] == [NO_LABEL] * (longest - stride)
    assert learnt == whole[: (len(found) - 1) * stride + longest], "in order, none twice"
    assert len(whole) - len(learnt) < stride, "what is left over fills no block"


@given(ROWS, LONGEST, st.integers(0, 9), st.integers(1, 9))
def test_line_by_line_random_draws_with_replacement(
    ids: list[list[int]], longest: int, seed: int, count: int
) -> None:
    fields = {"strategy": "line-by-line-random", "random_seed": seed, "max_samples": count}
    found, lines = made(ids, longest, **fields)
    drawing = random.Random(seed)
    expected = [ids[drawing.randrange(len(ids))][:longest] for _ in range(count)]
    assert [row.ids for row in found] == expected
    assert lines == []


@given(ROWS, LONGEST, st.integers(0, 9), st.integers(0, 4))
def test_join_random(ids: list[list[int]], longest: int, seed: int, retries: int) -> None:
    fields = {"strategy": "join-random", "random_seed": seed, "random_retries": retries}
    found, lines = made(ids, longest, **fields, max_samples=5)
    drawing = random.Random(seed)
    expected = []
    for _ in range(5):
        for _ in range(retries + 1):
            from_there = stream(ids[drawing.randrange(len(ids)) :])
            if len(from_there) >= longest:
                expected.append(from_there[:longest])
                break
    assert [row.ids for row in found] == expected
    missing = 5 - len(expected)
    assert bool(lines) == bool(missing)
    assert not missing or lines[0].startswith(f"{missing} of 5 draws gave fewer than {longest}")


def test_drawn_lines_that_are_too_short_are_left_out_and_told() -> None:
    fields = {"random_seed": 0, "max_samples": 4, "drop_short_sequences": True}
    found, lines = made([[1, 2]], 3, strategy="line-by-line-random", **fields)
    assert found == []
    assert lines == ["4 of 4 draws gave fewer than 3 tokens 11 times over and were left out."]


@given(ROWS, LONGEST, st.integers(0, 9), st.integers(0, 4))
def test_drawn_lines_that_are_too_short_are_drawn_again(
    ids: list[list[int]], longest: int, seed: int, retries: int
) -> None:
    fields = {"random_seed": seed, "random_retries": retries, "drop_short_sequences": True}
    found, _ = made(ids, longest, strategy="line-by-line-random", max_samples=5, **fields)
    drawing = random.Random(seed)
    expected = []
    for _ in range(5):
        for _ in range(retries + 1):
            drawn = ids[drawing.randrange(len(ids))]
            if len(drawn) >= longest:
                expected.append(drawn[:longest])
                break
    assert [row.ids for row in found] == expected


@pytest.mark.parametrize("fields", [{"strategy": "join"}, WINDOW, {"strategy": "line-by-line"}])
def test_max_samples_takes_the_first(fields: dict[str, Any]) -> None:
    ids = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [1, 3]]
    whole, _ = made(ids, 3, **fields)
    found, _ = made(ids, 3, **fields, max_samples=2)
    assert len(whole) > 2
    assert found == whole[:2]


def test_the_same_seed_draws_the_same() -> None:
    ids = [[n, n + 1, n + 2] for n in range(20)]
    fields = {"strategy": "join-random", "max_samples": 9}
    one, other = (made(ids, 5, random_seed=3, **fields)[0] for _ in range(2))
    assert one == other
    assert made(ids, 5, random_seed=4, **fields)[0] != one


def test_pairs_are_cut_on_both_sides_and_keep_their_end() -> None:
    pair = Row([1, 2, 3, 4, 5, 6, 9], [NO_LABEL] * 3 + [4, 5, 6, 9], answer=3, ends=True)
    job, lines = heard()
    preprocess = TextPreprocess(
        pair_format="default", max_seq_len=2, target_max_len=1, strategy="line-by-line"
    )
    (found,) = cut_pairs([pair], preprocess, job)
    assert found.ids == [1, 2, 4, 9]
    assert found.labels == [NO_LABEL, NO_LABEL, 4, 9]
    assert lines == [
        "1 of 1 pairs were cut: questions to max_seq_len 2, answers to target_max_len 1 tokens."
    ]
    (whole,) = cut_pairs(
        [pair], preprocess.model_copy(update={"max_seq_len": 9, "target_max_len": 3}), job
    )
    assert whole.ids == pair.ids
    assert len(lines) == 1
