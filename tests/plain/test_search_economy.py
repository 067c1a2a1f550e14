"""Few evaluations: what is exact is never run, what is measured mends what was predicted."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from drupe.core.goal import Goal, Number
from drupe.search.constraints import Limit, Objective
from drupe.search.economy import Economy, Prediction
from drupe.search.proxy import Belief, Proxy
from drupe.search.space import Axis, Point, Space
from drupe.search.trial import Trial

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from search import BUDGET, SAMPLERS, choice_of, solve, space_of
from search_spaces import Problem

LOSS = Objective("loss", "loss", "loss", False, 1)
SIZE = Objective("size", "size", "size", False)
SPACE = Space((Axis.of("a", range(8)), Axis.of("b", range(8))))


def at_most(value: float) -> Limit:
    return Limit(SIZE, value, Goal(value=value))


def run(economy: Economy, *, refused: int | None = None) -> list[Trial]:
    """Measure what is asked: the loss is 100 - 10 a - b, the size a + b; `refused` is an a."""
    trials: list[Trial] = []
    while points := economy.ask(1):
        [point] = points
        a, b = point.values["a"], point.values["b"]
        numbers = {"loss": Number(100 - 10 * a - b), "size": Number(a + b)}
        state = "infeasible" if a == refused else "measured"
        trial = Trial(len(trials) + 1, point, 1, state, numbers if a != refused else {})
        trials.append(trial)
        economy.tell(trial)
    return trials


def exact_size(point: Point) -> Prediction:
    a, b = point.values["a"], point.values["b"]
    return Prediction({"size": a + b}, {"loss": 100 - 10.0 * a - b})


def test_a_true_prediction_needs_few_evaluations_and_ends_by_itself() -> None:
    economy = Economy(SPACE, (LOSS, SIZE), (at_most(9),), exact_size, most=60)
    trials = run(economy)
    assert trials[0].point == Point.of(a=7, b=2)
    assert len(trials) < 10, "nothing better is expected of any other"


def test_what_is_known_to_break_a_limit_is_never_run() -> None:
    economy = Economy(SPACE, (LOSS, SIZE), (at_most(3),), exact_size, most=99)
    assert len(economy.excluded) == 64 - 10
    assert all(sum(trial.point.values.values()) <= 3 for trial in run(economy))
    nothing = Economy(SPACE, (LOSS, SIZE), (at_most(-1),), exact_size)
    assert nothing.is_exhausted
    assert nothing.ask(1) == []
    assert min(numbers["size"].value for _, numbers in nothing.excluded) == 0


def test_the_budget_is_kept_when_points_are_asked_side_by_side() -> None:
    economy = Economy(SPACE, (LOSS, SIZE), (), lambda point: Prediction(), most=5)
    asked = economy.ask(3)
    assert len(set(asked)) == 3
    for number, point in enumerate(asked, 1):
        economy.tell(Trial(number, point, 1, "measured", {"loss": Number(number)}))
    assert len(economy.ask(9)) == 2


def test_a_prediction_that_is_wrong_everywhere_is_unlearnt() -> None:
    """The proxy says the opposite of the truth: what was measured outweighs it."""

    def opposite(point: Point) -> Prediction:
        a, b = point.values["a"], point.values["b"]
        return Prediction({"size": a + b}, {"loss": 30 + 10.0 * a + b})

    trials = run(Economy(SPACE, (LOSS, SIZE), (), opposite, most=30))
    losses = [trial.numbers["loss"].value for trial in trials]
    assert losses[0] == 100
    assert min(losses) < 40


def test_where_neighbours_are_refused_others_are_asked() -> None:
    trials = run(Economy(SPACE, (LOSS, SIZE), (), exact_size, most=12), refused=7)
    assert trials[0].point == Point.of(a=7, b=7)
    assert trials[0].state == "infeasible"
    assert trials[1].point == Point.of(a=6, b=6), "not beside it, where most was expected"


def test_what_is_believed_of_a_measured_point_is_what_was_measured() -> None:
    points = list(SPACE)
    proxy = Proxy([float(number) for number in range(64)], points)
    before = proxy.beliefs()
    proxy.measure(10, 50.0, 0.0)
    after = proxy.beliefs()
    assert after[10].mean == pytest.approx(50, abs=0.01)
    assert after[10].deviation == pytest.approx(0, abs=0.01)
    assert all(
        one.deviation <= other.deviation * 1.5 for one, other in zip(after, before, strict=True)
    )
    assert after[11].mean > before[11].mean, "its neighbour is like it"
    proxy.measure(20, 20.0, 5.0)
    assert proxy.beliefs()[20].deviation > 0.5, "a noisy number is not all that is known"


def test_a_belief_gives_chances() -> None:
    belief = Belief(10, 2)
    assert belief.below(10) == 0.5
    assert belief.below(13.92) == pytest.approx(0.975, abs=1e-3)
    assert belief.expected_below(10) == pytest.approx(2 * 0.39894, abs=1e-3)
    sure = Belief(10, 0)
    assert (sure.below(9), sure.below(10), sure.expected_below(12)) == (0, 1, 2)


def test_the_spaces_are_what_they_say() -> None:
    problem = Problem(3, 0.9, True)
    truth = [problem.loss[point] for point in problem.points]
    guess = [problem.loss_proxy[point] for point in problem.points]
    assert statistics.correlation(truth, guess) == pytest.approx(0.9)
    assert len(problem.points) >= 500
    assert problem.loss == Problem(3, 0.5, False).loss, "made of its seed alone"
    assert problem.refused
    assert Problem(9, 0.9, False).optimum is None
    assert Problem(19, 0.9, False).optimum is None
    kept = [point for point in problem.points if problem.keeps(point)]
    assert problem.optimum == min(problem.loss[point] for point in kept)
    low, high = zip(*(problem.measure(kept[0])[1][1:] for _ in range(400)), strict=True)  # type: ignore[index]
    held = sum(a <= problem.latency[kept[0]] <= b for a, b in zip(low, high, strict=True))
    assert 365 <= held <= 393, "intervals of 95 %"


@pytest.mark.parametrize("seed", [0, 4, 9, 19])
def test_an_answer_keeps_its_limits_and_none_is_called_infeasible_wrongly(seed: int) -> None:
    problem = Problem(seed, 0.9, False)
    answer = solve(problem, SAMPLERS["economy"])
    assert not answer.violates
    assert (answer.verdict == "infeasible") == (seed == 9), "by size, which is exact"
    if seed in (0, 4):
        assert answer.verdict == "found"
        assert answer.regret is not None
        assert answer.regret < 0.05
    assert BUDGET == 6
    assert len({choice_of(point) for point in space_of(problem)}) == len(problem.points)
