"""Metrics by a user's own functions, called as Olive calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from judging import data, job, score_of, tone_rows
from pydantic import ValidationError
from tiny_models import make_tiny_phi3

from drupe.core.errors import DrupeError
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.evaluate import custom
from drupe.evaluate.metrics import Custom
from drupe.export import native
from drupe.export.passes import ExportGenAI

SCRIPT = """
import json, os
from beside import FACTOR

def judge(model, data_dir, batch_size, device, execution_providers, extra=0):
    runtime = model.runtime()
    logits = runtime.logits([[5, 6, 7]])
    return {"tokens": logits.shape[1] * FACTOR + extra, "kind": len(model.kind),
            "told": {"value": batch_size, "low": 1, "high": 9}}

def parts(model, data_dir, batch_size, device, execution_providers):
    assert os.listdir(data_dir) == ["data.txt"] and device == "cpu"
    assert execution_providers == ["CPUExecutionProvider"]
    if model.kind == "onnx-genai":
        return len(model.prepare_session(execution_providers=execution_providers).get_inputs())
    return sum(p.numel() for p in model.load_model().parameters())

def right(model_output, targets, plus=0):
    assert model_output.logits.shape == (len(targets), 4)
    hits = [p == t for p, t in zip(model_output.preds, targets)]
    return sum(hits) / len(hits) + plus

def breaks(model, *arguments):
    raise KeyError("no such thing")

def nothing(model, *arguments):
    return {"a": "three"}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model("hf", make_tiny_phi3(tmp_path_factory.mktemp("custom") / "checkpoint"), "")


@pytest.fixture(scope="module")
def onnx(checkpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("custom") / "onnx"
    out.mkdir()
    native.export(ExportGenAI(precision="fp32", target=Target()), checkpoint, out, job(out))
    return Model("onnx-genai", out, "")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "beside.py").write_text("FACTOR = 2\n")
    (tmp_path / "own.py").write_text(SCRIPT)
    return tmp_path / "own.py"


def metric(script: Path, **fields: Any) -> Custom:
    return Custom(
        user_script=script, script_dir=script.parent / "modules", target=Target(), **fields
    )


def test_a_function_is_given_the_model_as_it_is_deployed(
    script: Path, checkpoint: Model, onnx: Model, tmp_path: Path
) -> None:
    own = metric(
        script, evaluate_func="judge", evaluate_func_kwargs={"extra": 4}, batch_size=3,
        names=("kind", "tokens"),
    )  # fmt: skip
    for model, kind in ((checkpoint, 2), (onnx, 10)):
        custom.measure(own, model, tmp_path, job(tmp_path))
        score = score_of(tmp_path)
        assert score["value"] == kind, "the first that is wanted is the metric's own"
        assert list(score["sub_types"]) == ["kind", "tokens", "told"]
        assert score["sub_types"]["tokens"] == {"value": 10}
        assert score["sub_types"]["told"] == {"value": 3, "low": 1, "high": 9}


def test_a_function_can_load_the_model_itself(
    script: Path, checkpoint: Model, onnx: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "data.txt").write_text("rows")
    own = metric(script, evaluate_func="parts", data_dir=folder).giving(("parts",))
    custom.measure(own, checkpoint, tmp_path, job(tmp_path))
    assert score_of(tmp_path)["sub_types"] == {"parts": {"value": 125_248}}
    custom.measure(own, onnx, tmp_path, job(tmp_path))
    assert score_of(tmp_path)["value"] == 6  # ids, mask, keys and values of two layers
    judged = custom.JudgedModel(onnx, Target(), 1)
    with pytest.raises(DrupeError, match="load_model cannot give as a torch module"):
        judged.load_model()
    with pytest.raises(DrupeError, match="which ONNX Runtime cannot run"):
        custom.JudgedModel(checkpoint, Target(), 1).prepare_session()


def test_a_function_judges_answers(script: Path, checkpoint: Model, tmp_path: Path) -> None:
    rows = data(tmp_path, tone_rows(20))
    own = metric(script, metric_func="right", metric_func_kwargs={"plus": 1}, data_config=rows)
    custom.measure(own, checkpoint, tmp_path, job(tmp_path))
    assert 1 <= score_of(tmp_path)["value"] <= 2
    assert list(score_of(tmp_path)["sub_types"]) == ["value"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"evaluate_func": "absent"}, 'has no function "absent"'),
        ({"evaluate_func": "breaks"}, "breaks failed: KeyError: 'no such thing'"),
        ({"evaluate_func": "nothing"}, "gave str for a, no number"),
        ({"evaluate_func": "judge", "names": ("other",)}, "gave tokens, kind, told, and other is"),
    ],
)
def test_a_function_that_fails_is_named(
    fields: dict[str, Any], told: str, script: Path, checkpoint: Model, tmp_path: Path
) -> None:
    with pytest.raises(DrupeError, match=told):
        custom.measure(metric(script, **fields), checkpoint, tmp_path, job(tmp_path))


def test_one_number_for_several_names_is_refused() -> None:
    with pytest.raises(DrupeError, match="gave one number, and 2 are wanted: a, b"):
        custom.numbers_of(3, "own.py: f", ("a", "b"))
    assert custom.numbers_of(3, "own.py: f", ("a",)) == {"a": {"value": 3.0}}


def test_one_function_is_named(script: Path) -> None:
    with pytest.raises(ValidationError, match="evaluate_func or metric_func: one of them"):
        metric(script)
    with pytest.raises(ValidationError, match="name data_config"):
        metric(script, metric_func="right")
    idle = metric(script, evaluate_func="judge", metric_func_kwargs={"a": 1}).without_effect()
    assert [each.place for each in idle] == [("metric_func_kwargs",)]


def test_the_code_decides_the_key(script: Path) -> None:
    def key() -> str:
        return metric(script, evaluate_func="judge").key(
            "Custom", ("0",), lambda path: path.read_text() if path.is_file() else "folder"
        )

    before = key()
    script.write_text(SCRIPT + "\n# changed\n")
    assert key() != before
