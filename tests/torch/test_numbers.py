"""Accuracy's further numbers, answers that are said, divergences, and stopping when it is clear."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from judging import data, items_of, job, score_of, tone_rows
from sklearn import metrics as sklearn
from tiny_models import make_tiny_phi3
from transformers import AutoModelForCausalLM, AutoTokenizer

from drupe.core.errors import DrupeError, Refused
from drupe.core.intervals import wilson
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.evaluate import accuracy, kl_divergence, numbers, sequential
from drupe.evaluate.generated import TorchSpeaker, first_line, speaker
from drupe.evaluate.metrics import Accuracy, KLDivergence, NumberArguments
from drupe.evaluate.runtimes import open_runtime
from drupe.export.native import export
from drupe.export.passes import ExportGenAI


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_tiny_phi3(tmp_path_factory.mktemp("numbers") / "checkpoint", begin=True)
    return Model("hf", folder, "")


@pytest.fixture(scope="module")
def onnx(checkpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("numbers") / "onnx"
    out.mkdir()
    export(ExportGenAI(precision="int4", target=Target()), checkpoint, out, job(out))
    return Model("onnx-genai", out, "")


# ---- numbers


def scores_and_truth(classes: int, rows: int = 300) -> tuple[torch.Tensor, list[str], list[str]]:
    """Log-probabilities that lean to the right answer, the right answers, the choices."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(classes, (rows,), generator=generator)
    scores = torch.randn((rows, classes), generator=generator)
    scores[torch.arange(rows), truth] += 1.0
    choices = [f"class {number}" for number in range(classes)]
    return scores.double(), [choices[each] for each in truth.tolist()], choices


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", ["f1_score", "precision", "recall", "accuracy_score"])
def test_numbers_are_those_of_scikit_learn(name: Any, average: Any, tmp_path: Path) -> None:
    scores, right, choices = scores_and_truth(4)
    wanted = {name: NumberArguments(average=average, num_classes=4)}
    found = numbers.counted(wanted, scores, right, choices, job(tmp_path))[name]
    predicted = [choices[place] for place in scores.argmax(1)]
    if name == "accuracy_score":  # of an average over classes: recall
        expected = sklearn.recall_score(right, predicted, average=average)
    else:
        expected = getattr(sklearn, name if name == "f1_score" else f"{name}_score")(
            right, predicted, average=average
        )
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert found["low"] < found["value"] < found["high"]


def test_auroc_is_that_of_scikit_learn(tmp_path: Path) -> None:
    scores, right, choices = scores_and_truth(4)
    found = numbers.counted({"auroc": NumberArguments()}, scores, right, choices, job(tmp_path))[
        "auroc"
    ]
    expected = sklearn.roc_auc_score(
        right, scores.softmax(1).float().numpy(), multi_class="ovr", average="macro", labels=choices
    )
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert 0.02 < found["high"] - found["low"] < 0.2


def test_of_two_choices_one_can_be_looked_for(tmp_path: Path) -> None:
    scores, right, choices = scores_and_truth(2)
    predicted = [choices[place] for place in scores.argmax(1)]
    for positive in (None, *choices):
        wanted = {"precision": NumberArguments(task="binary", positive=positive)}
        found = numbers.counted(wanted, scores, right, choices, job(tmp_path))["precision"]
        expected = sklearn.precision_score(right, predicted, pos_label=positive or choices[1])
        assert found["value"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "classes", "told"),
    [
        ({"num_classes": 5}, 4, "num_classes: is 5, but there are 4 choices"),
        ({"task": "binary"}, 4, "task: is binary, but there are 4 choices"),
        ({"task": "binary", "positive": "yes"}, 2, 'positive: is "yes", which is no choice'),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: dict[str, Any], classes: int, told: str, tmp_path: Path
) -> None:
    scores, right, choices = scores_and_truth(classes, 20)
    wanted = {"f1_score": NumberArguments(**arguments)}
    with pytest.raises(DrupeError, match=told):
        numbers.counted(wanted, scores, right, choices, job(tmp_path))


def test_a_number_that_is_accuracy_by_another_name_is_told(tmp_path: Path) -> None:
    scores, right, choices = scores_and_truth(4, 20)
    events: list[dict[str, Any]] = []
    numbers.counted({"f1_score": NumberArguments()}, scores, right, choices, job(tmp_path, events))
    assert "is accuracy_score" in events[0]["text"]
    events.clear()
    macro = {"f1_score": NumberArguments(average="macro")}
    numbers.counted(macro, scores, right, choices, job(tmp_path, events))
    assert events == []


def test_accuracy_gives_the_numbers_that_are_wanted(checkpoint: Model, tmp_path: Path) -> None:
    metric = Accuracy(data_config=data(tmp_path, tone_rows(40)), target=Target())
    accuracy.measure(
        metric.giving(("accuracy_score", "auroc")), checkpoint, tmp_path, job(tmp_path)
    )
    score = score_of(tmp_path)
    assert set(score["sub_types"]) == {"accuracy_score", "auroc"}
    assert score["sub_types"]["accuracy_score"]["value"] == score["value"]
    assert score["paired"] == "answers"


def test_numbers_of_one_answer_that_is_said_are_refused(tmp_path: Path) -> None:
    metric = Accuracy(data_config=data(tmp_path, tone_rows(4)), target=Target(), answer="generated")
    assert metric.giving(("accuracy_score",)) == metric
    with pytest.raises(Refused, match="gives accuracy_score alone, and f1_score is wanted"):
        metric.giving(("f1_score",))


def test_the_libraries_that_decide_are_those_that_are_used(tmp_path: Path) -> None:
    plain = Accuracy(data_config=data(tmp_path, tone_rows(4)), target=Target())
    assert "torchmetrics" not in plain.deciding_libraries()
    assert "torchmetrics" in plain.giving(("auroc",)).deciding_libraries()
    said = plain.model_copy(update={"answer": "generated"})
    assert "onnxruntime-genai" in said.deciding_libraries()


# ---- answers that are said


def test_what_is_said_is_what_transformers_generates(
    checkpoint: Model, onnx: Model, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    network = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    speak, deployed = (speaker(model, Target(), 1) for model in (checkpoint, onnx))
    for row in tone_rows(5):
        prompt = f"### Text: {row['phrase']}\n### The tone is:\n"
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        theirs = network.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        text = tokenizer.decode(theirs, skip_special_tokens=True)
        assert speak.first_line(prompt, 8, special=True) == first_line(text)
        assert deployed.first_line(prompt, 8, special=True), (
            "int4 may say otherwise, but it says something"
        )


def test_the_first_line_is_the_answer() -> None:
    assert first_line("\n  joy \nBecause it is.") == "joy"
    assert first_line(" \n") == ""


def test_a_long_prompt_loses_its_beginning(checkpoint: Model, onnx: Model) -> None:
    for model in (checkpoint, onnx):
        said = speaker(model, Target(), 1).first_line("word " * 300, 4, special=True)
        assert isinstance(said, str)


def test_accuracy_of_what_is_said(
    checkpoint: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tone_rows(12)
    said = iter([row["tone"] for row in rows[:9]] + ["Joy!", "", "it is joy"])
    monkeypatch.setattr(TorchSpeaker, "texts", lambda self, ids, most: iter([next(said)]))
    metric = Accuracy(data_config=data(tmp_path, rows), target=Target(), answer="generated")
    accuracy.measure(metric, checkpoint, tmp_path, job(tmp_path))
    score = score_of(tmp_path)
    assert (score["value"], score["count"], score["answer"]) == (0.75, 12, "generated")
    assert items_of(tmp_path)[9:] == [["Joy!", rows[9]["tone"]], ["", rows[10]["tone"]],
                                      ["it is joy", rows[11]["tone"]]]  # fmt: skip


# ---- divergence


def divergences(reference: Path, onnx: Model, texts: list[str]) -> tuple[float, float]:
    """The ten lines that KLDivergence must agree with: nats a token, share of equal tokens."""
    tokenizer = AutoTokenizer.from_pretrained(reference)
    network = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    runtime = open_runtime(onnx, Target(), 1)
    nats, same, tokens = 0.0, 0, 0
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            p = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        q = runtime.logits([ids])[0].double().log_softmax(-1)
        nats += float((p.exp() * (p - q)).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        tokens += len(ids)
    return nats / tokens, same / tokens


def test_the_divergence_is_that_of_a_plain_loop(
    checkpoint: Model, onnx: Model, tmp_path: Path
) -> None:
    rows = tone_rows(10)
    metric = KLDivergence(data_config=data(tmp_path, rows), target=Target())
    kl_divergence.measure(metric, onnx, checkpoint, tmp_path, job(tmp_path))
    score = score_of(tmp_path)
    # Each row ends with its end of text, which is predicted like the other tokens.
    texts = [f"### Text: {row['phrase']}\n### The tone is:\n{row['tone']}" for row in rows]
    kl, same = divergences(checkpoint.path, onnx, texts)
    assert score["value"] == pytest.approx(kl, rel=1e-3)  # measured: 5e-5, of 2.2e-4 nats
    assert score["sub_types"]["same_top_1"]["value"] == pytest.approx(same, abs=1e-9)
    assert 0 < score["low"] < score["value"] < score["high"]
    assert "flips" not in score["sub_types"]
    items = items_of(tmp_path)
    assert sum(item[0] for item in items) / sum(item[1] for item in items) == score["value"]


def test_a_model_does_not_diverge_from_itself(checkpoint: Model, tmp_path: Path) -> None:
    metric = KLDivergence(data_config=data(tmp_path, tone_rows(6)), target=Target())
    metric = metric.giving(("flips",))
    kl_divergence.measure(metric, checkpoint, checkpoint, tmp_path, job(tmp_path))
    score = score_of(tmp_path)
    assert score["value"] == 0
    assert score["sub_types"]["same_top_1"]["value"] == 1
    assert score["sub_types"]["flips"]["value"] == 0


def test_flips_are_answers_that_changed(
    checkpoint: Model, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Model(
        "hf", make_tiny_phi3(tmp_path_factory.mktemp("other") / "c", begin=True, seed=5), ""
    )
    metric = KLDivergence(data_config=data(tmp_path, tone_rows(30)), target=Target(), flips=True)
    kl_divergence.measure(metric, other, checkpoint, tmp_path, job(tmp_path))
    flips = score_of(tmp_path)["sub_types"]["flips"]["value"]
    plain = Accuracy(data_config=metric.data_config, target=Target())
    told = []
    for model in (checkpoint, other):
        accuracy.measure(plain, model, tmp_path, job(tmp_path))
        told.append([answer for answer, _ in items_of(tmp_path)])
    changed = sum(one != another for one, another in zip(*told, strict=True))
    assert flips == changed / 30
    assert changed > 0


def test_models_of_two_tokenizers_are_not_compared(
    checkpoint: Model, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Model("hf", make_tiny_phi3(tmp_path_factory.mktemp("other") / "plain"), "")
    metric = KLDivergence(data_config=data(tmp_path, tone_rows(3)), target=Target())
    with pytest.raises(DrupeError, match="tokenizers read the rows as other tokens"):
        kl_divergence.measure(metric, checkpoint, other, tmp_path, job(tmp_path))


# ---- stopping when it is clear


def rows_asked(count: int) -> tuple[Any, list[int]]:
    """Return rows to ask, and a list to write down how many were asked each time."""
    asked: list[int] = []

    class Rows:
        def __init__(self, rows: list[int]) -> None:
            self.right = rows

        def some(self, rows: list[int]) -> Any:
            return Rows([self.right[row] for row in rows])

    return Rows(list(range(count))), asked


@pytest.mark.parametrize(
    ("share", "limit", "verdict", "rows"),
    [(0.95, 0.6, "above", 64), (0.3, 0.6, "below", 64), (0.6, 0.6, "undecided", 5000)],
)
def test_asking_stops_when_the_verdict_is_clear(
    share: float, limit: float, verdict: str, rows: int
) -> None:
    asked, counts = rows_asked(5000)

    def answer(some: Any) -> list[tuple[str, str]]:
        counts.append(len(some.right))
        return [("a" if row < share * 5000 else "b", "a") for row in some.right]

    found, told = sequential.decided(asked, answer, limit)
    assert told == {"decided": {"at": limit, "verdict": verdict, "rows": rows, "of": 5000}}
    assert sum(item is not None for item in found) == rows == sum(counts)
    assert len(found) == 5000


def test_a_verdict_is_wrong_no_more_often_than_it_says() -> None:
    """At the very limit each verdict is wrong: at most one in twenty may be given."""
    wrong = 0
    for seed in range(400):
        chance = random.Random(seed)
        truth = [chance.random() < 0.7 for _ in range(2000)]
        _, told = sequential.in_looks(
            2000,
            lambda rows, truth=truth: [truth[row] for row in rows],
            lambda hits, z: wilson(sum(hits), len(hits), z),
            0.7,
        )
        wrong += told["decided"]["verdict"] != "undecided"
    assert wrong <= 20  # measured: 12 of 400


def test_the_same_rows_are_asked_each_time_and_first_looks_are_the_widest() -> None:
    assert sequential.order_of(50) == sequential.order_of(50) != list(range(50))
    assert sequential.looks(1000) == [64, 128, 256, 512, 1000]
    assert sequential.looks(40) == [40]
    spent = [sequential.ALPHA / (look * (look + 1)) for look in range(1, 1000)]
    assert math.fsum(spent) < sequential.ALPHA
    assert sequential.quantile(1) < sequential.quantile(5)


def test_a_metric_stops_when_it_is_clear(checkpoint: Model, onnx: Model, tmp_path: Path) -> None:
    rows = data(tmp_path, tone_rows(200))
    metric = Accuracy(data_config=rows, target=Target(), decide_at=0.9)
    accuracy.measure(metric, checkpoint, tmp_path, job(tmp_path))
    score = score_of(tmp_path)
    assert score["decided"] == {"at": 0.9, "verdict": "below", "rows": 64, "of": 200}
    assert score["count"] == 64
    assert sum(item is not None for item in items_of(tmp_path)) == 64
    divergence = KLDivergence(data_config=rows, target=Target(), decide_at=10.0)
    kl_divergence.measure(divergence, onnx, checkpoint, tmp_path, job(tmp_path))
    assert score_of(tmp_path)["decided"]["verdict"] == "below"
    with pytest.raises(Refused, match="is about accuracy_score, and f1_score is wanted"):
        metric.giving(("f1_score",))
