"""The page's own config, word for word, runs to its end on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import DRUPE, Job, page_in


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return the page's config; what one test has trained the next one finds in the cache."""
    return page_in(tmp_path_factory.mktemp("page"))


def test_runs_unchanged(page: Job) -> None:
    shown = page.run("--system", "local", "--target", "cpu").stdout
    assert "double_quant has no effect under LoRA" in shown
    output = "../model-cache/models/phi3-finetuned"
    report = page.report(output)
    assert [stage["name"] for stage in report["stages"]] == [
        "input model",
        "lora",
        "merge_adapter_weights",
        "builder",
    ]
    lora = report["stages"][1]["facts"]
    assert lora["losses"][-1][0] == 10  # max_steps of the page outweighs its epochs
    model = page.config.parent / output / "lora-merge_adapter_weights-builder" / "cpu-cpu_model"
    assert json.loads((model / "genai_config.json").read_text())["model"]["type"] == "phi3"


def test_for_its_own_target_it_is_built_but_not_run(page: Job) -> None:
    """CUDA is what the page wants: the model is made here, and said to be unmeasured."""
    page.run("--system", "local")
    report = page.report("../model-cache/models/phi3-finetuned")
    assert report["target"]["provider"] == "CUDAExecutionProvider"
    assert all("skipped" in score for score in report["stages"][-1]["scores"].values())


def test_its_azureml_host_is_refused_with_the_remedy(page: Job) -> None:
    done = page.drupe("run", "--config", "olive-config.json")
    assert done.returncode == 2
    assert "systems.aml: has no workspace" in done.stderr
    assert "or run with --system local." in done.stderr


def test_the_pages_own_command_is_there(page: Job) -> None:
    """`olive` of drupe-olive, as scripts/setup installs it."""
    words = ["run", "--config", "olive-config.json", "--system", "local", "--target", "cpu"]
    olive = str(Path(DRUPE).with_name("olive"))
    command = [olive, *words, "--dry-run"]
    done = subprocess.run(command, cwd=page.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("olive: drupe ")
    assert "lora -> merge_adapter_weights -> builder" in done.stdout
