"""Packages of the result: what is in them, what is refused, and that they are whole or absent."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.errors import ConfigError, DrupeError, Refused
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.outcome import Stage
from drupe.packaging import archive
from drupe.packaging.archive import stamp_of_zip, write_zip
from drupe.packaging.companions import companions, foundry
from drupe.packaging.container import dockerfile
from drupe.packaging.mlflow import mlflow_files
from drupe.packaging.packages import MARK
from drupe.packaging.requirements import requirements
from tests.plain.conftest import Workspace, tree

MODEL = ("README.md", "a.txt", "b.txt")
RECORDS = ("config.lock.json", "report.html", "report.json")


@pytest.fixture
def packed(workspace: Workspace) -> Workspace:
    workspace.config["engine"]["packaging_config"] = {"type": "Zipfile", "name": "sent"}
    return workspace


def package(workspace: Workspace, *packages: dict[str, Any]) -> None:
    workspace.config["engine"]["packaging_config"] = list(packages)


# The zip


def test_a_zip_has_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(3 * archive.BLOCK_BYTES + 1))
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    write_zip(one, {"b/w": weights, "a": b"text"}, "1")
    weights.chmod(0o400)
    os.utime(weights, (1, 1))
    write_zip(other, {"a": b"text", "b/w": weights}, "1")
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as read:
        assert read.testzip() is None
        assert read.namelist() == ["a", "b/w"]
        assert read.read("b/w") == weights.read_bytes()
        assert {entry.compress_type for entry in read.infolist()} == {zipfile.ZIP_STORED}
    assert stamp_of_zip(one) == "1"


def test_a_large_file_is_read_a_block_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            asked.append(-1 if size is None else size)
            return super().read(size)

    def watched(self: Path, mode: str = "r") -> Watched:
        return Watched(self, mode)

    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.truncate(20 * archive.BLOCK_BYTES)
    monkeypatch.setattr(Path, "open", watched)
    monkeypatch.setattr(archive, "sync_file", lambda path: None)
    write_zip(tmp_path / "x.zip", {"w": weights}, "1")
    assert len(asked) == 21
    assert set(asked) == {archive.BLOCK_BYTES}


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "C:/a", "a\\b", "a//b", ".", ""])
def test_no_name_leads_out_of_a_package(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="is no name for a file in a package"):
        write_zip(tmp_path / "x.zip", {name: b""}, "1")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, weights = tmp_path / "x.zip", tmp_path / "weights"
    weights.write_bytes(b"weights")
    write_zip(place, {"w": b"before"}, "1")
    before = place.read_bytes()

    def full(source: Any, into: Any) -> None:
        into.write(b"we")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        write_zip(place, {"w": weights}, "2")
    assert place.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["weights", "x.zip"]


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    half = tmp_path / f".x.zip.half-{dead.pid}"
    half.write_bytes(b"half")
    others = tmp_path / f".x.zip.half-{os.getppid()}"  # a process that lives still writes it
    others.write_bytes(b"half")
    write_zip(tmp_path / "x.zip", {"a": b""}, "1")
    assert sorted(file.name for file in tmp_path.iterdir()) == [others.name, "x.zip"]


@pytest.mark.parametrize("left", [0, 1, 0.5, 0.99])
def test_a_cut_zip_is_not_whole(tmp_path: Path, left: float) -> None:
    place = tmp_path / "x.zip"
    write_zip(place, {"a": b"text" * 100, "b": b""}, "1")
    data = place.read_bytes()
    place.write_bytes(data[: int(len(data) * left)])
    assert stamp_of_zip(place) == ("1" if left == 1 else None)


# The job


def test_the_result_is_packed_and_left_alone(packed: Workspace) -> None:
    packed.run()
    place = packed.output / "sent.zip"
    with zipfile.ZipFile(place) as read:
        assert read.namelist() == sorted([*(f"model/{name}" for name in MODEL), *RECORDS])
        assert read.read("model/b.txt") == b"eerht!"
        for record in RECORDS:
            assert read.read(record) == (packed.output / record).read_bytes()
    assert packed.heard.notes == ["sent.zip: a zip."]
    before = place.stat()
    (packed.output / "back-more/cpu-cpu_model/mine.txt").write_text("a note of the user's")
    packed.run()
    after = place.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert packed.heard.notes == []
    with place.open("r+b") as file:
        file.truncate(before.st_size - 1)
    packed.run()
    assert place.stat().st_size == before.st_size
    packed.config["passes"]["more"]["text"] = "?"
    packed.run()
    with zipfile.ZipFile(place) as read:
        assert read.read("model/b.txt") == b"eerht?"
    packed.config["passes"]["more"]["text"] = "!"
    packed.run()
    with zipfile.ZipFile(place) as read:
        assert read.read("model/b.txt") == b"eerht!"


def test_a_full_disk_while_packing_is_one_sentence(
    packed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, into: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_copy", full)
    with pytest.raises(DrupeError, match="its disk is full"):
        packed.run()
    assert not list(packed.output.glob("*.zip")) + list(packed.output.glob(".*"))
    monkeypatch.undo()
    packed.run()
    assert packed.heard.ran == []
    assert (packed.output / "sent.zip").is_file()


def test_at_the_top_level_and_nested_as_olive_has_it(workspace: Workspace) -> None:
    workspace.config["packaging_config"] = [
        {"type": "Zipfile", "config": {"export_in_mlflow_format": False}},
        {"name": "other", "include_runtime_packages": False},
    ]
    first, second = load(workspace.write()).engine.packaging_config
    assert (first.file_name, first.include_sample_code) == ("OutputModels.zip", True)
    assert (second.file_name, second.include_runtime_packages) == ("other.zip", False)


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_nothing_asked_for_is_no_package(workspace: Workspace, nothing: Any) -> None:
    workspace.config["engine"]["packaging_config"] = nothing
    assert load(workspace.write()).engine.packaging_config == []


# What is refused


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"type": "Tarfile"}, r"packaging_config\[0\].type: .*'Zipfile', 'Dockerfile', 'MLflow', "),
        ({"nam": "x"}, r'packaging_config\[0\].nam is unknown; did you mean "name"\?'),
        ({"name": "../x"}, r"packaging_config\[0\].name: must be the name of a file"),
        ({"name": "/x"}, "must be the name of a file"),
        ({"name": ".x"}, "must be the name of a file"),
        ({"name": ".."}, "must be the name of a file"),
        ({"name": ""}, "must be the name of a file"),
        ({"name": "x\n"}, "must be the name of a file"),
        ({"name": "report.json", "type": "MLflow"}, "must be the name of a file"),
        ({"include_sample_code": "yes"}, "include_sample_code: input should be a valid boolean"),
        ({"type": "Dockerfile", "export_in_mlflow_format": True}, "is not for a Dockerfile"),
        ({"type": "Dockerfile", "include_runtime_packages": False}, "a Dockerfile needs what"),
    ],
)
def test_faults_of_a_package(workspace: Workspace, wrong: dict[str, Any], told: str) -> None:
    package(workspace, wrong)
    with pytest.raises(ConfigError, match=told):
        load(workspace.write())


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ([{"type": "MLflow"}], r"config.json:\d+: engine.packaging_config\[0\]: asks for MLflow's"),
        ([{"export_in_mlflow_format": True}], "there for onnx-genai or hf; the last pass gives fi"),
        ([{"type": "Dockerfile"}], "asks for a Dockerfile, which is there for onnx-genai on the C"),
        ([{"name": "x"}, {"name": "x"}], r"packaging_config\[1\]: is called \"x\", as another"),
        ([{"type": "MLflow", "name": "back-more"}], 'is called "back-more", as another thing'),
    ],
)
def test_refused_before_any_work(workspace: Workspace, packages: list[Any], told: str) -> None:
    package(workspace, *packages)
    with pytest.raises(Refused, match=told):
        workspace.run()
    assert workspace.heard.ran == []
    assert not workspace.output.exists()


def test_what_drupe_has_not_written_is_not_replaced(packed: Workspace) -> None:
    packed.output.mkdir()
    place = packed.output / "sent.zip"
    with zipfile.ZipFile(place, "w") as archive_of_a_user:
        archive_of_a_user.writestr("a", "b")
    with pytest.raises(Refused, match=r"sent\.zip: is there, and is no whole package"):
        packed.run()
    assert packed.heard.ran == []


def test_without_a_pass_there_is_nothing_to_pack(packed: Workspace) -> None:
    packed.passes()
    with pytest.raises(Refused, match="there is no pass that makes one"):
        packed.run()


# What goes with an export


def stage(kind: str, goldens: dict[str, Any] | None) -> Stage:
    model = Model(kind, Path("nowhere"), "0" * 64)
    return Stage("builder", kind, model, 0, 0.0, 0, {}, {}, {}, None, goldens)


def test_companions_are_those_of_an_export_alone() -> None:
    goldens = {"format": 1, "chat_prompt": "<|user|>{Content}<|assistant|>"}
    found = companions(stage("onnx-genai", goldens), "tiny-lora")
    assert list(found) == ["inference_model.json", "verify.py", "verify.json"]
    assert json.loads(found["verify.json"]) == {"format": 1}
    assert json.loads(found["inference_model.json"]) == {
        "Name": "tiny-lora",
        "PromptTemplate": {
            "assistant": "{Content}",
            "prompt": "<|user|>{Content}<|assistant|>",
        },
    }
    assert list(companions(stage("onnx-genai", None), "x")) == ["inference_model.json"]
    assert companions(stage("hf", None), "x") == {}
    assert foundry("x", None)["PromptTemplate"]["prompt"] == "{Content}"


def test_a_dockerfile_checks_the_model_while_it_is_built() -> None:
    text = dockerfile("My model_1", has_verify=True).decode()
    assert "docker build -t my-model-1 ." in text
    assert text.index("pip install") < text.index("RUN python model/verify.py")
    assert "verify.py" not in dockerfile("x", has_verify=False).decode()


def test_versions_are_exact_and_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime": "1.31.1", "onnxruntime-genai": "0.18.0", "torch": "2.9.0+cpu"}
    for name in ("requirements.installed_version", "requirements.library_version"):
        monkeypatch.setattr(f"drupe.packaging.{name}", installed.get)
    on_cpu = ["onnxruntime==1.31.1", "onnxruntime-genai==0.18.0"]
    assert requirements("onnx-genai", Target()) == on_cpu
    cuda = Target(provider="CUDAExecutionProvider")
    # GenAI's siblings share its number; a sibling of ONNX Runtime that is not here is left to pip.
    assert requirements("onnx-genai", cuda) == ["onnxruntime-genai-cuda==0.18.0"]
    assert requirements("hf", Target()) == ["torch==2.9.0"]


def test_mlflow_finds_its_parts() -> None:
    files = mlflow_files("onnx-genai", "ab" * 32, ["onnxruntime-genai==0.18.0"])
    text = files["MLmodel"]
    assert isinstance(text, bytes)
    assert b"loader_module: drupe_model" in text
    assert f"model_uuid: {'ab' * 16}".encode() in text
    assert b"\nonnxruntime-genai==0.18.0\n" in files["requirements.txt"]  # type: ignore[operator]
    assert b"def _load_pyfunc" in files["code/drupe_model.py"]  # type: ignore[operator]


def test_a_folder_is_written_again_when_a_file_of_it_is_gone(tmp_path: Path) -> None:
    from drupe.packaging.packages import _is_whole, write_folder

    place = tmp_path / "packed"
    content = {"a/b": b"text", "c": b""}
    write_folder(place, content, "1")
    assert set(tree(place)) == {"a/b", "c", MARK}
    assert _is_whole(place, content)
    shutil.rmtree(place / "a")
    assert not _is_whole(place, content)
