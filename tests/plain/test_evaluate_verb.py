"""drupe evaluate: the job that its words describe, and what is refused of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import evaluate
from drupe.config.schema import Workflow
from drupe.core.errors import ConfigError, Refused
from drupe.plan import draft

from .checkpoints import make_checkpoint


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models and rows in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "base"):
        make_checkpoint(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text("{}")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "genai_config.json").write_text("{}")
    (tmp_path / "onnx" / "model.onnx").write_text("graph")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(
        (tmp_path / "base" / "model.safetensors").read_bytes()
    )
    (tmp_path / "rows.jsonl").write_text('{"phrase": "a", "tone": "b"}\n')
    return tmp_path


def judged(*words: str) -> Workflow:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    arguments, fields = parser.parse_known_args(list(words))
    arguments.fields = fields
    return evaluate.judging(arguments)


def measured(workflow: Workflow) -> dict[str, dict[str, Any]]:
    return {named.name: dict(named.metric) for named in workflow.metrics}


TEMPLATE = ("--text-template", "{phrase} {tone}")


def test_the_usual_metrics_are_those_that_the_rows_allow() -> None:
    lines = ("--text-cols", "phrase")
    assert list(measured(judged("model", "--data", "rows.jsonl", *lines))) == ["perplexity"]
    named = judged("model", "--data", "rows.jsonl", *TEMPLATE)
    assert list(measured(named)) == ["accuracy", "perplexity"]
    beside = judged("model", "--data", "rows.jsonl", *TEMPLATE, "--baseline", "base")
    assert list(measured(beside)) == ["accuracy", "perplexity", "kl"]


def test_numbers_are_metrics_in_the_words_of_the_command() -> None:
    words = ("--metrics", "auroc,f1_score,perplexity", "--max-samples", "9")
    found = judged("model", "--data", "rows.jsonl", *TEMPLATE, *words)
    metrics = measured(found)
    assert list(metrics) == ["accuracy", "perplexity"]
    assert metrics["accuracy"]["metric_config"]["f1_score"].average == "macro"
    assert "auroc" in metrics["accuracy"]["metric_config"]
    assert [metrics[name]["max_samples"] for name in metrics] == [9, 9]


def test_what_is_measured_stands_behind_its_baseline() -> None:
    planned = draft(judged("onnx", "--data", "rows.jsonl", *TEMPLATE, "--baseline", "base"))
    assert [fault.what for fault in planned.blockers] == []
    assert planned.stages == ("input model", "model")
    assert not planned.delivers
    reads = {step.name: step.reads for step in planned.steps}
    assert reads["model: kl"] == ("model", "input model")
    assert "input model: accuracy" in reads
    types = {
        name: judged(name, "--data", "rows.jsonl", *TEMPLATE, "--baseline", "base").passes[0].type
        for name in ("model", "onnx")
    }
    assert types == {"model": "GivenCheckpoint", "onnx": "GivenExport"}
    tuned = judged(
        "adapter", "--base", "base", "--data", "rows.jsonl", *TEMPLATE, "--baseline", "base"
    )
    assert tuned.passes[0].type == "GivenAdapter"


def test_an_export_is_measured_by_itself() -> None:
    found = judged("onnx", "--data", "rows.jsonl", "--text-cols", "phrase")
    assert found.input_model.type == "ONNXModel"
    planned = draft(found)
    assert [step.name for step in planned.steps] == ["input model: perplexity"]
    assert planned.source.model.kind == "onnx-genai"
    assert not planned.delivers


def test_tasks_have_the_words_of_lm_eval() -> None:
    found = judged(
        *("model", "--tasks", "arc_easy,hellaswag", "--num-fewshot", "5", "--limit", "0.5"),
        *("--apply-chat-template", "--log-samples", "--batch-size", "8", "--include-path", "own"),
        *("--max-gen-toks", "9"),
    )
    (metric,) = measured(found).values()
    assert (metric["tasks"], metric["num_fewshot"], metric["limit"]) == (
        ("arc_easy", "hellaswag"), 5, 0.5,
    )  # fmt: skip
    assert metric["apply_chat_template"]
    assert metric["log_samples"]
    assert metric["max_gen_toks"] == 9
    assert metric["include_path"] == Path("own").absolute()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model",), "needs something to measure on"),
        (
            ("model", "--tasks", "t", "--metrics", "accuracy"),
            "measures on rows, and none are named",
        ),
        (("model", "--data", "rows.jsonl", "--metrics", "acuracy"), 'did you mean "accuracy"?'),
        (("model", "--data", "rows.jsonl", "--metrics", "kl"), "compares two models, and one is"),
        (("model", "--data", "rows.jsonl", "--limit", "0.5"), "is 0.5: a part of the tasks"),
        (("model", "--tasks", "arc", *TEMPLATE), "is about rows, and none are named"),
        (
            ("model", "--data", "rows.jsonl", "--max-sample", "3"),
            'is no field of what is measured; did you mean "--max-samples"?',
        ),
        (("owner/name", "--data", "rows.jsonl", "--baseline", "base"), "owner/name is no folder"),
        (("onnx", "--base", "base", "--data", "rows.jsonl"), "belongs to an adapter"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(Refused) as raised:
        judged(*words)
    assert told in raised.value.what


def test_faults_name_the_option(here: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        judged("model", "--data", "rows.jsonl", "--max-samples", "0")
    assert "--max-samples" in str(raised.value)


def test_a_folder_that_is_no_such_model_is_refused(here: Path) -> None:
    workflow = judged("onnx", "--data", "rows.jsonl", *TEMPLATE, "--baseline", "base")
    (here / "onnx" / "model.onnx").unlink()
    [fault] = draft(workflow).blockers
    assert fault.what.endswith("is no ONNX model for ONNX Runtime GenAI: it lacks *.onnx")
