"""Amounts as people write them."""

from __future__ import annotations

import pytest

from drupe.core.amounts import read_bytes, read_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("0B", 0), ("20GB", 20 * 10**9), ("1.5 GiB", 3 * 2**29), (" 7 kb ", 7000), ("2TiB", 2**41)],
)
def test_a_size(text: str, count: int) -> None:
    assert read_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "count"), [("30d", 30 * 86400), ("1.5h", 5400), ("2 min", 120), ("1w", 604800)]
)
def test_a_time(text: str, count: float) -> None:
    assert read_seconds(text) == count


@pytest.mark.parametrize("text", ["", "20", "GB", "-1GB", "1e9B", "20GB!", "20 30GB", "٣GB x"])
def test_what_is_no_size_is_told_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r'^should be a size with its unit, such as "20GB"'):
        read_bytes(text)


def test_what_is_no_time_is_told_with_an_example() -> None:
    with pytest.raises(ValueError, match=r'such as "30d" \(units: s, min, h, d, w\)$'):
        read_seconds("20GB")
