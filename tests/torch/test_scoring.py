"""Prompts that are read once give the likelihoods of prompts that are read with each answer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judging import job
from tiny_models import make_tiny_phi3

from drupe.core.model import Model
from drupe.core.target import Target
from drupe.evaluate import scoring
from drupe.evaluate.runtimes import OnnxRuntime, Runtime, open_runtime
from drupe.evaluate.scoring import Asked, asked_within, likelihoods
from drupe.export import genai_builder, native
from drupe.export.passes import ExportGenAI


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_tiny_phi3(tmp_path_factory.mktemp("scoring") / "checkpoint")
    return Model("hf", folder, "")


@pytest.fixture(scope="module", params=["native fp32", "native int4", "builder int4"])
def onnx(request: Any, checkpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntime:
    who, precision = request.param.split()
    out = tmp_path_factory.mktemp("scoring") / "onnx"
    out.mkdir()
    export = native.export if who == "native" else genai_builder.export
    export(ExportGenAI(precision=precision, target=Target()), checkpoint, out, job(out))
    found = open_runtime(Model("onnx-genai", out, ""), Target(), 1)
    assert isinstance(found, OnnxRuntime)
    return found


def drawn(chance: random.Random, length: int) -> tuple[int, ...]:
    return tuple(chance.randrange(3, 400) for _ in range(length))


def questions(beginning: int = 0) -> list[Asked]:
    """Prompts of several lengths, each with answers of 1 to 12 tokens; some are there twice."""
    chance = random.Random(0)
    first = drawn(chance, beginning)
    asked = []
    for length in (5, 5, 5, 20, 20, 31, 40):
        prompt = first + drawn(chance, length)
        asked += [Asked(prompt, drawn(chance, size)) for size in (1, 2, 2, 5, 12)]
    return [*asked, asked[3], Asked(first + drawn(chance, 9), drawn(chance, 6))]


class Counted:
    """How many tokens a runtime reads."""

    def __init__(self, runtime: OnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        original = runtime._feeds

        def feeds(ids: np.ndarray[Any, Any], *also: Any) -> Any:
            self.tokens += ids.size
            return original(ids, *also)

        monkeypatch.setattr(runtime, "_feeds", feeds)


def together(runtime: Runtime, asked: list[Asked]) -> list[tuple[float, bool]]:
    """What `likelihoods` must agree with: each prompt with each answer by itself."""
    found = []
    for each in asked:
        logits = runtime.logits([each.read])[0, len(each.prompt) - 1 :].log_softmax(-1)
        answer = torch.tensor(each.answer)
        picked = logits.gather(1, answer[:, None]).double().sum()
        found.append((float(picked), bool((logits.argmax(-1) == answer).all())))
    return found


@pytest.mark.parametrize("beginning", [0, 60])
def test_shared_prompts_give_the_same_likelihoods(
    beginning: int, onnx: OnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = questions(beginning)
    expected = together(onnx, asked)
    counted = Counted(onnx, monkeypatch)
    found = likelihoods(onnx, asked)
    read = counted.tokens
    differences = [abs(ours.log_probability - theirs) for ours, (theirs, _) in zip(
        found, expected, strict=True)]  # fmt: skip
    assert max(differences) < 1e-5  # measured: 1e-6, of sums to -73
    assert [each.greedy for each in found] == [greedy for _, greedy in expected]
    assert read < 0.4 * sum(len(each.read) for each in asked)


def test_logits_behind_a_cache_are_those_of_the_whole(onnx: OnnxRuntime) -> None:
    chance = random.Random(1)
    ids = np.array([drawn(chance, 30) for _ in range(3)])
    whole = onnx.logits(ids.tolist())
    first, past = onnx.begin(ids[:, :20])
    assert torch.equal(first, whole[:, :20]), "the prompt itself: to the bit"
    one, _ = onnx.go_on(ids[1:2, 20:], past.rows([1]), 20)
    assert torch.equal(one[0], whole[1, 20:]), "one sequence behind its cache: to the bit"
    steps = []
    for place in range(20, 30):
        logits, past = onnx.go_on(ids[:, place : place + 1], past, place)
        steps.append(logits)
    difference = (torch.cat(steps, 1) - whole[:, 20:]).abs().max()
    assert difference < 1e-5  # measured: 2.4e-7, of logits up to 0.66


def test_a_greedy_answer_is_known_as_such(onnx: OnnxRuntime) -> None:
    prompt, said = drawn(random.Random(2), 12), list[int]()
    for _ in range(4):
        said.append(int(onnx.logits([[*prompt, *said]])[0, -1].argmax()))
    other = [*said[:2], (said[2] + 1) % 400, said[3]]
    asked = [Asked(prompt, tuple(each)) for each in (said, other, said[:1])]
    assert [each.greedy for each in likelihoods(onnx, asked)] == [True, False, True]


def test_torch_reads_prompts_with_their_answers(checkpoint: Model, onnx: OnnxRuntime) -> None:
    runtime = open_runtime(checkpoint, Target(), 1)
    asked = questions()
    found = likelihoods(runtime, asked)
    for ours, (theirs, greedy) in zip(found, together(runtime, asked), strict=True):
        assert ours.log_probability == pytest.approx(theirs, abs=1e-5)  # measured: 0
        assert ours.greedy == greedy


def test_batches_stay_within_bounds(onnx: OnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = questions()
    expected = [each.log_probability for each in likelihoods(onnx, asked)]
    monkeypatch.setattr(scoring, "CACHE_BYTES", onnx.past_bytes * 100)
    monkeypatch.setattr(scoring, "LOGITS_BYTES", 4 * 400 * 12)
    groups: dict[tuple[int, ...], list[Asked]] = {}
    for each in dict.fromkeys(asked):
        groups.setdefault(each.prompt, []).append(each)
    for batch in scoring._in_batches(groups, onnx):
        rows = sum(len(groups[prompt]) for prompt in batch)
        cache = onnx.past_bytes * (len(batch[0]) + scoring.LONG_ANSWER) * rows
        assert len(batch) == 1 or (
            len({len(prompt) for prompt in batch}) == 1
            and len(batch) * len(batch[0]) <= 12
            and cache <= scoring.CACHE_BYTES
        )
    found = [each.log_probability for each in likelihoods(onnx, asked)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_progress_ends_at_all(onnx: OnnxRuntime) -> None:
    told: list[tuple[int, int]] = []
    asked = questions()
    likelihoods(onnx, asked, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(set(asked)), len(set(asked)))
    assert likelihoods(onnx, []) == []


def test_what_is_longer_than_the_context_loses_its_beginning() -> None:
    assert asked_within([1, 2, 3, 4, 5], 3, 10) == Asked((1, 2, 3), (4, 5))
    assert asked_within([1, 2, 3, 4, 5], 3, 3) == Asked((2, 3), (4, 5))
    assert asked_within([1, 2, 3, 4, 5], 1, 2) == Asked((3,), (4, 5))
    assert asked_within([1, 2], 0, 10) == Asked((1,), (2,)), "nothing predicts the first token"


def test_what_all_prompts_begin_with() -> None:
    assert scoring._beginning([(1, 2, 3), (1, 2, 4, 5)]) == 2
    assert scoring._beginning([(1, 2, 3), (1, 2, 3, 4)]) == 2, "each keeps a token to read"
    assert scoring._beginning([(1,), (2,)]) == 0
    assert scoring._beginning([]) == 0


def test_a_folder_without_known_caches_is_read_whole(
    checkpoint: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.export(
        ExportGenAI(precision="fp32", target=Target()), checkpoint, tmp_path, job(tmp_path)
    )
    found = open_runtime(Model("onnx-genai", tmp_path, ""), Target(), 1)
    assert isinstance(found, OnnxRuntime)
    assert found.past_bytes == 2 * 2 * 2 * 16 * 4  # keys, values; layers; heads; size; bytes
    expected = [each.log_probability for each in likelihoods(found, questions())]
    monkeypatch.setattr(found, "_present", {})
    assert not found.keeps_past
    ours = [each.log_probability for each in likelihoods(found, questions())]
    assert ours == pytest.approx(expected, abs=1e-4)
