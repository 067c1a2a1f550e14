"""lm-evaluation-harness asks drupe's runtimes, and gives the numbers of its own `hf` model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from judging import TONES, items_of, job, score_of, tone_rows
from lm_eval.models.huggingface import HFLM
from tiny_models import make_tiny_phi3

from drupe.core.errors import DrupeError
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.evaluate import lm_eval_tasks
from drupe.evaluate.metrics import LmEval
from drupe.export import native
from drupe.export.passes import ExportGenAI

CHOICE = """\
task: tones
dataset_path: json
dataset_kwargs:
  data_files: rows.json
test_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Text: {{phrase}}\\nTone:"
doc_to_choice: [anger, fear, joy and mirth, sadness]
doc_to_target: "{{place}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
ROLLING = """\
task: texts
dataset_path: json
dataset_kwargs:
  data_files: rows.json
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{phrase}} {{phrase}} {{phrase}} {{phrase}} {{phrase}} {{phrase}} {{phrase}}"
metric_list:
  - metric: word_perplexity
  - metric: bits_per_byte
"""
SAID = """\
task: said
dataset_path: json
dataset_kwargs:
  data_files: rows.json
test_split: train
output_type: generate_until
doc_to_text: "Text: {{phrase}}\\nTone:"
doc_to_target: "{{tone}}"
generation_kwargs:
  until: ["\\n\\n", "q"]
  do_sample: false
  max_gen_toks: 6
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
TASKS = ("tones", "texts", "said")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "begin of text"])
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("lm_eval") / "checkpoint"
    return Model("hf", make_tiny_phi3(folder, begin=request.param), "")


@pytest.fixture(scope="module")
def onnx(checkpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("lm_eval") / "onnx"
    out.mkdir()
    native.export(ExportGenAI(precision="fp32", target=Target()), checkpoint, out, job(out))
    return Model("onnx-genai", out, "")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks with their rows, found by a path that is relative to it."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{**row, "place": TONES.index(row["tone"])} for row in tone_rows(24)]
    (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("tones", CHOICE), ("texts", ROLLING), ("said", SAID)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


def metric(tasks: Path, *names: str, **fields: Any) -> LmEval:
    return LmEval(tasks=names, include_path=tasks, target=Target(), **fields)


def numbers(given: Any) -> dict[str, float]:
    """Return each number of lm-eval's, an error's estimate too."""
    return {
        f"{task}.{key}": value
        for task, values in given["results"].items()
        for key, value in values.items()
        if isinstance(value, float)
    }


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("shots", [0, 2])
def test_numbers_are_those_of_its_own_model(
    kind: str, shots: int, checkpoint: Model, onnx: Model, tasks: Path, tmp_path: Path
) -> None:
    asked = metric(tasks, *TASKS, num_fewshot=shots, max_length=100)
    theirs = lm_eval_tasks.results(
        asked, HFLM(pretrained=str(checkpoint.path), device="cpu", max_length=100, dtype="float32")
    )
    model = checkpoint if kind == "torch" else onnx
    lm_eval_tasks.measure(asked, model, tmp_path, job(tmp_path))
    score = score_of(tmp_path)
    expected = numbers(theirs)
    compared = 0
    for name, number in score["sub_types"].items():
        value = expected[f"{name},none"]
        assert number["value"] == pytest.approx(value, rel=1e-5), name  # measured: 3e-7
        compared += 1
        error = expected.get(f"{name},none".replace(",", "_stderr,"))
        if error is not None and name.startswith(("tones", "said")):
            assert number["high"] - number["value"] == pytest.approx(1.959964 * error, rel=1e-4)
    assert compared == 5
    assert score["sub_types"]["texts.bits_per_byte"]["higher_is_better"] is False
    assert score["sub_types"]["tones.acc"]["higher_is_better"] is True
    assert "value" not in score, "of several tasks no number is the metric's own"
    # Not the numbers alone, but each log-probability that they are made of.
    judged = [sample for each in theirs["samples"]["tones"] for sample in each["filtered_resps"]]
    assert len(judged) == 24 * 4


def test_each_likelihood_is_that_of_its_own_model(
    checkpoint: Model, onnx: Model, tasks: Path, tmp_path: Path
) -> None:
    asked = metric(tasks, "tones", "said", log_samples=True)
    hf = HFLM(pretrained=str(checkpoint.path), device="cpu", dtype="float32")
    theirs = lm_eval_tasks.results(asked, hf)["samples"]
    lm_eval_tasks.measure(asked, onnx, tmp_path, job(tmp_path))
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    ours: dict[str, list[Any]] = {}
    for sample in map(json.loads, lines):
        ours.setdefault(sample["task"], []).append(sample["filtered_resps"])
    differences = [
        abs(one[0] - other[0])
        for mine, sample in zip(ours["tones"], theirs["tones"], strict=True)
        for one, other in zip(mine, sample["filtered_resps"], strict=True)
    ]
    assert max(differences) < 1e-4  # measured: 6e-6
    lm_eval_tasks.measure(asked, checkpoint, tmp_path, job(tmp_path))
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    said = [each["filtered_resps"] for each in samples if each["task"] == "said"]
    assert said == [sample["filtered_resps"] for sample in theirs["said"]]


def test_questions_are_kept_for_comparisons(checkpoint: Model, tasks: Path, tmp_path: Path) -> None:
    lm_eval_tasks.measure(metric(tasks, "tones", limit=10), checkpoint, tmp_path, job(tmp_path))
    score, items = score_of(tmp_path), items_of(tmp_path)
    assert score["count"] == 10
    assert score["paired"] == {"tones.acc": "mean", "tones.acc_norm": "mean"}
    rows = items["tones.acc"]
    assert len(rows) == 10
    assert sum(value for value, _ in rows) / 10 == score["value"]
    assert score["low"] < score["value"] < score["high"]


def test_a_task_that_is_unknown_is_refused(tasks: Path, checkpoint: Model, tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match='"tone" is no task of lm-eval\'s; did you mean "tones"'):
        lm_eval_tasks.measure(metric(tasks, "tone"), checkpoint, tmp_path, job(tmp_path))


def test_answers_that_are_drawn_are_refused(tasks: Path, checkpoint: Model, tmp_path: Path) -> None:
    drawn = SAID.replace("task: said", "task: drawn").replace("do_sample: false", "do_sample: true")
    (tmp_path / "rows.json").write_text((tasks / "rows.json").read_text())
    (tmp_path / "drawn.yaml").write_text(drawn)
    with pytest.raises(DrupeError, match="draws its answers"):
        lm_eval_tasks.measure(metric(tmp_path, "drawn"), checkpoint, tmp_path, job(tmp_path))


def test_the_direction_of_a_number_is_known_by_its_name(tasks: Path) -> None:
    asked = metric(tasks, "tones")
    assert asked.direction("tones.acc_norm") is True
    assert asked.direction("texts.word_perplexity") is False
    assert asked.direction("gsm8k.exact_match.strict-match") is True
    assert asked.direction("tones.own") is None
