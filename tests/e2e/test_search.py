"""The example that searches under a budget on the bundled model: the best that keeps it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLES, Job

BUDGETS = (2_100_000, 2_200_000, 4_000_000)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("search")
    for name in ("model", "dataset"):
        shutil.copytree(EXAMPLES / "phi3-emotion" / name, folder / "phi3-emotion" / name)
    (folder / "search").mkdir()
    shutil.copy(EXAMPLES / "search" / "olive-config.json", folder / "search")
    return Job(folder / "search", folder / "search" / "olive-config.json")


@pytest.fixture(scope="module")
def trials(example: Job) -> list[dict[str, Any]]:
    """Return every point of the example, measured."""
    example.run()
    found: list[dict[str, Any]] = example.report("models/best")["search"]["trials"]
    return found


def set_budget(example: Job, size: int) -> None:
    config = json.loads(example.config.read_text())
    [_, weight] = config["evaluators"]["loss_and_size"]["metrics"]
    weight["sub_types"][0]["goal"]["value"] = size
    example.config.write_text(json.dumps(config))


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_optimum_of_all_points_is_returned(
    budget: int, trials: list[dict[str, Any]], example: Job
) -> None:
    set_budget(example, budget)
    example.run()
    kept = [each for each in trials if each["numbers"]["size"]["value"] <= budget]
    best = min(kept, key=lambda each: each["numbers"]["perplexity"]["value"])
    told = example.report("models/best")["search"]
    assert told["chosen"] == [best["number"]]
    assert told["verdict"] == "keeps"
    assert 0 < len(kept) < len(trials) == 15
    delivered = sum(
        file.stat().st_size
        for file in Path(example.folder, "models/best/builder/cpu-cpu_model").iterdir()
        if file.suffix in (".onnx", ".data")
    )
    assert delivered <= budget


def test_a_budget_that_nothing_keeps_says_what_could_be_reached(
    trials: list[dict[str, Any]], example: Job
) -> None:
    set_budget(example, 1_500_000)
    done = example.drupe("run", "olive-config.json")
    assert done.returncode == 3
    smallest = min(trials, key=lambda each: each["numbers"]["size"]["value"])
    least = smallest["numbers"]["size"]["value"] / 1e6
    assert "infeasible: the size limit of 1.5 MB binds" in done.stderr
    assert f"the best reachable is {least:.3g} MB" in done.stderr
