"""Points, limits, ranking, the front and the samplers, as pure functions of what they are given."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.core.goal import Goal, Number
from drupe.search.binding import bindings, infeasible_words
from drupe.search.constraints import (
    Limit,
    Objective,
    limits_of,
    missing,
    ranked_by,
    standing_of,
)
from drupe.search.pareto import front
from drupe.search.ranking import ranked
from drupe.search.samplers import make_sampler
from drupe.search.space import Axis, Option, Point, Space
from drupe.search.trial import Trial

QUALITY = Objective("accuracy", "accuracy", "accuracy_score", True, 1)
COST = Objective("size", "size", "bytes", False, 2)
BOTH = (QUALITY, COST)


def tried(number: int, accuracy: Any = None, size: Any = None, **more: Any) -> Trial:
    """Return a trial; a number is a value or (value, low, high)."""
    given_numbers = {"accuracy": accuracy, "size": size}
    numbers = {
        name: value
        if isinstance(value, Number)
        else Number(*value)
        if isinstance(value, tuple)
        else Number(value)
        for name, value in given_numbers.items()
        if value is not None
    }
    return Trial(number, Point.of(n=number), 1, more.pop("state", "measured"), numbers, **more)


def at_most(value: float, objective: Objective = COST) -> Limit:
    return Limit(objective, value, Goal(value=value))


axes = st.recursive(
    st.just(()),
    lambda inner: st.lists(st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=3).map(
        lambda listed: tuple(listed)
    ),  # type: ignore[arg-type, return-value]
    max_leaves=8,
)


def space_of(described: Sequence[Any], name: str = "a") -> Space:
    """Return the space of nested lists: an axis a list, an option its axes."""
    return Space(
        tuple(
            Axis(
                f"{name}{place}",
                tuple(
                    Option(number, space_of(inner, f"{name}{place}{number}").axes)
                    for number, inner in enumerate(options)
                ),
            )
            for place, options in enumerate(described)
        )
    )


@given(axes)
def test_points_are_numbered_without_a_gap_and_each_differs(described: Any) -> None:
    space = space_of(described)
    points = list(space)
    assert len(points) == space.size == len(set(points)) == len({p.digest for p in points})
    assert [space.number(point) for point in points] == list(range(space.size))
    names = [axis.name for axis in space.every_axis()]
    assert {name for point in points for name in point.values} == set(names)


def test_an_axis_is_asked_where_its_option_was_chosen() -> None:
    inner = Axis.of("passes.q.bits", [4, 8])
    space = Space(
        (
            Axis("passes.q", (Option("Rtn", (inner,)), Option("None"))),
            Axis.of("passes.b.precision", ["int4", "fp32"]),
        )
    )
    assert [point.words for point in space] == [
        "q: Rtn, bits 4; b: precision int4",
        "q: Rtn, bits 4; b: precision fp32",
        "q: Rtn, bits 8; b: precision int4",
        "q: Rtn, bits 8; b: precision fp32",
        "q: None; b: precision int4",
        "q: None; b: precision fp32",
    ]
    with pytest.raises(IndexError, match="6"):
        space.point(6)
    with pytest.raises(KeyError, match="Gptq"):
        space.number(Point((("passes.q", json.dumps("Gptq")),)))


@pytest.mark.parametrize(
    ("number", "standing"),
    [
        (Number(5), "keeps"),
        (Number(6), "breaks"),
        (Number(4, 3, 5), "keeps"),
        (Number(4, 3, 6), "undecided"),
        (Number(9, 3, 12), "undecided"),
        (Number(7, 6, 8), "breaks"),
    ],
)
def test_an_interval_decides(number: Number, standing: str) -> None:
    assert at_most(5).standing(number) == standing


def test_limits_follow_the_baseline_whatever_the_order_of_the_goals() -> None:
    relative = Goal(type="percent-max-degradation", value=1)
    loss = Objective("loss", "perplexity", "perplexity", False, None, (relative, Goal(value=9)))
    found = limits_of((QUALITY, loss), {"loss": Number(10)})
    assert [limit.value for limit in found] == [pytest.approx(10.1), 9]
    with pytest.raises(ValueError, match="needs the input model's number"):
        limits_of((loss,), {})


def test_what_ranks_goes_by_priority_and_what_lacks_a_number_is_told() -> None:
    told_alone = Objective("seconds", "latency", "avg", False)
    assert ranked_by((COST, told_alone, QUALITY)) == BOTH
    assert missing({"accuracy": Number(float("nan"))}, (*BOTH, told_alone)) == ["accuracy", "size"]


def test_a_point_stands_as_to_the_limit_that_it_keeps_worst() -> None:
    numbers = {"accuracy": Number(0.9, 0.8, 0.95), "size": Number(4)}
    least = Limit(QUALITY, 0.85, Goal(value=0.85))
    assert standing_of(numbers, ()) == "keeps"
    assert standing_of(numbers, (at_most(5), least)) == "undecided"
    assert standing_of(numbers, (at_most(3), least)) == "breaks"


def test_limits_first_then_priorities_and_overlap_is_a_tie() -> None:
    trials = [
        tried(1, 0.99, 9),
        tried(2, (0.90, 0.88, 0.92), 3),
        tried(3, (0.91, 0.89, 0.93), 4),
        tried(4, (0.80, 0.78, 0.82), 1),
        tried(5, None, 1),
        tried(6, 0.99, 1, state="failed"),
        tried(7, 0.95, (5, 4, 6)),
    ]
    found = ranked(trials, BOTH, (at_most(5),))
    assert [trial.number for trial in found] == [2, 3, 4, 7, 1]


trials_drawn = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)), max_size=12
)


@given(trials_drawn, st.randoms())
def test_ranking_and_front_do_not_depend_on_the_order_in_which_trials_came(
    drawn: list[tuple[int, int, int]], chance: Any
) -> None:
    trials = [
        tried(number, (accuracy, accuracy - width, accuracy + width), size)
        for number, (accuracy, size, width) in enumerate(drawn, 1)
    ]
    mixed = chance.sample(trials, len(trials))
    limits = (at_most(2),)
    assert ranked(mixed, BOTH, limits) == ranked(trials, BOTH, limits)
    assert {t.number for t in front(mixed, BOTH)} == {t.number for t in front(trials, BOTH)}


@given(trials_drawn)
def test_the_front_is_what_nothing_beats(drawn: list[tuple[int, int, int]]) -> None:
    trials = [tried(number, a, s) for number, (a, s, _) in enumerate(drawn, 1)]

    def beaten(trial: Trial) -> bool:
        own = trial.numbers
        return any(
            other.numbers["accuracy"].value >= own["accuracy"].value
            and other.numbers["size"].value <= own["size"].value
            and other.numbers != own
            for other in trials
        )

    assert front(trials, BOTH) == [trial for trial in trials if not beaten(trial)]
    if trials:
        assert ranked(trials, BOTH, ())[0] in front(trials, BOTH)


def test_what_lacks_a_number_is_on_no_front() -> None:
    assert front([tried(1, 0.9), tried(2, 0.8, 1)], BOTH) == [tried(2, 0.8, 1)]


def shown(objective: Objective, value: float) -> str:
    return f"{value:g}"


def test_a_limit_that_nothing_keeps_binds() -> None:
    trials = [tried(1, 0.9, 9), tried(2, 0.8, 7), tried(3, None, 1)]
    found = bindings(trials, BOTH, (at_most(5),))
    assert infeasible_words(found, shown) == (
        "the size limit of 5 binds; the best reachable is 7 with n 2"
    )
    assert bindings([*trials, tried(4, 0.1, 5)], BOTH, (at_most(5),)) == []
    assert bindings([tried(3, None, 1)], BOTH, (at_most(5),)) == [], "no limit is to blame"


def test_limits_bind_together() -> None:
    trials = [tried(1, 0.9, 9), tried(2, 0.7, 4), tried(3, 0.75, 5), tried(4, 0.799, 5.01)]
    found = bindings(trials, BOTH, (at_most(5), Limit(QUALITY, 0.8, Goal(value=0.8))))
    assert infeasible_words(found, shown) == (
        "the size limit of 5 and the accuracy limit of 0.8 bind together; "
        "the best reachable is size 5, accuracy 0.75 with n 3"
    )


SPACE = space_of([[[], [], []], [[[[], []]], []], [[], []]])


@pytest.mark.parametrize("name", ["sequential", "random", "tpe"])
@pytest.mark.parametrize("count", [1, 4])
def test_each_point_is_asked_once_until_none_is_left(name: str, count: int) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    orders = []
    for seed in (0, 0, 1):
        sampler = make_sampler(name, SPACE, BOTH, (at_most(3),), seed, {})
        asked: list[Point] = []
        while points := sampler.ask(count):
            asked += points
            for point in points:
                number = SPACE.number(point)
                state = "failed" if number == 3 else "infeasible" if number == 5 else "measured"
                more: dict[str, Any] = {"state": state}
                trial = tried(len(asked), number % 5, None if number == 4 else number % 7, **more)
                sampler.tell(Trial(trial.number, point, 1, trial.state, trial.numbers))
        assert sorted(map(SPACE.number, asked)) == list(range(SPACE.size))
        if name == "tpe":
            states = [trial.state.name for trial in sampler.study.trials]  # type: ignore[attr-defined]
            assert "RUNNING" not in states
            assert states.count("COMPLETE") >= SPACE.size - 3
        orders.append(asked)
    assert orders[0] == orders[1], "deterministic by its seed"
    assert (orders[0] == orders[2]) == (name == "sequential")


def test_drawing_by_chance_costs_no_list_of_the_space() -> None:
    huge = Space(tuple(Axis.of(f"a{number}", range(10)) for number in range(12)))
    assert huge.size == 10**12
    drawn = make_sampler("random", huge, BOTH, (), 3, {}).ask(1000)
    assert len(set(drawn)) == 1000


def test_every_point_is_as_likely_to_be_drawn_first() -> None:
    space = Space((Axis.of("a", [0, 1, 2]),))
    firsts = [make_sampler("random", space, (), (), seed, {}).ask(3) for seed in range(600)]
    counts = [
        firsts.count(list(map(space.point, each))) for each in itertools.permutations(range(3))
    ]
    assert min(counts) > 60


def test_tpe_is_told_the_limits() -> None:
    """Where the best values break a limit, what keeps it is asked for more often than by chance."""
    pytest.importorskip("optuna")
    space = Space((Axis.of("a", range(12)), Axis.of("b", range(12))))
    asked = {}
    for limits in ((), (at_most(4),)):
        kept = 0
        for seed in range(3):
            sampler = make_sampler("tpe", space, BOTH, limits, seed, {})
            for number in range(60):
                [point] = sampler.ask(1)
                a, b = point.values["a"], point.values["b"]
                numbers = {"accuracy": Number(a + b), "size": Number(a)}
                sampler.tell(Trial(number, point, 1, "measured", numbers))
                kept += a <= 4
        asked[bool(limits)] = kept
    assert asked[True] > 1.3 * asked[False]
