"""Predictions of memory and time: by a table that is given, and beside real processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from drupe.core.errors import Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.cost import clock, prediction
from drupe.cost.bill import Attention, Product
from drupe.cost.correction import Session
from drupe.cost.draw_up import bills
from drupe.cost.prediction import Predictor, predict
from drupe.cost.times import Measurement, Nodes
from drupe.evaluate.timed import Timed
from drupe.export import native
from drupe.export.passes import ExportGenAI
from tests.make_decoders import make_decoder

INT4 = ExportGenAI(precision="int4", target=Target(threads=1))
FP32 = ExportGenAI(precision="fp32", target=Target(threads=1))
CUDA = ExportGenAI(precision="int4", target=Target(provider="CUDAExecutionProvider"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Model:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    folder = make_decoder("llama", tmp_path_factory.mktemp("cost") / "llama", **sizes)
    return Model("hf", folder, "")


def by_table(asked: Sequence[Measurement]) -> dict[str, float]:
    """One second a byte of weights, of a cache or a node, times the tokens."""
    found = {}
    for each in asked:
        match each.operator:
            case Product():
                seconds = each.operator.weight_bytes
            case Attention():
                seconds = each.behind
            case Nodes():
                seconds = 1
        found[each.name] = float(seconds * each.tokens)
    return found


def test_time_is_the_sum_over_the_operators_of_the_graph(checkpoint: Model) -> None:
    predictor = Predictor(
        checkpoint, prompt_length=10, new_tokens=4, bills=bills, times=by_table, sessions=()
    )
    for found in predictor.all([INT4, FP32]):
        bill = found.bill
        assert found.summed is not None
        assert found.summed[0] == 10 * (bill.product_bytes + bill.nodes)
        assert found.summed[1] == bill.product_bytes + 6 * 12 + bill.nodes
        assert found.ms_per_token == 1000 * found.summed[1]
        assert found.tokens_per_second == pytest.approx(1 / found.summed[1])
        assert len(found.reasons) == 4
        assert "no session has been measured yet" in found.reasons[-1]


def test_sessions_correct_it(checkpoint: Model) -> None:
    plain = Predictor(checkpoint, bills=bills, times=by_table, sessions=()).all([INT4, FP32])
    sessions = [each.session(2 * each.summed[0] + 7, 3 * each.summed[1] + 5) for each in plain]  # type: ignore[index]
    other = ExportGenAI(precision="int8", target=Target(threads=1))
    (found,) = Predictor(checkpoint, bills=bills, times=by_table, sessions=sessions).all([other])
    assert found.summed is not None
    assert found.ms_first_token == pytest.approx(1000 * (2 * found.summed[0] + 7))
    assert found.ms_per_token == pytest.approx(1000 * (3 * found.summed[1] + 5))


def test_what_a_session_took_is_remembered_for_models_of_the_shape(
    checkpoint: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPE_TIMES", str(tmp_path / "times"))
    predictor = Predictor(checkpoint, bills=bills, times=by_table)
    (before,) = predictor.all([INT4])
    assert before.summed is not None
    predictor.remember(before, before.summed[0] + 1, before.summed[1] + 2)
    (after,) = predictor.all([INT4])
    assert after.ms_per_token == pytest.approx(1000 * (before.summed[1] + 2))
    assert "corrected by 1 session" in after.reasons[-1]
    longer = Predictor(checkpoint, prompt_length=100, bills=bills, times=by_table)
    assert "no session" in longer.all([INT4])[0].reasons[-1]


def test_alike_operators_are_asked_for_once_and_measured_ones_never_again(
    checkpoint: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Measurement] = []

    def times(wanted: Sequence[Measurement]) -> Mapping[str, float]:
        asked.extend(wanted)
        return by_table(wanted)

    Predictor(checkpoint, bills=bills, times=times, sessions=()).all([INT4, INT4, FP32])
    assert len(asked) == len(set(asked))
    monkeypatch.setenv("DRUPE_TIMES", str(tmp_path / "times"))
    questions = []
    usual = prediction._asked

    def counted(module: str, question: object) -> object:
        questions.append(module)
        return usual(module, question)

    monkeypatch.setattr(prediction, "_asked", counted)
    first = predict(INT4, checkpoint, prompt_length=8, new_tokens=4)
    (second,) = Predictor(checkpoint, 8, 4, bills=bills).all([INT4])
    assert first == second
    assert questions.count("drupe.cost.clock") == 1
    assert first.ms_per_token is not None
    assert first.ms_per_token > 0


def test_of_another_device_only_the_size_is_known(checkpoint: Model) -> None:
    (found,) = Predictor(checkpoint, bills=bills, sessions=()).all([CUDA])
    assert found.exact
    assert found.size_bytes > 0
    assert (found.memory_bytes, found.ms_per_token, found.tokens_per_second) == (None, None, None)
    assert found.reasons[-1] == "memory, time: not known for CUDAExecutionProvider from here"


def test_a_checkpoint_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    folder = make_decoder("llama", tmp_path / "checkpoint")
    text = (folder / "config.json").read_text().replace('"hidden_size": 64', '"hidden_size": 32')
    (folder / "config.json").write_text(text)
    with pytest.raises(Refused, match=r"embed_tokens\.weight"):
        predict(INT4, Model("hf", folder, ""))


@pytest.mark.parametrize("length", [64, 200])
@pytest.mark.parametrize("step", [INT4, FP32], ids=["int4", "fp32"])
def test_memory_is_that_of_a_real_process(
    step: ExportGenAI, length: int, checkpoint: Model, tmp_path: Path
) -> None:
    """What is sampled every 10 ms may miss the very top; measured within a tenth."""
    (tmp_path / "onnx").mkdir()
    native.export(step, checkpoint, tmp_path / "onnx", Job(tmp_path / "scratch", threads=1))
    predictor = Predictor(checkpoint, length, 40, bills=bills, times=by_table, sessions=())
    (found,) = predictor.all([step])
    with Timed(Model("onnx-genai", tmp_path / "onnx", ""), 1) as process:
        process.answer(length, 40)
    assert found.memory_bytes == pytest.approx(process.peak, rel=0.2)


@pytest.mark.parametrize(
    "operator",
    [
        Product("MatMulNBits", 96, 64, 4, 32, level=4),
        Product("MatMulNBits", 96, 64, 8, 16, symmetric=False, level=4),
        Product("MatMul", 96, 64),
        Product("FusedMatMul", 96, 64),
        Attention(4, 2, 16),
        Attention(4, 4, 32, window=8),
        Nodes(64, 128),
    ],
)
@pytest.mark.parametrize("tokens", [1, 8])
def test_every_operator_is_measured(operator: Product | Attention | Nodes, tokens: int) -> None:
    measurement = Measurement(operator, tokens, 16 if tokens == 1 else 0, 1, 2**16)
    assert 0 < clock.measure(measurement) < 0.5


def test_more_weights_take_longer() -> None:
    small, large = (
        clock.measure(Measurement(Product("MatMul", rows, 512), 1, 0, 1, 2**22))
        for rows in (256, 4096)
    )
    assert large > 2 * small


def test_a_matrix_too_large_to_measure_is_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product("MatMul", 4096, 512)
    whole = clock.measure(Measurement(product, 1, 0, 1))
    monkeypatch.setattr(clock, "MOST_BYTES", product.weight_bytes // 4)
    part = clock.measure(Measurement(product, 1, 0, 1))
    assert 0.2 < part / whole < 5


def test_a_session_is_what_was_summed_and_what_it_took(checkpoint: Model) -> None:
    (found,) = Predictor(checkpoint, bills=bills, times=by_table, sessions=()).all([INT4])
    assert found.summed is not None
    assert found.session(1.5, 0.5) == Session(*found.summed, 1.5, 0.5)
