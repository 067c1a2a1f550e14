"""verify.py, run as its user runs it: in the delivered folder, by nothing but the runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_models import make_tiny_phi3

from drupe.config.packages import DeploymentConfig, PackageConfig
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export.export_proof import prove
from drupe.export.genai_builder import export
from drupe.export.goldens import PROMPTS, TEXTS
from drupe.export.passes import ExportGenAI, ExportProof
from drupe.outcome import Stage
from drupe.packaging.azureml import deployment_files
from drupe.packaging.companions import program, write_companions
from drupe.packaging.container import dockerfile
from drupe.packaging.mlflow import DATA, mlflow_files
from drupe.packaging.packages import write_folder

NAME = "tiny-builder"


def delivered(checkpoint: Path, folder: Path, **fields: Any) -> Path:
    """Export, prove and deliver a checkpoint; return the folder."""
    job = Job(folder / "scratch", threads=1)
    place, proof = folder / "model", folder / "proof"
    for each in (place, proof):
        each.mkdir(parents=True)
    step = ExportGenAI(precision="int4", target=Target(), **fields)
    export(step, Model("hf", checkpoint, ""), place, job)
    model = Model("onnx-genai", place, "0" * 64)
    prove(ExportProof(), model, Model("hf", checkpoint, ""), proof, job)
    goldens = json.loads((proof / "goldens.json").read_text(encoding="utf-8"))
    stage = Stage("builder", "onnx-genai", model, 0, 0.0, 0, {}, {}, {}, None, goldens)
    write_companions(stage, place, NAME)
    return place


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    checkpoint = make_tiny_phi3(folder / "checkpoint", begin=True)
    (checkpoint / "chat_template.jinja").write_text(
        "<s>{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}answer: {% endif %}"
    )
    return delivered(checkpoint, folder)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "sent elsewhere"))


def verify(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Return the exit status and the lines of verify.py, started from another place."""
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "verify.py"), *words],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def test_untouched_it_says_ok(folder: Path) -> None:
    (folder / "README.md").write_text("whatever a user writes")
    edit(folder / "inference_model.json", lambda value: value.update(Name="mine"))
    status, lines = verify(folder)
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith(f"OK 6 files, {len(TEXTS)} texts, {len(PROMPTS)} prompts (onnx")


def test_what_is_written_down_is_neutral_and_worth_something(original: Path) -> None:
    values = json.loads((original / "verify.json").read_text(encoding="utf-8"))
    assert str(original.parent) not in (original / "verify.json").read_text()
    assert [golden["text"] for golden in values["texts"]] == list(TEXTS)
    assert [golden["prompt"] for golden in values["prompts"]] == list(PROMPTS)
    assert values["texts"][0]["ids"][0] == 0, "begin of text, as in training"
    assert sum(len(golden["tokens"]) for golden in values["prompts"]) >= 4
    assert set(values["files"]) == {
        "model.onnx", "model.onnx.data", "genai_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    assert json.loads((original / "inference_model.json").read_text()) == {
        "Name": NAME,
        "PromptTemplate": {"assistant": "{Content}", "prompt": "<s>user: {Content}\nanswer: "},
    }


def test_a_flipped_byte_is_named_by_its_file(folder: Path) -> None:
    file = folder / "model.onnx.data"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    status, lines = verify(folder)
    assert status == 1
    assert lines[0].startswith("DIFFERS: model.onnx.data: SHA-256 is ")
    assert lines[-1].startswith("Made with onnxruntime-genai ")


def test_a_lost_file_is_named_and_does_not_run(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    status, lines = verify(folder)
    assert status == 1
    assert lines[0] == "DIFFERS: model.onnx.data: is missing"
    assert lines[1].startswith("DIFFERS: does not run here: ")


def test_a_graph_that_reads_elsewhere_is_named_and_does_not_run(folder: Path) -> None:
    shutil.copy(folder / "model.onnx.data", folder.parent / "model.onnx.data")
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    place = next(e for e in proto.graph.initializer[-1].external_data if e.key == "location")
    place.value = "../model.onnx.data"
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    status, lines = verify(folder)
    assert status == 1
    assert lines[0].startswith("DIFFERS: model.onnx: SHA-256 is ")
    assert lines[1].startswith("DIFFERS: does not run here: ")
    assert "External data path escapes model directory" in lines[1]


def test_another_tokenizer_gives_other_ids(folder: Path) -> None:
    def swap(value: Any) -> None:
        vocabulary = value["model"]["vocab"]
        vocabulary["T"], vocabulary["x"] = vocabulary["x"], vocabulary["T"]

    edit(folder / "tokenizer.json", swap)
    status, lines = verify(folder)
    assert status == 1
    assert lines[0].startswith("DIFFERS: tokenizer.json: SHA-256 is ")
    assert lines[1].startswith(f"DIFFERS: text {TEXTS[0]!r}: ids are [0, ")
    assert ", were [0, " in lines[1]


def other_second_token(value: Any) -> None:
    golden = next(golden for golden in value["prompts"] if len(golden["tokens"]) > 1)
    golden["tokens"][1] += 1


def test_other_tokens_on_the_same_provider_are_a_fault(folder: Path) -> None:
    edit(folder / "verify.json", other_second_token)
    status, lines = verify(folder, "--provider", "cpu")
    assert status == 1
    assert "DIFFERS: prompt " in lines[0]
    assert lines[0].endswith("; the first that differs is number 2")


def test_other_tokens_on_another_provider_are_a_warning(folder: Path) -> None:
    edit(folder / "verify.json", other_second_token)
    edit(folder / "verify.json", lambda value: value.update(provider="cuda"))
    status, lines = verify(folder)
    assert status == 0
    assert lines[0].startswith("warning: prompt ")
    assert lines[0].endswith("; the first that differs is number 2 (on cuda)")
    assert lines[1].startswith("OK ")


def test_a_provider_that_is_not_here_is_told(folder: Path) -> None:
    status, lines = verify(folder, "--provider", "cuda")
    assert status == 1
    assert lines[0].startswith("DIFFERS: does not run here: ")


def test_what_could_not_be_run_where_it_was_made_is_compared_by_its_files(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    folder = delivered(tiny_phi3, tmp_path, exclude_lm_head=True)
    status, lines = verify(folder)
    assert status == 0
    assert lines[0].startswith("warning: the files alone were compared: ")
    assert lines[1].endswith("0 texts, 0 prompts (onnxruntime-genai was not run)")
    assert str(tmp_path) not in (folder / "verify.json").read_text()


def test_the_folder_of_an_image_answers_a_prompt_and_a_line(original: Path, tmp_path: Path) -> None:
    from drupe.packaging.companions import program

    place = tmp_path / "image"
    files = {f"model/{file.name}": file for file in original.iterdir()}
    content = {
        **files,
        "app.py": program("app_genai.py"),
        "Dockerfile": dockerfile("x", has_verify=True),
    }
    write_folder(place, content, "1")
    assert verify(place / "model")[0] == 0, "what the build of the image runs"
    command = [sys.executable, "-I", str(place / "app.py")]
    said = [
        subprocess.run([*command, *words], input=asked, capture_output=True, text=True, check=True)
        for words, asked in ((["Hello", "you"], None), ([], "Hello you\nand you\n"))
    ]
    assert [done.stderr for done in said] == ["", ""]
    assert said[0].stdout.strip()
    assert said[1].stdout.startswith(said[0].stdout.rstrip("\n"))


@pytest.mark.parametrize(
    ("kind", "made"), [("onnx-genai", "original"), ("hf", "tiny_phi3")], ids=["onnx", "checkpoint"]
)
def test_the_loader_of_mlflow_answers(
    kind: str, made: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: Path = request.getfixturevalue(made)
    files = {f"{DATA}/{file.name}": file for file in model.iterdir()}
    write_folder(tmp_path / "m", {**files, **mlflow_files(kind, "0" * 64, [])}, "1")
    program = (
        "import json, sys; sys.path.insert(0, 'm/code'); import drupe_model\n"
        f"model = drupe_model._load_pyfunc('m/{DATA}')\n"
        "print(json.dumps(model.predict(['Hello', 'you'], params={'max_new_tokens': 3})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout)
    assert [type(answer) for answer in answers] == [str, str]


def test_the_script_of_an_endpoint_answers_as_the_app_does(folder: Path, tmp_path: Path) -> None:
    """What an online endpoint, and a batch one, would call, on the delivered model."""
    package = PackageConfig(
        type="AzureMLDeployment", deployment_config=DeploymentConfig(instance_type="size")
    )
    files = deployment_files(package, "onnx-genai", ["onnxruntime-genai==0.18.0"])
    write_folder(tmp_path / "sent", {**files, "app.py": program("app_genai.py")}, "stamp")
    shutil.copytree(folder, tmp_path / "sent" / "model")
    (tmp_path / "prompts.txt").write_text("A spider!\n")
    called = (
        "import json, sys; sys.path.insert(0, 'code'); import score; score.init();"
        "print(json.dumps([score.run(json.dumps({'prompt': 'A spider!'})),"
        "score.run(['../prompts.txt'])]))"
    )
    place = {**os.environ, "AZUREML_MODEL_DIR": str(tmp_path / "sent")}
    shown = {}
    for name, words in (("score", ["-c", called]), ("app", ["app.py", "A spider!"])):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path / "sent",
            env=place,
            capture_output=True,
            text=True,
            check=True,
        )
        shown[name] = done.stdout
    online, [batch] = json.loads(shown["score"])
    assert online == {"answers": [json.loads(batch)["answer"]]}
    assert online["answers"][0].strip() == shown["app"].strip()
    conda = files["conda.yaml"]
    assert isinstance(conda, bytes)
    assert b"- onnxruntime-genai==0.18.0" in conda
    assert b"- azureml-inference-server-http" in conda
