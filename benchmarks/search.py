#!/usr/bin/env python3
"""Measure how few real evaluations a search needs, and whether its answers keep their limits.

benchmarks/search.py [--seeds 100] [--correlations 0.5 0.9 1.0] [--olive PYTHON]

On each space of `search_spaces.py`: drupe's economy (which is given the proxy), the samplers random
and TPE (Optuna, told the limits), all with the same budget, and Olive's TPE where an interpreter
with olive-ai is named. Printed for each, without and with noise:

evaluations   the median number until one within 1 % of the optimum was measured, each sampler going
              on to at most 60; in brackets in how many of the spaces it was within the budget
regret        the median of the answers' loss over the optimum, of spaces with an answer
violations    answers that break a limit in truth
undecided     no answer: nothing that was measured keeps the limits for certain
infeasible    how often "nothing keeps the limits" was said, and how often that was wrong
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drupe.core.goal import Goal, Number
from drupe.search.constraints import Limit, Objective, standing_of
from drupe.search.economy import Economy, Prediction
from drupe.search.ranking import ranked
from drupe.search.samplers import Sampler, make_sampler
from drupe.search.space import Axis, Point, Space
from drupe.search.trial import Trial

sys.path.insert(0, str(Path(__file__).parent))

from search_spaces import Choice, Problem

BUDGET, PATIENCE, NEAR = 6, 60, 0.01
LOSS = Objective("loss", "loss", "loss", False, 1)
SIZE = Objective("size", "size", "size", False)
LATENCY = Objective("latency", "latency", "latency", False)
OBJECTIVES = (LOSS, SIZE, LATENCY)
Make = Callable[[Problem, Space, tuple[Limit, ...], int], Sampler]


@dataclass(frozen=True)
class Answer:
    """What one sampler gave on one space. reached: the evaluation that was near the optimum."""

    verdict: str
    regret: float | None
    violates: bool
    reached: int | None


def space_of(problem: Problem) -> Space:
    """Return a problem's axes as drupe has them."""
    return Space(tuple(Axis.of(f"a{n}", range(size)) for n, size in enumerate(problem.axes)))


def choice_of(point: Point) -> Choice:
    """Return a point as the problem has it."""
    return tuple(point.values.values())


def limits_of(problem: Problem) -> tuple[Limit, ...]:
    """Return a problem's limits as drupe has them."""
    pairs = ((SIZE, problem.size_limit), (LATENCY, problem.latency_limit))
    return tuple(Limit(objective, value, Goal(value=value)) for objective, value in pairs)


def economy(problem: Problem, space: Space, limits: tuple[Limit, ...], most: int) -> Sampler:
    """Return drupe's economy with the problem's proxy."""

    def predict(point: Point) -> Prediction:
        choice = choice_of(point)
        rough = {"loss": problem.loss_proxy[choice], "latency": problem.latency_proxy[choice]}
        return Prediction({"size": problem.size[choice]}, rough)

    return Economy(space, OBJECTIVES, limits, predict, most)


def by_name(name: str) -> Make:
    """Return how a sampler of drupe's is made for a problem."""
    return lambda problem, space, limits, most: make_sampler(
        name, space, OBJECTIVES, limits, problem.seed, {}
    )


SAMPLERS: dict[str, Make] = {
    "economy": economy,
    "random": by_name("random"),
    "Optuna TPE": by_name("tpe"),
}


def trials_of(problem: Problem, sampler: Sampler) -> Iterator[Trial]:
    """Yield what comes of each point that a sampler asks for."""
    number = 0
    while points := sampler.ask(1):
        number += 1
        measured = problem.measure(choice_of(points[0]))
        if measured is None:
            trial = Trial(number, points[0], 1, "infeasible")
        else:
            size = problem.size[choice_of(points[0])]
            numbers = {
                "loss": Number(*measured[0]),
                "size": Number(size),
                "latency": Number(*measured[1]),
            }
            trial = Trial(number, points[0], 1, "measured", numbers)
        sampler.tell(trial)
        yield trial


def solve(problem: Problem, make: Make) -> Answer:
    """Return the answer after BUDGET evaluations, and when one came near the optimum."""
    space, limits = space_of(problem), limits_of(problem)
    sampler = make(problem, space, limits, BUDGET)
    trials = list(zip(range(BUDGET), trials_of(problem, sampler), strict=False))
    found = ranked([trial for _, trial in trials], OBJECTIVES, limits)
    best = found[0] if found and standing_of(found[0].numbers, limits) == "keeps" else None
    if best is None:
        exhausted = isinstance(sampler, Economy) and sampler.is_exhausted
        return Answer(
            "infeasible" if exhausted else "undecided", None, False, _reached(problem, make)
        )
    choice = choice_of(best.point)
    keeps = problem.keeps(choice)
    regret = problem.regret(choice) if keeps else None
    return Answer("found", regret, not keeps, _reached(problem, make))


def _reached(problem: Problem, make: Make) -> int | None:
    """Return the number of the first evaluation that is near the optimum, in truth."""
    if problem.optimum is None:
        return None
    again = Problem(problem.seed, problem.correlation, problem.noisy)
    sampler = make(again, space_of(again), limits_of(again), PATIENCE)
    for trial in trials_of(again, sampler):
        choice = choice_of(trial.point)
        if again.keeps(choice) and again.regret(choice) <= NEAR:
            return trial.number
        if trial.number >= PATIENCE:
            break
    return PATIENCE + 1


def line(name: str, answers: list[tuple[Problem, Answer]]) -> str:
    """Return what came of all spaces, in one line."""
    possible = [(p, a) for p, a in answers if p.optimum is not None]
    reached = [a.reached for _, a in possible if a.reached is not None]
    regrets = [a.regret for _, a in possible if a.regret is not None]
    near = sum(each <= BUDGET for each in reached)
    middle = statistics.median(reached)
    said = [p for p, a in answers if a.verdict == "infeasible"]
    wrong = sum(p.optimum is not None for p in said)
    regret = f"{100 * statistics.median(regrets):.2f} %" if regrets else "-"
    return (
        f"{name:<12} {f'>{PATIENCE}' if middle > PATIENCE else f'{middle:g}':>6} "
        f"({near:>3} of {len(possible)})  regret {regret:>7}  "
        f"violations {sum(a.violates for _, a in answers):>2}  "
        f"undecided {sum(a.verdict == 'undecided' for _, a in answers):>3}  "
        f"infeasible {len(said)} ({wrong} wrong)"
    )


def of_olive(python: str, correlation: float, noisy: bool, seeds: int) -> str:
    """Return the line of Olive's sampler, run by an interpreter that has olive-ai."""
    driver = Path(__file__).with_name("search_olive.py")
    words = [python, str(driver), str(seeds), str(BUDGET), str(PATIENCE), str(int(noisy))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    answers = []
    for seed, each in enumerate(told["answers"]):
        problem = Problem(seed, correlation, noisy)
        choice = tuple(each["choice"]) if each["choice"] is not None else None
        keeps = choice is not None and problem.keeps(choice)
        regret = problem.regret(choice) if choice is not None and keeps else None
        verdict = "found" if choice is not None else "undecided"
        reached = each["reached"] if problem.optimum is not None else None
        answers.append(
            (problem, Answer(verdict, regret, choice is not None and not keeps, reached))
        )
    return line(f"Olive {told['version']}", answers)


def main() -> None:
    """Print a line for each sampler on each kind of space."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--correlations", type=float, nargs="+", default=[0.5, 0.9, 1.0])
    parser.add_argument("--olive", metavar="PYTHON", help="an interpreter with olive-ai")
    arguments = parser.parse_args()
    sizes = [len(Problem(seed, 1.0, False).points) for seed in range(arguments.seeds)]
    print(f"{arguments.seeds} spaces of {min(sizes)} to {max(sizes)} points, budget {BUDGET}")
    for noisy in (False, True):
        for number, correlation in enumerate(arguments.correlations):
            said = f"proxy of correlation {correlation}, {'with' if noisy else 'without'} noise"
            print(f"\n{said}")
            for name, make in SAMPLERS.items():
                if name != "economy" and number:
                    continue  # they are given no proxy
                began, answers = time.monotonic(), []
                for seed in range(arguments.seeds):
                    problem = Problem(seed, correlation, noisy)
                    answers.append((problem, solve(problem, make)))
                print(f"{line(name, answers)}  ({time.monotonic() - began:.0f} s)", flush=True)
            if not number:
                if arguments.olive:
                    print(of_olive(arguments.olive, correlation, noisy, arguments.seeds))
                else:
                    print("Olive        not run: name an interpreter that has it by --olive")


if __name__ == "__main__":
    main()
