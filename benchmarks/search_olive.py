#!/usr/bin/env python3
"""Olive's TPE sampler on the spaces of `search_spaces.py`; run by an interpreter with olive-ai.

search_olive.py SEEDS BUDGET PATIENCE NOISY prints, as JSON, the answer of each seed and the number
of the first evaluation that came near the optimum. Sampler, results and goals are Olive's own
classes (`olive.search`); the goals are given to them as thresholds that are resolved already, since
its engine drops goals that are all thresholds. Where no point meets the goals there is no answer.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from olive.search.samplers.tpe_sampler import TPESampler
from olive.search.search_parameter import Categorical
from olive.search.search_results import SearchResults
from olive.search.search_space import SearchSpace

sys.path.insert(0, str(Path(__file__).parent))

from search_spaces import Choice, Problem

NEAR = 0.01


def answer(problem: Problem, budget: int, patience: int) -> dict[str, Any]:
    """Return what Olive's sampler finds in one space."""
    axes = [(f"a{n}", Categorical(list(range(size)))) for n, size in enumerate(problem.axes)]
    objectives = {
        "loss": {"higher_is_better": False, "priority": 1},
        "size": {"higher_is_better": False, "priority": 2, "goal": problem.size_limit},
        "latency": {"higher_is_better": False, "priority": 3, "goal": problem.latency_limit},
    }
    sampler = TPESampler(SearchSpace(axes), {"seed": problem.seed}, objectives)
    results = SearchResults(objectives)
    choices: dict[int, Choice] = {}
    found, reached = None, patience + 1
    for number in range(1, patience + 1):
        point = sampler.suggest()
        if point is None:
            break
        values = point.values[""][1] if "" in point.values else point.values
        choice = tuple(values[f"a{n}"][1] for n in range(len(problem.axes)))
        choices[point.index] = choice
        measured = problem.measure(choice)
        if measured is None:
            sampler.record_feedback_signal(point.index, None, should_prune=True)
        else:
            signal = {
                "loss": SimpleNamespace(value=measured[0][0]),
                "size": SimpleNamespace(value=problem.size[choice]),
                "latency": SimpleNamespace(value=measured[1][0]),
            }
            sampler.record_feedback_signal(point.index, signal)
            results.record_feedback_signal(point.index, signal, [])
        if number == budget and results.sort(apply_goals=True):
            found = choices[results.get_next_best_result(-1)[1]]
        possible = problem.optimum is not None
        if reached > patience and possible and problem.keeps(choice):
            reached = number if problem.regret(choice) <= NEAR else reached
        if number >= budget and reached <= patience:
            break
    return {"choice": found, "reached": reached}


def main() -> None:
    """Print the answers of all seeds."""
    seeds, budget, patience, noisy = map(int, sys.argv[1:])
    problems = (Problem(seed, 1.0, bool(noisy)) for seed in range(seeds))
    answers = [answer(problem, budget, patience) for problem in problems]
    version = importlib.metadata.version("olive-ai")
    print(json.dumps({"version": version, "answers": answers}))


if __name__ == "__main__":
    main()
