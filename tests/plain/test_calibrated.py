"""Predictions that a first measurement sets right, and what is known without one."""

from __future__ import annotations

import pytest

from drupe.core.goal import Goal, Number
from drupe.search.binding import bindings, infeasible_words
from drupe.search.calibrated import Calibrated
from drupe.search.constraints import Limit, Objective
from drupe.search.economy import Prediction
from drupe.search.searched import Searched
from drupe.search.space import Axis, Point, Space
from drupe.search.trial import Trial

LOSS = Objective("loss", "loss", "loss", False, 1)
SIZE = Objective("size", "size", "size", False, unit="bytes")
TIME = Objective("time", "time", "time", False, unit="ms")
SPACE = Space((Axis.of("bits", range(1, 9)),))


def below(objective: Objective, value: float) -> Limit:
    return Limit(objective, value, Goal(value=value))


def predict(point: Point) -> Prediction:
    """Fewer bits: smaller, faster, worse. The loss is foretold as a distance from 2."""
    bits = point.values["bits"]
    return Prediction({"size": 100.0 * bits}, {"loss": 2 + 1 / bits, "time": 10.0 * bits})


def measured(number: int, point: Point, *, loss: float, slower: float) -> Trial:
    bits = point.values["bits"]
    numbers = {
        "loss": Number(2 + loss / bits),
        "size": Number(100.0 * bits),
        "time": Number(10.0 * bits * slower),
    }
    return Trial(number, point, 1, "measured", numbers)


def search(limits: tuple[Limit, ...], *, loss: float, slower: float) -> tuple[list[int], Searched]:
    """Return the bits that were measured, in their order, and what the search came to."""
    objectives = (LOSS, SIZE, TIME)
    sampler = Calibrated(SPACE, objectives, limits, predict, {"loss": 2.0}, most=4)
    trials = [
        Trial(number, point, 1, "infeasible", numbers, "known beforehand")
        for number, (point, numbers) in enumerate(sampler.excluded, 1)
    ]
    asked = []
    while points := sampler.ask(1):
        [point] = points
        trial = measured(len(trials) + 1, point, loss=loss, slower=slower)
        asked.append(point.values["bits"])
        trials.append(trial)
        sampler.tell(trial)
    return asked, Searched(
        tuple(trials), objectives, limits, {"loss": Number(2.0)}, SPACE.size, len(trials), 1
    )


def test_what_is_foretold_best_is_measured_first() -> None:
    asked, searched = search((below(TIME, 45),), loss=1, slower=1)
    assert asked[0] == 4, "the best that is foretold to keep the limit"
    assert searched.chosen[0].point.values == {"bits": 4}


@pytest.mark.parametrize("slower", [0.5, 3.0])
def test_a_machine_that_is_faster_or_slower_than_foretold(slower: float) -> None:
    limit = 60.0
    asked, searched = search((below(TIME, limit),), loss=7, slower=slower)
    right = max(bits for bits in range(1, 9) if 10 * bits * slower <= limit)
    assert searched.chosen[0].point.values == {"bits": right}
    assert len(asked) <= 4


def test_the_first_point_stands_alone() -> None:
    sampler = Calibrated(SPACE, (LOSS, SIZE, TIME), (), predict, {"loss": 2.0})
    assert [point.values["bits"] for point in sampler.ask(4)] == [8]


def test_what_cannot_keep_an_exact_limit_is_not_measured() -> None:
    asked, searched = search((below(SIZE, 320),), loss=1, slower=1)
    assert set(asked) <= {1, 2, 3}
    assert searched.chosen[0].point.values == {"bits": 3}
    assert sum(trial.state == "infeasible" for trial in searched.trials) == 5


def test_infeasible_is_known_without_a_measurement() -> None:
    asked, searched = search((below(SIZE, 50),), loss=1, slower=1)
    assert asked == []
    assert searched.verdict == "infeasible"
    told = infeasible_words(searched.bindings, lambda objective, value: f"{value:g} B")
    assert told == "the size limit of 50 B binds; the best reachable is 100 B with bits 1"


def test_a_limit_that_some_point_keeps_does_not_bind_alone() -> None:
    objectives, limits = (LOSS, SIZE, TIME), (below(SIZE, 150), below(TIME, 5))
    left_out = Trial(1, Point.of(bits=2), 1, "infeasible", {"size": Number(200.0)})
    tried = measured(2, Point.of(bits=1), loss=1, slower=1)
    [binding] = bindings([left_out, tried], objectives, limits)
    assert binding.limits == (limits[1],)
    assert binding.nearest is tried


def test_a_space_that_is_too_large_to_look_at_whole() -> None:
    space = Space((*(Axis.of(name, range(10)) for name in "abcd"), Axis.of("e", range(3))))

    def of_large(point: Point) -> Prediction:
        return Prediction({}, {"loss": float(sum(point.values.values()))})

    sampler = Calibrated(space, (LOSS,), (), of_large, {}, most=3)
    for number in range(3):
        for point in sampler.ask(1):
            value = float(sum(point.values.values()))
            sampler.tell(Trial(number, point, 1, "measured", {"loss": Number(value)}))
    assert sampler.ask(1) == []
