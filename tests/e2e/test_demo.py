"""`make demo`: the page's job on the bundled model, with the figures that the README promises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Job

MODEL = Path("models/phi3-emotion/lora-merge_adapter_weights-builder/cpu-cpu_model")
STAGES = ("input model", "lora", "merge_adapter_weights", "builder")
Demo = tuple[Job, subprocess.CompletedProcess[str]]


@pytest.fixture
def scores(demo: Demo) -> dict[str, dict[str, float]]:
    """Return {stage: its accuracy's score}."""
    report = demo[0].report("models/phi3-emotion")
    return {stage["name"]: stage["scores"]["accuracy"] for stage in report["stages"]}


def test_the_figures(scores: dict[str, dict[str, float]]) -> None:
    assert tuple(scores) == STAGES
    assert scores["input model"]["count"] >= 500
    assert scores["input model"]["value"] <= 0.35  # chance is 0.25
    assert scores["lora"]["low"] >= 0.85
    assert scores["merge_adapter_weights"]["low"] >= 0.85


def test_int4_keeps_the_answers(demo: Demo) -> None:
    report = demo[0].report("models/phi3-emotion")
    stages = {stage["name"]: stage for stage in report["stages"]}
    cache = demo[0].folder / "cache" / "steps"
    lock = json.loads((demo[0].folder / "models/phi3-emotion/config.lock.json").read_text())
    answers = {
        name: json.loads(
            (cache / lock["steps"][f"{name}: accuracy"] / "files" / "items.json").read_text()
        )
        for name in ("lora", "builder")
    }
    flips = sum(
        one[0] != other[0] for one, other in zip(answers["lora"], answers["builder"], strict=True)
    )
    assert flips <= 0.02 * stages["builder"]["scores"]["accuracy"]["count"]


def test_every_proof_passed(demo: Demo) -> None:
    report = demo[0].report("models/phi3-emotion")
    proofs = {stage["name"]: stage["proof"] for stage in report["stages"] if stage["proof"]}
    assert set(proofs) == {"merge_adapter_weights", "builder"}
    assert all(proof["passed"] for proof in proofs.values())


def test_the_terminal(demo: Demo) -> None:
    shown = demo[1].stdout
    assert demo[1].stderr == ""
    for word in ("base", "tuned", "merged", "int4 ONNX", "accuracy", "perplexity", "expected:"):
        assert word in shown
    assert "drupe chat" in shown
    noise = ("Warning", "warn(", "it/s", "Loading", "torch", "INFO", "GroupQueryAttention")
    assert not [word for word in noise if word in shown]


def test_again_all_is_cached(demo: Demo) -> None:
    job, _ = demo
    before = (job.folder / "models/phi3-emotion/report.json").read_bytes()
    shown = job.run().stdout
    assert "0 of 14 steps to run" in shown
    assert (job.folder / "models/phi3-emotion/report.json").read_bytes() == before


def test_the_output_folder(demo: Demo) -> None:
    folder = demo[0].folder / MODEL
    names = {file.name for file in folder.iterdir()}
    assert {"model.onnx", "genai_config.json", "tokenizer.json", "README.md"} <= names
    assert {"verify.py", "verify.json", "inference_model.json"} <= names
    config = json.loads((folder / "genai_config.json").read_text())
    assert config["model"]["decoder"]["session_options"]["intra_op_num_threads"] >= 1
    card = (folder / "README.md").read_text()
    for heading in (
        "Base model",
        "Data",
        "Recipe",
        "Measured",
        "Verified on",
        "Not run",
        "Load it",
    ):
        assert heading in card
    for file in (demo[0].folder / "models").rglob("*"):
        if file.suffix in (".json", ".md", ".jinja", ".txt"):
            assert str(demo[0].folder) not in file.read_text(), file


def test_the_card_loads_the_model(demo: Demo) -> None:
    """The card's own lines, with folder and prompt filled in, answer."""
    folder = demo[0].folder / MODEL
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    prompt = "### Text: The puppy ran to meet us.\\n### The tone is:\\n"
    code = code.replace("FOLDER", str(folder)).replace("PROMPT", prompt)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(tone in done.stdout for tone in ("joy", "sadness", "fear", "surprise"))


def test_chat_chooses(demo: Demo) -> None:
    held_out = (demo[0].folder / "dataset/heldout-classification.json").read_text().splitlines()
    row = json.loads(held_out[0])
    done = demo[0].drupe(
        "chat", "models/phi3-emotion", "--prompt", row["phrase"],
        "--choices", "joy,sadness,fear,surprise",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shares = {line.split("\t")[0]: float(line.split("\t")[1]) for line in done.stdout.splitlines()}
    assert set(shares) == {"joy", "sadness", "fear", "surprise"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.005)  # three decimals are printed
    assert max(shares, key=lambda tone: shares[tone]) == row["tone"]


def test_chat_streams_each_line(demo: Demo) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "drupe"), "chat", str(demo[0].folder / MODEL)],
        input="The puppy ran to meet us.\nThe lamp went out.\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_sample_app(demo: Demo) -> None:
    done = subprocess.run(
        [sys.executable, "app.py", "--phrase", "The puppy ran to meet us."],
        cwd=demo[0].folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("joy", "sadness", "fear", "surprise")


def test_the_zip_unpacked_elsewhere_is_the_model(demo: Demo, tmp_path: Path) -> None:
    job, _ = demo
    job.run("--set", 'packaging_config={"type": "Zipfile", "name": "tone"}')
    place = job.folder / "models/phi3-emotion/tone.zip"
    shutil.unpack_archive(place, tmp_path)
    place.unlink()
    verify = [sys.executable, "-I", str(tmp_path / "model/verify.py")]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("OK 6 files, "), done.stdout + done.stderr
    prompt = "### Text: The cake came fresh from the oven!\n### The tone is:\n"
    app = [sys.executable, "-I", str(tmp_path / "app.py"), prompt]
    assert subprocess.run(app, capture_output=True, text=True, check=True).stdout.strip()
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
