"""Latency, throughput, size and memory of small models that really answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from drupe.catalog import METRICS
from drupe.cli import main
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.operation import Metric
from drupe.core.target import Target
from drupe.evaluate import timed
from drupe.evaluate.cost_metrics import Latency, PeakMemory, Size, Throughput
from drupe.evaluate.spread import QUANTILES
from drupe.evaluate.timed import Asked, Generation, Timed, in_turns
from drupe.export import native
from drupe.export.passes import ExportGenAI
from tests.make_decoders import make_decoder

SHORT = {"prompt_length": 8, "new_tokens": 4, "warmup_num": 1, "repeat_test_num": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model("hf", make_decoder("llama", tmp_path_factory.mktemp("cost") / "llama"), "")


@pytest.fixture(scope="module")
def exported(checkpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("cost") / "onnx"
    out.mkdir()
    step = ExportGenAI(precision="int4", target=Target(threads=1))
    native.export(step, checkpoint, out, Job(out.parent / "scratch"))
    return Model("onnx-genai", out, "")


def measured(metric: Metric, model: Model, out: Path) -> dict[str, Any]:
    out.mkdir()
    metric.apply(model, None, out, Job(out.parent / "scratch", threads=1))
    found: dict[str, Any] = json.loads((out / "score.json").read_text())
    return found


@pytest.mark.parametrize("kind", ["checkpoint", "exported"])
def test_latency_and_throughput_give_every_number_that_they_declare(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(kind)
    for metric in (Latency(target=Target(), **SHORT), Throughput(target=Target(), **SHORT)):
        score = measured(metric, model, tmp_path / type(metric).__name__)
        assert set(score["sub_types"]) == set(metric.numbers)
        assert set(QUANTILES) < set(metric.numbers)
        assert score["value"] == score["sub_types"]["p50"]["value"] > 0
        assert score["low"] <= score["value"] <= score["high"]
        assert score["higher_is_better"] is metric.numbers["p50"]
        assert score["count"] == 6
        assert score["machine"]["cores"] >= 1
        runs = json.loads((tmp_path / type(metric).__name__ / "runs.json").read_text())
        assert [len(run) for run in runs] == [4] * 6
    latency = json.loads((tmp_path / "Latency" / "score.json").read_text())["sub_types"]
    assert 0 < latency["first_token"]["value"] < latency["max"]["value"]
    assert 0 < latency["per_token"]["value"] < latency["max"]["value"]


def test_what_was_measured_here_is_no_hit_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drupe.core import system
    from drupe.systems.declarations import LocalSystem, Ray

    here = LocalSystem(type="LocalSystem")
    assert here.machine()["cores"] >= 1
    before = here.machine()
    monkeypatch.setattr(system, "speed_class", lambda: {**before, "cores": 64})
    assert here.machine() != before
    one, two = (Ray(type="Ray", address=address) for address in ("ray://a:1", "ray://b:1"))
    assert one.machine() != two.machine()
    assert "ray://" not in json.dumps(one.machine())
    assert {name for name in METRICS.names() if METRICS.find(name).of_machine} >= {
        *("Latency", "Throughput", "PeakMemory")
    }
    assert not Size.of_machine


def test_size_is_every_byte_of_the_files(exported: Model, tmp_path: Path) -> None:
    score = measured(Size(), exported, tmp_path / "size")
    assert score["value"] == sum(file.stat().st_size for file in exported.path.iterdir())
    assert score["low"] == score["high"] == score["value"]
    assert score["sub_types"]["bytes"]["value"] == score["value"]


def test_peak_memory_is_that_of_a_process_of_its_own(exported: Model, tmp_path: Path) -> None:
    held = bytearray(300 * 10**6)  # this one's is none of the model's
    metric = PeakMemory(target=Target(), prompt_length=8, new_tokens=4, repeats=2)
    score = measured(metric, exported, tmp_path / "memory")
    assert len(held) > score["value"] > score["sub_types"]["loaded_bytes"]["value"] > 10**6
    assert len(score["peaks"]) == 2


def test_a_long_prompt_takes_more_memory(exported: Model) -> None:
    peaks = []
    for length in (4, 200):
        with Timed(exported, 1) as process:
            process.answer(length, 40)
            peaks.append(process.peak)
    assert peaks[1] > peaks[0]


def test_a_model_for_a_device_that_is_not_here_is_not_run(exported: Model, tmp_path: Path) -> None:
    cuda = Target(provider="CUDAExecutionProvider")
    for metric in (Latency(target=cuda), Throughput(target=cuda), PeakMemory(target=cuda)):
        score = measured(metric, exported, tmp_path / type(metric).__name__)
        assert score["value"] is None
        assert score["skipped"] == "CUDAExecutionProvider is not available on this machine"


def test_models_are_asked_in_turns_and_the_order_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Voice:
        """A model that writes down when it is asked."""

        def __init__(self, name: str) -> None:
            self.name = name

        def answer(self, prompt_length: int, new_tokens: int) -> Generation:
            asked.append(self.name)
            return Generation(0.1, (0.1,))

    voices: Any = [Voice("a"), Voice("b")]
    found = in_turns(voices, Asked(repeats=3, warm_ups=1))
    assert "".join(asked) == "ab" + "ab" + "ba" + "ab"
    assert [len(each) for each in found] == [3, 3]
    ticks = iter(range(0, 10_000, 200))
    found = in_turns(
        voices, Asked(repeats=20, warm_ups=0, most_seconds=100), clock=lambda: next(ticks)
    )
    assert len(found[0]) == timed.FEWEST


def test_more_than_the_context_holds_is_refused(exported: Model) -> None:
    with (
        Timed(exported, 1) as process,
        pytest.raises(DrupeError, match=r"holds 256 tokens, and 250 \+ 32 were asked for"),
    ):
        process.answer(250, 32)


def test_a_folder_that_does_not_load_is_told_with_its_last_words(
    exported: Model, tmp_path: Path
) -> None:
    broken = shutil.copytree(exported.path, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"not a graph")
    match = r"could not be measured, its process ended with exit code 1: .*model\.onnx"
    with pytest.raises(DrupeError, match=match), Timed(Model("onnx-genai", broken, ""), 1):
        pass


def test_benchmark_tells_a_model_beside_its_baseline(
    exported: Model, checkpoint: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", str(exported.path), "--baseline", str(checkpoint.path)]
    short = ["--prompt-length", "8", "--new-tokens", "4", "--repeats", "6", "--warm-ups", "1"]
    assert main([*words, *short]) == 0
    told = capsys.readouterr().out
    for part in ("first token", "model  ", "baseline", "model / baseline", "median of 6 answers"):
        assert part in told
    assert main([*words, *short, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratios"]["latency"]["low"] <= found["ratios"]["latency"]["high"]
    assert len(found["model"]["seconds"]) == len(found["baseline"]["seconds"]) == 6
    assert found["machine"]["processor"]


def test_benchmark_refuses_what_cannot_be_timed(
    exported: Model, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["benchmark", str(exported.path), "--new-tokens", "1"]) == 2
    assert "--new-tokens: is 1, and at least 2 is needed" in capsys.readouterr().err
    assert main(["benchmark", str(tmp_path)]) == 2
    assert "holds no model" in capsys.readouterr().err


def test_one_answer_has_no_interval_and_says_so(
    exported: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--prompt-length", "8", "--new-tokens", "4", "--repeats", "1"]
    assert main(["benchmark", str(exported.path), *short]) == 0
    assert "(no interval)" in capsys.readouterr().out
