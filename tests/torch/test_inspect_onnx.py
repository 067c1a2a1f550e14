"""`drupe inspect` on ONNX folders: drupe's own, the builder's, and graphs that are made by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from drupe.cli import main
from drupe.core.errors import Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export.exporter import export
from drupe.export.passes import ExportGenAI
from drupe.inspect.inspection import GridOfNodes, Inspection
from drupe.inspect.look import inspect
from tests.make_decoders import make_decoder
from tests.waiting import MOST_SECONDS

Captured = pytest.CaptureFixture[str]
AGAIN = "Copy or download the model again: this file is damaged."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen 3, whose head is tied to its embedding: read it only."""
    return make_decoder("qwen3", tmp_path_factory.mktemp("models") / "qwen3")


def exported(checkpoint: Path, out: Path, **fields: Any) -> Path:
    out.mkdir(parents=True)
    step = ExportGenAI.model_validate({"target": Target(threads=2), **fields})
    export(step, Model("hf", checkpoint, ""), out, Job(out.parent / "scratch", threads=2))
    return out


@pytest.fixture(scope="module")
def int4(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drupe makes of it in int4: read it only."""
    out = tmp_path_factory.mktemp("int4") / "model"
    return exported(checkpoint, out, precision="int4", exporter="native")


@pytest.fixture
def copy(int4: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int4, tmp_path / "copy"))


def parameters(found: Inspection) -> dict[str, int]:
    return {share.name: share.parameters for share in found.weights.parts if share.parameters}


@pytest.mark.parametrize("exporter", ["native", "genai"])
def test_an_export_holds_the_parameters_of_its_checkpoint(
    exporter: str, checkpoint: Path, tmp_path: Path
) -> None:
    before = inspect(checkpoint)
    assert before.family
    assert before.family.exporter == "drupe"
    out = exported(checkpoint, tmp_path / "out", precision="int4", exporter=exporter)
    after = inspect(out)
    expected = parameters(before)
    if exporter == "genai":  # it looks up the head's codes; drupe multiplies by the embedding's
        expected["head"] = expected.pop("embedding")
    assert parameters(after) == expected
    assert after.graph
    assert (after.graph.provider, after.graph.threads) == ("cpu", 2)
    assert after.graph.producer.startswith({"native": "drupe", "genai": "onnxrun"}[exporter])
    assert after.graph.activations == "float32"
    assert after.graph.slow == ()
    grid = GridOfNodes("MatMulNBits", 4, 32, True, 4, after.graph.operators["MatMulNBits"])
    assert after.graph.grids[0] == grid
    assert after.sizes
    assert before.sizes
    for name in ("layers", "hidden", "heads", "key_value_heads", "head_size", "vocabulary"):
        assert getattr(after.sizes, name) == getattr(before.sizes, name), name
    assert after.family
    assert after.family.architecture == "Qwen3ForCausalLM"
    assert after.tokenizer
    assert before.tokenizer
    assert after.tokenizer.vocabulary == before.tokenizer.vocabulary
    assert set(after.weights.files) == {"model.onnx", "model.onnx.data"}


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_embedding_on_a_grid(symmetric: bool, checkpoint: Path, tmp_path: Path) -> None:
    out = exported(
        checkpoint,
        tmp_path / "out",
        precision="int8",
        exporter="native",
        quantize_embeddings=True,
        int4_is_symmetric=symmetric,
    )
    found = inspect(out)
    assert found.graph
    gathered = [grid for grid in found.graph.grids if grid.operator == "GatherBlockQuantized"]
    assert gathered == [GridOfNodes("GatherBlockQuantized", 8, 32, symmetric, None, 1)]
    assert {grid.symmetric for grid in found.graph.grids} == {symmetric}
    assert parameters(found) == parameters(inspect(checkpoint)), "written once"
    bits = next(share for share in found.weights.parts if share.name == "embedding").bits_per_weight
    assert bits == (9.0 if symmetric else 9.25)


def test_what_is_shown_without_loading_torch(int4: Path) -> None:
    code = (
        "import sys; from drupe.cli import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'transformers', 'onnxruntime'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "inspect", str(int4)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    for part in (
        "ONNX model for ONNX Runtime GenAI",
        "family Qwen3ForCausalLM (qwen3)",
        "graph model.onnx by drupe, opset 21",
        "precision 4 bits in blocks of 32, symmetric, accuracy level 4: 21 MatMulNBits",
        "activations float32",
        "provider cpu",
        "threads 2",
        "slow no node that is known to be",
        " 4 GroupQueryAttention",
    ):
        assert part in words


def changed(folder: Path, **settings: Any) -> None:
    """Change the session options of a folder; None takes one out."""
    file = folder / "genai_config.json"
    value = json.loads(file.read_text())
    options = value["model"]["decoder"]["session_options"]
    for name, setting in settings.items():
        options.pop(name, None)
        if setting is not None:
            options[name] = setting
    file.write_text(json.dumps(value))


def test_a_folder_without_threads_for_another_provider(copy: Path, capsys: Captured) -> None:
    changed(copy, intra_op_num_threads=None, provider_options=[{"CUDA": {}}])
    assert main(["inspect", str(copy)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "provider cuda threads left to the runtime slow known of the CPU alone" in words


def test_a_graph_alone_and_a_folder_without_settings(copy: Path) -> None:
    whole = inspect(copy)
    (copy / "genai_config.json").unlink()
    for path in (copy, copy / "model.onnx"):
        found = inspect(path)
        assert found.weights == whole.weights
        assert found.sizes is None
        assert found.graph
        assert found.graph.provider is None
    (copy / "vision.onnx").write_bytes(b"")
    with pytest.raises(Refused, match="holds 2 ONNX graphs and no genai_config"):
        inspect(copy)


def slow_graph(file: Path) -> None:
    """Write a graph of two products in 8 bits that nobody told how exact they may be."""
    values = [("codes", TensorProto.UINT8, (4, 1, 32)), ("scales", TensorProto.FLOAT, (4,))]
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["A", "codes", "scales"],
            [f"B{index}"],
            name=f"/mlp/{index}",
            domain="com.microsoft",
            K=20,  # a block that is filled in part
            N=4,
            bits=8,
            block_size=32,
        )
        for index in (0, 1)
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, (1, 20))],
        [helper.make_tensor_value_info("B1", TensorProto.FLOAT, (1, 4))],
        [
            helper.make_tensor(name, kind, shape, bytes(512)[: 128 if kind == 2 else 16], raw=True)
            for name, kind, shape in values
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)


def test_slow_nodes_are_named(tmp_path: Path, capsys: Captured) -> None:
    slow_graph(tmp_path / "model.onnx")
    found = inspect(tmp_path)
    assert found.graph
    (slow,) = found.graph.slow
    assert (slow.nodes, slow.first) == (2, "/mlp/0")
    assert slow.why == "8 bits at accuracy level 0 take 86 times as long as at 4"
    assert found.graph.grids == (GridOfNodes("MatMulNBits", 8, 32, True, 0, 2),)
    assert parameters(found) == {"MLP": 80}, "by its node's name; the filling holds none"
    assert main(["inspect", str(tmp_path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "slow 2 nodes (/mlp/0, ...): 8 bits at accuracy level 0 take 86 times" in told


@pytest.mark.parametrize(
    "place",
    ["../model.onnx.data", "/etc/passwd", "a/../../x", "..\\x", "C:\\x", "\\\\server\\share\\x"],
)
def test_external_data_that_leave_their_folder_are_refused_by_name(place: str, copy: Path) -> None:
    (copy.parent / "model.onnx.data").write_bytes((copy / "model.onnx.data").read_bytes())
    file = copy / "model.onnx"
    proto = onnx.load(file, load_external_data=False)
    tensor = proto.graph.initializer[-1]
    next(entry for entry in tensor.external_data if entry.key == "location").value = place
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(Refused) as caught:
        inspect(copy)
    assert str(caught.value) == (
        f'{file}: keeps "{tensor.name}" in "{place}", which lies outside of its folder\n'
        "  Do not load it: such a graph can name any file of this machine."
    )


def test_external_data_of_a_constant_are_looked_at_too(tmp_path: Path) -> None:
    slow_graph(tmp_path / "model.onnx")
    model = onnx_ir.load(tmp_path / "model.onnx")
    outside = onnx_ir.ExternalTensor(
        "../secret", 0, 4, onnx_ir.DataType.FLOAT, shape=onnx_ir.Shape([1]), name="constant"
    )
    value = onnx_ir.AttrTensor("value", outside)
    model.graph.append(onnx_ir.Node("", "Constant", [], [value], num_outputs=1))
    onnx_ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(Refused, match=r'keeps "constant" in "\.\./secret", which lies outside'):
        inspect(tmp_path)


def test_data_that_are_missing_or_too_short(copy: Path) -> None:
    data, graph = copy / "model.onnx.data", copy / "model.onnx"
    size = data.stat().st_size
    with data.open("rb+") as file:
        file.truncate(size - 1)
    with pytest.raises(Refused) as caught:
        inspect(copy)
    told = f"{data}: is {size - 1:,} bytes long, but model.onnx tells of {size:,}\n  {AGAIN}"
    assert str(caught.value) == told
    data.unlink()
    with pytest.raises(Refused) as caught:
        inspect(copy)
    told = f"{graph}: keeps weights in model.onnx.data, which is not there\n  {AGAIN}"
    assert str(caught.value) == told


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_graph_that_is_cut_short(kept: int, copy: Path) -> None:
    file = copy / "model.onnx"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(Refused) as caught:
        inspect(copy)
    assert str(caught.value).startswith(f"{file}: is no whole ONNX graph: ")
    assert str(caught.value).endswith(f"\n  {AGAIN}")


def test_settings_that_name_no_graph_or_one_elsewhere(copy: Path) -> None:
    file = copy / "genai_config.json"
    value = json.loads(file.read_text())
    for named, told in (
        (None, r"names no graph \(model\.decoder\.filename\)\n  Give the folder that the exporter"),
        ("gone.onnx", r"names the graph gone\.onnx, which is not there\n  Copy or download"),
        ("../model.onnx", r'names the graph "\.\./model\.onnx", which lies outside of its folder'),
    ):
        value["model"]["decoder"]["filename"] = named
        file.write_text(json.dumps(value))
        with pytest.raises(Refused, match=told):
            inspect(copy)
    file.write_text("[]")
    with pytest.raises(Refused, match=r"genai_config\.json: holds no JSON object"):
        inspect(copy)
