"""Olive's defects S1 to S18 that are about searching: each a test that shows drupe free of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.goal import Goal, Number
from drupe.search.constraints import Limit, Objective, limits_of
from drupe.search.ranking import ranked
from drupe.search.samplers import make_sampler
from drupe.search.searched import Searched
from drupe.search.space import Axis, Point, Space
from drupe.search.trial import Trial
from drupe.trials import Trials
from tests.plain.conftest import Workspace
from tests.plain.test_trials import Bench, Searching, bench, length

__all__ = ["bench"]
LATENCY = Objective("latency", "latency", "avg", False, 1)
QUALITY = Objective("quality", "accuracy", "", True, 2)


def tried(number: int, **numbers: Any) -> Trial:
    return Trial(
        number, Point.of(n=number), 1, "measured", {k: Number(v) for k, v in numbers.items()}
    )


def test_s1_goals_that_are_all_thresholds_count(bench: Bench) -> None:
    bench.metrics(length(value=14))
    bench.run()
    assert bench.heard.standings.count("keeps") == 4
    assert bench.heard.standings.count("breaks length") == 5


def test_s2_a_relative_goal_behind_a_number_without_one_finds_its_baseline() -> None:
    relative = Goal(type="max-degradation", value=1)
    objectives = (LATENCY, Objective("quality", "accuracy", "", True, 2, (relative,)))
    [limit] = limits_of(objectives, {"quality": Number(5)})
    assert limit.value == 4


def test_s3_pass_by_pass_survives_a_point_that_is_refused(bench: Bench) -> None:
    bench.workspace.config["passes"]["turn"][1] = {"type": "Breaks", "how": "refusal"}
    bench.strategy(execution_order="pass-by-pass")
    outcome = bench.run()
    assert [trial.state for trial in bench.heard.trials] == [
        *("measured", "infeasible"),
        *["measured"] * 3,
    ]
    assert outcome.scores["length"].value == 12


def test_s4_what_was_not_measured_is_never_best() -> None:
    trials = [tried(1, quality=0.9), tried(2, quality=0.5, latency=9)]
    assert [trial.number for trial in ranked(trials, (LATENCY, QUALITY), ())] == [2]


def test_s5_a_point_that_cannot_be_run_takes_no_trial(bench: Bench) -> None:
    bench.workspace.passes(odd=[{"type": "Weigh"}, {"type": "Reverse"}, {"type": "Append"}])
    bench.strategy(max_iter=2)
    bench.run()
    assert [trial.state for trial in bench.heard.trials] == ["infeasible", "measured", "measured"]
    assert not any("Weigh" in name for name in bench.heard.ran)


def test_s6_max_iter_is_not_off_by_one(bench: Bench) -> None:
    for most in (1, 2):
        bench.strategy(max_iter=most)
        bench.run()
        assert len(bench.heard.trials) == most


@pytest.mark.parametrize("written", [True, {"max_iter": 9}, {"sampler": "random"}])
def test_s7_a_strategy_may_be_true_or_lack_a_sampler(written: Any, bench: Bench) -> None:
    bench.workspace.config["engine"]["search_strategy"] = written
    search = load(bench.workspace.write()).search
    assert search is not None
    assert search.strategy.execution_order == "joint"


def test_s8_pass_by_pass_ends_as_told_and_goes_back(bench: Bench) -> None:
    bench.strategy(execution_order="pass-by-pass", max_iter=4)
    bench.run()
    assert len(bench.heard.trials) == 4
    bench.metrics(length(value=9))
    bench.strategy(execution_order="pass-by-pass", stop_when_goals_met=True)
    bench.run()
    assert len(bench.heard.trials) == 4, "three on the way, and the first whole chain"


def test_s9_output_model_num_is_read(bench: Bench) -> None:
    bench.strategy(output_model_num=2)
    outcome = bench.run()
    assert outcome.searched is not None
    assert len(outcome.searched.chosen) == 2
    assert (bench.workspace.output / "ranked/2/cpu-cpu_model/a.txt").is_file()


def test_s10_tpe_hears_of_every_trial_and_asks_none_twice() -> None:
    pytest.importorskip("optuna")
    space = Space((Axis.of("a", range(2)), Axis.of("b", range(4))))
    limit = Limit(LATENCY, 2, Goal(value=2))
    sampler: Any = make_sampler("tpe", space, (LATENCY, QUALITY), (limit,), 1, {})
    asked = []
    while points := sampler.ask(1):
        asked += points
        number = space.number(points[0])
        numbers = {"latency": Number(number), "quality": Number(1)}
        sampler.tell(Trial(len(asked), points[0], 1, "measured", numbers))
    assert len(asked) == len(set(asked)) == 8
    told = sampler.study.trials
    assert not [trial for trial in told if trial.state.name == "RUNNING"]
    assert all(trial.constraints for trial in told if trial.state.name == "COMPLETE")


def test_s11_trials_run_at_once_and_their_state_is_on_disk(bench: Bench) -> None:
    bench.workspace.passes(slow={"type": "Slow", "ticks": [1, 2, 3], "seconds": 1})
    bench.workspace.config["systems"] = {"pool": {"type": "Pool", "workers": 3}}
    bench.workspace.config["engine"] |= {"host": "pool"}
    began = time.monotonic()
    bench.run()
    assert len(bench.heard.trials) == 3
    [state] = (bench.workspace.cache / "searches").iterdir()
    assert state.read_text().count('"trial"') == 3
    assert time.monotonic() - began < 60


def test_s12_a_shared_training_runs_once_and_predictions_leave_points_out(bench: Bench) -> None:
    """What is known beforehand is asked through the seam: see test_search_economy.py."""
    workflow = load(bench.workspace.write())
    assert workflow.search is not None
    space = workflow.search.space
    with Trials(workflow, Searching(), propose=lambda inner, limits, _: _Nothing()) as trials:
        assert trials.run().trials == ()
    assert space.size == 9


class _Nothing:
    """A sampler that finds no point worth a run."""

    def ask(self, count: int) -> list[Point]:
        return []

    def tell(self, trial: Trial) -> None:
        raise AssertionError


def test_s13_what_is_better_is_the_metrics_own_word(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.input / "rows.json").write_text('[{"text": "a"}]')
    rows = {"name": "rows", "load_dataset_config": {"data_files": "input/rows.json"}}
    workspace.config["data_configs"] = [rows | {"pre_process_data_config": {"text_cols": "text"}}]
    metric = {"type": "Perplexity", "data_config": "rows"}
    metric |= {"sub_types": [{"name": "perplexity", "priority": 1}]}  # type: ignore[dict-item]
    workspace.config["evaluators"]["all"]["metrics"] = [metric]
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "input"}
    workspace.passes(b={"type": "ModelBuilder", "precision": {"search": ["int4", "int8"]}})
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    search = load(workspace.write()).search
    assert search is not None
    assert not search.objectives[0].higher_is_better


def test_s15_numbers_that_count_for_nothing_are_on_no_front() -> None:
    told_alone = Objective("seconds", "seconds", "", False)
    trials = (tried(1, quality=1, seconds=9), tried(2, quality=0, seconds=1))
    searched = Searched(trials, (QUALITY, told_alone), (), {}, 2, 2, 1)
    assert [trial.number for trial in searched.front] == [1]


def test_s16_each_metric_has_its_own_baseline(bench: Bench) -> None:
    relative = {"type": "max-degradation", "value": 0}
    other = length(name="other", **relative)
    other |= {"type": "SlowLength", "seconds": 0.01}
    bench.metrics(length(**relative), other)
    outcome = bench.run()
    assert outcome.searched is not None
    assert sorted(outcome.searched.baseline) == ["length", "other length"]


def test_s17_the_seed_is_the_users_and_noise_is_no_verdict(bench: Bench) -> None:
    orders = []
    for seed in (2, 3):
        bench.strategy(sampler="random", sampler_config={"seed": seed})
        bench.run()
        orders.append(bench.points)
    assert orders[0] != orders[1]
    limit = Limit(LATENCY, 20, Goal(value=20))
    assert limit.standing(Number(19.5, 18, 21)) == "undecided"


def test_s18_percentages_hold_for_negative_baselines() -> None:
    goal = Goal(type="percent-max-degradation", value=10)
    objective = Objective("likelihood", "likelihood", "", True, 1, (goal,))
    [limit] = limits_of((objective,), {"likelihood": Number(-2)})
    assert limit.value == pytest.approx(-2.2)
