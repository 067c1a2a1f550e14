"""The line through what real sessions took, and the table of times with its file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from drupe.cost import times
from drupe.cost.bill import Attention, Product
from drupe.cost.correction import (
    LEAST_FACTOR,
    MOST_FACTOR,
    NONE,
    Line,
    Session,
    corrected_by,
    line_through,
)
from drupe.cost.memory import held_bytes
from drupe.cost.times import (
    MOST_SESSIONS,
    Measurement,
    Nodes,
    add_session,
    add_times,
    read_sessions,
    read_times,
    table_file,
)

# ---- the line


def test_no_session_corrects_nothing() -> None:
    assert line_through([]) == Line(0.0, 1.0)
    assert NONE.token(0.25) == 0.25
    assert NONE.reason == "time: the sum over the operators; no session has been measured yet"


def test_one_session_tells_what_is_the_same_for_each_token() -> None:
    line = line_through([(0.010, 0.013)])
    assert line.factor == 1
    assert line.offset == pytest.approx(0.003)


def test_one_session_that_was_faster_than_its_sum_tells_the_factor() -> None:
    line = line_through([(0.010, 0.008)])
    assert line == Line(0.0, pytest.approx(0.8))  # type: ignore[arg-type]


def test_two_sessions_tell_both() -> None:
    line = line_through([(0.010, 0.013), (0.100, 0.112)])
    assert line.factor == pytest.approx(1.1)
    assert line.offset == pytest.approx(0.002)
    assert line.at(0.050) == pytest.approx(0.057)


def test_two_sessions_of_the_same_sum_tell_no_slope() -> None:
    line = line_through([(0.010, 0.012), (0.010, 0.014)])
    assert line.factor == 1
    assert 0.002 < line.offset < 0.004


def test_an_offset_is_never_negative_and_a_factor_within_its_bounds() -> None:
    chance = random.Random(0)
    for _ in range(300):
        points = [(chance.uniform(0.001, 1), chance.uniform(0.001, 1)) for _ in range(3)]
        line = line_through(points)
        assert line.offset >= 0
        assert LEAST_FACTOR <= line.factor <= MOST_FACTOR


def test_errors_weigh_by_their_share_so_a_short_session_counts_as_a_long_one() -> None:
    """A tenth of noise on each: the short one's time is met within that."""
    line = line_through([(0.001, 0.0022), (0.5, 0.55), (1.0, 1.1)])
    assert line.at(0.001) == pytest.approx(0.0022, rel=0.02)


def test_prompt_and_token_have_a_line_each() -> None:
    sessions = [Session(1.0, 0.010, 1.5, 0.020), Session(2.0, 0.020, 2.5, 0.030)]
    found = corrected_by(sessions)
    assert found.first(3.0) == pytest.approx(3.5)
    assert found.token(0.030) == pytest.approx(0.040)
    assert found.reason == "time: corrected by 2 sessions, a token 10 ms + 1 of the sum"


# ---- the table

PRODUCT = Product("MatMulNBits", 512, 192, 4, 32, level=4)
MEASUREMENTS = [
    Measurement(PRODUCT, 1, 0, 2, 2**20),
    Measurement(PRODUCT, 64, 0, 2),
    Measurement(Attention(6, 2, 32, window=16), 1, 80, 2),
    Measurement(Nodes(192, 512), 1, 0, 2),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = table_file({"DRUPE_TIMES": str(tmp_path / "times")})
    assert file is not None
    return file


def test_a_measurement_has_a_name_of_its_own_and_comes_back_from_json() -> None:
    assert len({each.name for each in MEASUREMENTS}) == len(MEASUREMENTS)
    for each in MEASUREMENTS:
        assert Measurement.from_json(json.loads(json.dumps(each.to_json()))) == each
    other = Measurement(Product("MatMulNBits", 512, 192, 4, 64, level=4), 1, 0, 2, 2**20)
    assert other.name != MEASUREMENTS[0].name


def test_times_are_kept_and_newer_ones_take_the_place_of_older_ones(table: Path) -> None:
    assert read_times(table) == {}
    add_times({"a": 1.0, "b": 2.0}, table)
    add_times({"b": 3.0}, table)
    assert read_times(table) == {"a": 1.0, "b": 3.0}


def test_sessions_are_kept_beside_them_the_latest_only(table: Path) -> None:
    add_times({"a": 1.0}, table)
    for number in range(1, MOST_SESSIONS + 4):
        add_session("shape", Session(1, 2, 3, number), table)
    add_session("another", Session(5, 6, 7, 8), table)
    found = read_sessions("shape", table)
    assert [each.token for each in found] == list(range(4, MOST_SESSIONS + 4))
    assert read_sessions("another", table) == [Session(5, 6, 7, 8)]
    assert read_times(table) == {"a": 1.0}


def test_another_machine_has_a_table_of_its_own(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_times({"a": 1.0}, table)
    here = times.speed_class()
    monkeypatch.setattr(times, "speed_class", lambda: {**here, "cores": 999})
    assert table_file({"DRUPE_TIMES": str(tmp_path / "times")}) != table
    assert read_times(table) == {}, "were it copied there, it would still not be told"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 2}', '{"format": 1, "class": {}, "seconds": {}}']
)
def test_a_file_that_is_no_table_is_as_if_it_were_not_there(table: Path, content: str) -> None:
    table.parent.mkdir(parents=True)
    table.write_text(content)
    assert read_times(table) == {}
    assert read_sessions("shape", table) == []
    add_times({"a": 1.0}, table)
    assert read_times(table) == {"a": 1.0}


def test_what_is_no_time_is_passed_over(table: Path) -> None:
    add_times({"a": 1.0, "b": -1.0, "c": 0.0}, table)
    assert read_times(table) == {"a": 1.0}


def test_nothing_is_kept_where_nothing_is_to_be() -> None:
    assert table_file({"DRUPE_TIMES": ""}) is None
    add_times({"a": 1.0}, None)
    add_session("shape", Session(1, 2, 3, 4), None)
    assert read_times(None) == {}
    found = table_file({"XDG_CACHE_HOME": "/caches"})
    assert found is None or "drupe" in found.parts


# ---- memory


@pytest.mark.parametrize(
    ("product", "size"),
    [
        (Product("MatMul", 100, 64), 100 * 64 * 4),
        (Product("MatMulNBits", 100, 64, 4, 32, level=4), 100 * (32 + 2 * 4 + 2 * 4)),
        (Product("MatMulNBits", 100, 64, 4, 32, level=1), 100 * 32),
        (Product("MatMulNBits", 100, 64, 8, 64, level=4), 100 * (64 + 4 + 4)),
    ],
)
def test_what_the_weights_of_a_product_take_in_memory(product: Product, size: int) -> None:
    assert held_bytes(product) == size
