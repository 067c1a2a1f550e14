"""Searches done on toy passes: what is tried, what is shared, what is chosen and delivered."""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from drupe import engine
from drupe.chain import Step
from drupe.config.levels import levels_of
from drupe.config.load import load
from drupe.core.errors import Infeasible, Refused, StepError
from drupe.foresight import foresee
from drupe.outcome import Outcome
from drupe.search.economy import Economy, Prediction
from drupe.search.searched import Searched
from drupe.search.space import Point
from drupe.search.trial import Trial
from drupe.trials import Trials
from tests.plain.conftest import Heard, Workspace, tree

TEXTS = ["", "!", "!!"]


class Searching(Heard):
    """Hears a search as well."""

    def __init__(self) -> None:
        super().__init__()
        self.trials: list[Trial] = []
        self.standings: list[str] = []
        self.told: Searched | None = None
        self.failures: list[str] = []

    def tried(self, trial: Trial, tried: int, standing: str) -> None:
        self.trials.append(trial)
        self.standings.append(standing)

    def searched(self, searched: Searched) -> None:
        self.told = searched

    def forgiven(self, step: Step, fault: StepError) -> None:
        self.failures.append(fault.what)


def length(*, more: bool = True, name: str = "length", **goal: Any) -> dict[str, Any]:
    """Return a metric of how long the texts are; goal: its type and value."""
    sub_type = {"name": "length", "higher_is_better": more}
    sub_type |= {"goal": goal} if goal else {}
    return {"name": name, "type": "Length", "sub_types": [sub_type]}


class Bench:
    """A config with a search in it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.heard = Searching()
        workspace.passes(
            turn=[{"type": "Reverse"}, {"type": "Append", "text": {"search": ["x", "yyyy"]}}],
            more={"type": "Append", "text": TEXTS},
        )
        workspace.config["engine"].pop("evaluate")
        self.metrics(length())
        self.strategy()

    def metrics(self, *metrics: dict[str, Any], priorities: tuple[int, ...] = (1,)) -> None:
        for metric, priority in zip(metrics, priorities, strict=False):
            metric["sub_types"][0]["priority"] = priority
        self.workspace.config["evaluators"]["all"]["metrics"] = list(metrics)

    def strategy(self, **strategy: Any) -> None:
        self.workspace.config["engine"]["search_strategy"] = strategy or True

    def run(self, **arguments: Any) -> Outcome:
        self.heard = Searching()
        return engine.run(self.workspace.write(), listener=self.heard, **arguments)

    @property
    def points(self) -> list[str]:
        return [trial.point.words for trial in self.heard.trials]

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.workspace.output / "report.json").read_text())
        return found


@pytest.fixture
def bench(workspace: Workspace) -> Bench:
    return Bench(workspace)


def test_the_best_of_all_points_is_delivered_and_what_is_shared_runs_once(bench: Bench) -> None:
    outcome = bench.run()
    assert len(bench.heard.trials) == 9
    ran = bench.heard.ran
    assert len(ran) == len(set(ran))
    assert [name for name in ran if name.startswith("turn")] == [
        "turn (Reverse)",
        "turn (Append, text x)",
        "turn (Append, text yyyy)",
    ]
    assert len([name for name in ran if name.startswith("more")]) == 18, "each with its metric"
    assert outcome.searched is not None
    assert outcome.searched.verdict == "keeps"
    assert outcome.searched.chosen[0].point.words == ("turn: Append, text yyyy; more: text !!")
    assert outcome.path == bench.workspace.output / "turn-more" / "cpu-cpu_model"
    assert (outcome.path / "a.txt").read_text() == "oneyyyy!!"
    told = bench.report["search"]
    assert (told["verdict"], told["points"], told["known"]) == ("keeps", 9, 9)
    assert [trial["rank"] for trial in told["trials"]] == [9, 7, 5, 8, 6, 4, 3, 2, 1]
    assert bench.report["verdict"].startswith("Best of 9 points: turn: Append, text yyyy")

    # Again: everything is found, and the same is chosen.
    again = bench.run()
    assert bench.heard.ran == []
    assert again.final.model.digest == outcome.final.model.digest


def test_a_limit_is_hard(bench: Bench) -> None:
    bench.metrics(length(), length(more=False, name="size", value=14))
    outcome = bench.run()
    assert outcome.scores["length"].value == 14
    assert outcome.searched is not None
    assert bench.heard.standings.count("breaks size length") == 3


def test_nothing_keeps_a_limit(bench: Bench) -> None:
    bench.metrics(length(), length(more=False, name="size", value=7))
    with pytest.raises(Infeasible) as caught:
        bench.run()
    assert caught.value.exit_code == 3
    assert caught.value.what == (
        "infeasible: the size length limit of 7 binds; the best reachable is 8 with "
        'turn: Reverse; more: text ""'
    )
    assert caught.value.remedy.startswith("Loosen a limit, or leave more to choose from.")
    assert bench.report["search"]["verdict"] == "infeasible"
    assert bench.report["model"] is None
    page = (bench.workspace.output / "report.html").read_text()
    assert "Infeasible: the size length limit of 7 binds" in page
    done = bench.workspace.drupe("run", "config.json")
    assert done.returncode == 3
    assert "infeasible: the size length limit of 7 binds" in done.stderr


def test_a_point_that_breaks_is_not_called_infeasible_where_not_all_were_tried(
    bench: Bench,
) -> None:
    bench.metrics(length(), length(more=False, name="size", value=8))
    bench.strategy(sampler="random", max_iter=2, sampler_config={"seed": 3})
    with pytest.raises(Infeasible, match=r"no point that was tried keeps every limit \(2 of 9"):
        bench.run()


@pytest.mark.parametrize("sampler", ["sequential", "random", "tpe"])
def test_max_iter_is_exact_and_the_seed_decides(sampler: str, bench: Bench) -> None:
    if sampler == "tpe":
        pytest.importorskip("optuna")
    bench.strategy(sampler=sampler, max_iter=4, sampler_config={"seed": 5})
    bench.run()
    first = bench.points
    assert len(first) == 4
    bench.run(output=str(bench.workspace.folder / "other"))
    assert bench.points == first
    if sampler != "sequential":
        bench.strategy(sampler=sampler, max_iter=4, sampler_config={"seed": 6})
        bench.run()
        assert bench.points != first


def test_max_samples_and_the_goals_end_a_search(bench: Bench) -> None:
    bench.strategy(sampler_config={"max_samples": 2})
    outcome = bench.run()
    assert len(bench.heard.trials) == 2
    assert outcome.searched is not None
    assert outcome.searched.why == "max_samples points were tried"
    bench.metrics(length(value=9))
    bench.strategy(stop_when_goals_met=True)
    outcome = bench.run()
    assert bench.points == ['turn: Reverse; more: text ""', "turn: Reverse; more: text !"]
    assert bench.report["search"]["ended"] == "every goal is met"


def test_time_is_a_limit_over_all_runs_of_a_search(bench: Bench) -> None:
    bench.workspace.passes(slow={"type": "Slow", "ticks": [1, 2, 3, 4], "seconds": 0.3})
    bench.strategy(max_time=0.4)
    outcome = bench.run()
    assert outcome.searched is not None
    assert outcome.searched.why == "max_time is over"
    assert 1 <= len(bench.heard.trials) < 4
    [state] = (bench.workspace.cache / "searches").iterdir()
    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert lines[-1] == {"ended": "max_time is over"}
    assert lines[-2]["spent"] >= 0.4
    # What was not ended goes on with the time that was spent.
    state.write_text("\n".join(json.dumps(line) for line in lines[:-1]) + '\n{"cut')
    bench.run()
    assert len(bench.heard.trials) == 1
    assert any(text.startswith("Going on with a search of which") for text in bench.heard.notes)


def test_a_refusal_makes_a_point_infeasible_and_a_failure_ends_the_search(bench: Bench) -> None:
    bench.workspace.passes(
        turn={"type": "Reverse"},
        odd=[{"type": "Reverse"}, {"type": "Weigh"}, {"type": "Breaks", "how": "refusal"}],
    )
    outcome = bench.run()
    states = [(trial.state, trial.reason) for trial in bench.heard.trials]
    assert [state for state, _ in states] == ["measured", "infeasible", "infeasible"]
    assert "works on hf, but what comes before gives files" in states[1][1]
    assert states[2][1] == "Breaks, Breaks.how: is refusal, which nothing can be made of"
    assert outcome.searched is not None
    assert outcome.searched.verdict == "keeps"
    bench.workspace.passes(odd=[{"type": "Breaks", "how": "exception"}, {"type": "Reverse"}])
    with pytest.raises(StepError, match="a value that was wrong"):
        bench.run()
    bench.strategy(tolerate_failures=True)
    outcome = bench.run()
    assert [trial.state for trial in bench.heard.trials] == ["failed", "measured"]
    assert outcome.searched is not None
    assert outcome.searched.chosen[0].number == 2
    assert "a value that was wrong" in bench.heard.failures[0]


def test_nothing_can_be_measured(bench: Bench) -> None:
    bench.workspace.passes(odd=[{"type": "Breaks", "how": "refusal"}, {"type": "Weigh"}])
    with pytest.raises(Infeasible, match="no point could be compared: 2 infeasible"):
        bench.run()


def test_a_missing_number_makes_a_point_ineligible(bench: Bench) -> None:
    """The metric gives nothing for some stages: they are never best."""
    bench.metrics(length(), length(more=False, name="size"), priorities=(1, 2))
    bench.workspace.config["evaluators"]["all"]["metrics"][1]["type"] = "NoLength"
    with pytest.raises(Infeasible, match="no point could be compared: 9 not measured: size"):
        bench.run()


def test_what_blocks_every_point_is_told_before_any_work(bench: Bench) -> None:
    bench.workspace.config["input_model"]["model_path"] = "nowhere"
    with pytest.raises(Refused, match="nowhere"):
        bench.run()
    assert bench.heard.trials == []


def test_more_models_are_delivered_when_asked_for(bench: Bench) -> None:
    bench.strategy(output_model_num=3)
    outcome = bench.run()
    output = bench.workspace.output
    texts = [
        (output / place / "a.txt").read_text()
        for place in (
            "turn-more/cpu-cpu_model",
            "ranked/2/cpu-cpu_model",
            "ranked/3/cpu-cpu_model",
        )
    ]
    assert texts == ["oneyyyy!!", "oneyyyy!", "oneyyyy"]
    assert json.loads((output / "ranked/2/point.json").read_text())["point"] == {
        "passes.turn": "Append",
        "passes.turn.Append.text": "yyyy",
        "passes.more.text": "!",
    }
    before = {file: (output / file).stat().st_mtime_ns for file in tree(output)}
    bench.run()
    assert {file: (output / file).stat().st_mtime_ns for file in tree(output)} == before
    bench.strategy(output_model_num=2)
    bench.run()
    assert not (output / "ranked/3").exists()
    assert outcome.searched is not None
    assert len(outcome.searched.chosen) == 3


def test_pass_by_pass_goes_on_with_the_best_of_each_pass(bench: Bench) -> None:
    bench.strategy(execution_order="pass-by-pass")
    outcome = bench.run()
    assert bench.points == [
        "Reverse",
        "Append, text x",
        "Append, text yyyy",
        'turn: Append, text yyyy; more: text ""',
        "turn: Append, text yyyy; more: text !",
        "turn: Append, text yyyy; more: text !!",
    ]
    assert bench.heard.standings[:3] == ["on the way"] * 3
    assert (outcome.final.model.path / "a.txt").read_text() == "oneyyyy!!"


def test_pass_by_pass_goes_back_where_the_best_leads_to_nothing(bench: Bench) -> None:
    """The longest turn breaks the limit behind every other pass, so the next best is tried."""
    bench.metrics(length(), length(more=False, name="size", value=12))
    bench.workspace.config["passes"]["more"]["text"] = ["!", "!!"]
    bench.strategy(execution_order="pass-by-pass")
    outcome = bench.run()
    assert outcome.scores["length"].value == 12
    assert outcome.searched is not None
    assert outcome.searched.chosen[0].point.words == ("turn: Append, text x; more: text !")


def test_a_pass_whose_result_nobody_judges_is_searched_with_the_next(bench: Bench) -> None:
    bench.strategy(execution_order="pass-by-pass")
    search = load(bench.workspace.write()).search
    assert search is not None
    assert levels_of(search) == [(0, 1), (1, 2)]
    bench.metrics(length(), length() | {"type": "NoLength", "name": "odd"}, priorities=(1, 2))
    bench.workspace.config["evaluators"]["all"]["metrics"][1]["type"] = "Length"
    search = load(bench.workspace.write()).search
    assert search is not None
    object.__setattr__(search, "judged", (("hf",),))
    assert levels_of(search) == [(0, 2)]


def test_trials_run_side_by_side_where_there_are_slots(bench: Bench) -> None:
    bench.workspace.passes(
        back={"type": "Reverse"}, slow={"type": "Slow", "ticks": [1, 2, 3, 4], "seconds": 0.01}
    )
    slow = {"name": "length", "type": "SlowLength", "seconds": 0.8}
    metric = length() | slow
    bench.metrics(metric)
    bench.workspace.config["systems"] = {"pool": {"type": "Pool", "workers": 3}}
    bench.workspace.config["engine"] |= {"host": "pool", "target": "pool"}
    bench.run()
    assert len(bench.heard.trials) == 4
    assert bench.heard.ran.count("back") == 1, "the shared prefix runs once"
    scores = [
        json.loads(file.read_text())
        for file in (bench.workspace.cache / "steps").glob("*/files/score.json")
    ]
    spans = sorted((score["began"], score["ended"]) for score in scores)
    assert any(two[0] < one[1] for one, two in itertools.pairwise(spans))


def test_force_works_each_step_again_once(bench: Bench) -> None:
    bench.run()
    bench.run(force=True)
    assert len(bench.heard.ran) == len(set(bench.heard.ran)) == 3 + 9 + 9 + 1


def test_a_search_that_is_killed_goes_on(bench: Bench) -> None:
    workspace = bench.workspace
    workspace.passes(
        back={"type": "Reverse"}, slow={"type": "Slow", "ticks": [3, 4, 5, 6], "seconds": 0.2}
    )
    process = workspace.start("run", "config.json")
    searches = workspace.cache / "searches"
    end = time.monotonic() + 40
    while time.monotonic() < end:
        files = list(searches.glob("*.jsonl"))
        if files and files[0].read_text().count("\n") >= 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    outcome = bench.run()
    again = [name for name in bench.heard.ran if name.startswith("slow") and ": " not in name]
    assert len(bench.heard.trials) == 4
    assert len(again) <= 2, "two were finished before"
    assert any("were tried before" in text for text in bench.heard.notes)
    assert outcome.searched is not None
    assert outcome.searched.known == 4


def test_what_predicts_plugs_in(bench: Bench) -> None:
    """An economy is a sampler: with predictions that are right it measures little."""
    workflow = load(bench.workspace.write())
    assert workflow.search is not None
    objectives = workflow.search.objectives

    def predict(point: Point) -> Prediction:
        text = point.values.get("passes.turn.Append.text", "") + point.values["passes.more.text"]
        return Prediction(rough={"length": 8 + 2.0 * len(text)})

    heard = Searching()
    with Trials(
        workflow,
        heard,
        propose=lambda space, limits, _: Economy(space, objectives, limits, predict, most=3),
    ) as trials:
        searched = trials.run()
    assert len(searched.trials) <= 3
    assert searched.chosen[0].point.words == "turn: Append, text yyyy; more: text !!"


def test_a_plan_tells_points_and_what_they_share(bench: Bench) -> None:
    workflow = load(bench.workspace.write())
    assert workflow.search is not None
    found = foresee(workflow, workflow.search, lambda text: None, lambda text: None)
    assert found.words == [
        "9 points: sequential, joint.",
        "22 steps for all of them, 36 if each ran by itself.",
        "  turn: Reverse, Append",
        "  turn.Append.text: x, yyyy",
        '  more.text: "", !, !!',
    ]
    done = bench.workspace.drupe("plan", "config.json")
    assert done.returncode == 0
    assert "22 steps for all of them" in done.stdout
    told = json.loads(bench.workspace.drupe("plan", "config.json", "--json").stdout)
    assert told["search"]["points"] == 9
    assert len(told["steps"]) == 22
    bench.workspace.passes(odd=[{"type": "Weigh"}, {"type": "Reverse"}])
    shown = bench.workspace.drupe("plan", "config.json").stdout
    assert "1 cannot be run, Weigh for one: config.json:" in shown
    assert "odd (Weigh): works on hf, but what comes before gives files" in shown
    bench.workspace.passes(odd=[{"type": "Weigh"}, {"type": "Weigh"}])
    refused = bench.workspace.drupe("plan", "config.json")
    assert refused.returncode == 2
    assert re.search(r"no point can be run: .*odd \(Weigh\): works on hf", refused.stderr)
    assert not Path(bench.workspace.cache).exists()


def test_what_happens_is_written_down_for_programs(bench: Bench) -> None:
    bench.strategy(max_iter=2)
    done = bench.workspace.drupe("run", "config.json", "--json", "--events", "events.jsonl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["search"]["verdict"] == "keeps"
    lines = (bench.workspace.folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    trials = [event for event in events if event["event"] == "trial"]
    assert [each["trial"]["number"] for each in trials] == [1, 2]
    assert [each["trials"] for each in events if each["event"] == "searched"] == [2]
    shown = bench.workspace.drupe("run", "config.json").stdout
    assert '● 1. turn: Reverse; more: text ""  keeps' in shown
    assert "* on the Pareto front" in shown


def test_what_a_pass_does_inside_keeps_its_place_in_a_shared_plan(tmp_path: Path) -> None:
    """Merging is done while exporting: each point has its own, behind the one training."""
    demo = Path(__file__).parents[2] / "examples" / "phi3-emotion" / "olive-config.json"
    settings = [
        "passes.builder.int4_block_size=[16, 32]",
        "engine.search_strategy=true",
        f"engine.cache_dir={json.dumps(str(tmp_path / 'cache'))}",
    ]
    workflow = load(demo, settings=settings)
    assert workflow.search is not None
    found = foresee(workflow, workflow.search, lambda text: None, lambda text: None)
    assert found.plan is not None
    passes = [step for step in found.plan.steps if step.role == "pass"]
    assert [step.name for step in passes] == [
        "lora",
        "builder (int4_block_size 16)",
        "builder (int4_block_size 32)",
    ]
    known = {"input model", *(step.stage for step in passes)}
    assert all(set(step.reads) <= known for step in found.plan.steps)
    inside = [step.inside.stage for step in passes if step.inside]
    assert len(inside) == len(set(inside)) == 2
    assert found.plan.stages.count("lora") == 1


def test_a_sampler_that_is_not_installed_is_refused_before_any_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.strategy(sampler="tpe")
    monkeypatch.setattr("drupe.search.samplers.NEEDS", {"tpe": "no_such_package"})
    with pytest.raises(Refused, match="needs no_such_package") as caught:
        bench.run()
    assert caught.value.remedy == 'pip install "drupe[search]"'
    assert bench.heard.ran == []
    workflow = load(bench.workspace.file)
    assert workflow.search is not None
    found = foresee(workflow, workflow.search, lambda text: None, lambda text: None)
    assert [fault.what for fault in found.blockers] == ['is "tpe", which needs no_such_package']
