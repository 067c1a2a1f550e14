"""Whoever opens an ONNX folder that was given refuses one that names files outside of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from drupe.cli import main
from drupe.core.errors import Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.evaluate.chat import Chat
from drupe.evaluate.runtimes import open_runtime
from drupe.export.export_proof import prove
from drupe.export.exporter import export
from drupe.export.passes import ExportGenAI, ExportProof
from tests.make_decoders import make_decoder

REMEDY = "Do not load it: such a graph can name any file of this machine."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama: read it only."""
    return make_decoder("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drupe makes of it in int4: read it only."""
    out = tmp_path_factory.mktemp("int4") / "model"
    out.mkdir()
    step = ExportGenAI(precision="int4", target=Target(threads=1))
    export(step, Model("hf", checkpoint, ""), out, Job(out.parent / "scratch", threads=1))
    return out


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy, beside which lie the weights a second time: they could be loaded."""
    shutil.copy(exported / "model.onnx.data", tmp_path / "model.onnx.data")
    return Path(shutil.copytree(exported, tmp_path / "model"))


def move_a_tensor(folder: Path, place: str) -> str:
    """Have one initializer lie at `place`; return its name."""
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = proto.graph.initializer[-1]
    next(entry for entry in tensor.external_data if entry.key == "location").value = place
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return str(tensor.name)


def by_proof(folder: Path, checkpoint: Path, out: Path) -> None:
    prove(
        ExportProof(), Model("onnx-genai", folder, ""), Model("hf", checkpoint, ""), out, Job(out)
    )


def by_metrics(folder: Path, checkpoint: Path, out: Path) -> None:
    open_runtime(Model("onnx-genai", folder, ""), Target(), 1)


def by_chat(folder: Path, checkpoint: Path, out: Path) -> None:
    Chat(folder)


Opener = Callable[[Path, Path, Path], None]
OPENERS = (by_proof, by_metrics, by_chat)


@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("place", ["../model.onnx.data", "/etc/passwd", "C:\\x"])
def test_data_that_lie_elsewhere(
    opened: Opener, place: str, folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    name = move_a_tensor(folder, place)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Refused) as caught:
        opened(folder, checkpoint, out)
    assert str(caught.value) == (
        f'{folder / "model.onnx"}: keeps "{name}" in "{place}", which lies outside of its folder\n'
        f"  {REMEDY}"
    )
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("section", ["decoder", "embedding"])
def test_a_graph_that_lies_elsewhere(
    opened: Opener, section: str, folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "model.onnx", tmp_path / "model.onnx")
    file = folder / "genai_config.json"
    settings = json.loads(file.read_text())
    settings["model"].setdefault(section, {})["filename"] = "../model.onnx"
    file.write_text(json.dumps(settings))
    with pytest.raises(Refused) as caught:
        opened(folder, checkpoint, tmp_path)
    assert str(caught.value) == (
        f'{file}: names the graph "../model.onnx", which lies outside of its folder\n'
        "  Give the folder as its publisher has it."
    )


def test_a_second_graph_is_looked_at_too(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "second.onnx")
    file = folder / "genai_config.json"
    settings = json.loads(file.read_text())
    settings["model"]["decoder"]["pipeline"] = [{"then": {"filename": "second.onnx"}}]
    file.write_text(json.dumps(settings))
    move_a_tensor(folder, "../model.onnx.data")
    (folder / "model.onnx").rename(folder / "moved.onnx")
    (folder / "second.onnx").rename(folder / "model.onnx")
    (folder / "moved.onnx").rename(folder / "second.onnx")
    with pytest.raises(Refused, match=r'second\.onnx: keeps ".*" in "\.\./model\.onnx\.data"'):
        Chat(folder)


def test_a_link_to_where_a_download_keeps_its_files_is_none(folder: Path, tmp_path: Path) -> None:
    """So lies a model in the Hub's cache."""
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).replace(tmp_path / f"blob-{name}")
        (folder / name).symlink_to(tmp_path / f"blob-{name}")
    runtime = open_runtime(Model("onnx-genai", folder, ""), Target(), 1)
    assert runtime.logits([[1, 2]]).isfinite().all()


def test_chat_says_it_in_two_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = move_a_tensor(folder, "../model.onnx.data")
    assert main(["chat", str(folder), "--prompt", "Hello"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("drupe: ")
    assert told.endswith(
        f'keeps "{name}" in "../model.onnx.data", which lies outside of its folder\n  {REMEDY}\n'
    )
