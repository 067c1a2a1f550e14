"""What pip makes of the tree: the wheel's contents, and each extra with its smallest job.

Each extra goes into an empty environment of its own, so that it is shown to be complete by
itself. [gpu] runs on the processor here; [directml] is empty but on Windows.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Built, Environment, run

EXAMPLE = ROOT / "examples" / "phi3-emotion"
TINY = ["--config", "config.json"]


def job(folder: Path, passes: dict[str, object], rows: int = 40) -> Path:
    """Write a config of `passes` over the bundled model and the first phrases of its data."""
    shutil.copytree(EXAMPLE / "model", folder / "model")
    phrases = (EXAMPLE / "dataset" / "dataset-classification.json").read_text().splitlines()
    (folder / "phrases.json").write_text("\n".join(phrases[:rows]) + "\n")
    data = {
        "name": "phrases",
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "json", "data_files": "phrases.json"},
        "pre_process_data_config": {
            "text_cols": ["phrase", "tone"],
            "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
            "strategy": "join",
            "max_seq_len": 64,
        },
    }
    config = {
        "input_model": {
            "type": "HfModel", "model_path": "model", "load_kwargs": {"trust_remote_code": True},
        },
        "data_configs": [data],
        "passes": passes,
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": "output"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_wheel_holds_what_it_should_and_no_more(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"drupe", "drupe-0.1.0.dist-info"}, "no tests, no toys, no command of Olive's"
    for name in ("drupe/py.typed", "drupe/report/page.css", "drupe/finetune/lora.py"):
        assert name in names
    templates = {name.removeprefix("drupe/templates/") for name in names if "/templates/" in name}
    samples = {"data/README.md", "data/phrases.jsonl", "data/held-out.jsonl"}
    configs = {"phi3-emotion.yaml", "quantize.yaml", "qlora.yaml", "azureml.yaml"}
    assert templates == {*configs, "azureml-conda.yaml", "texts.jsonl", *samples}
    for name in ("LICENSE", "NOTICE"):
        assert f"drupe-0.1.0.dist-info/licenses/{name}" in names
    entries = zipfile.ZipFile(built.wheel).read("drupe-0.1.0.dist-info/entry_points.txt")
    assert entries.decode().split() == ["[console_scripts]", "drupe", "=", "drupe.cli:main"]


def test_the_sdist_builds_and_brings_no_toys(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = archive.getnames()
    assert "drupe-0.1.0/src/drupe/py.typed" in names
    assert "drupe-0.1.0/src/drupe/templates/data/phrases.jsonl" in names
    assert "drupe-0.1.0/LICENSE" in names
    assert not [name for name in names if "toys" in name or "olive" in name.split("/")]


def test_alone_it_looks_and_plans_and_tells_what_is_absent(
    built: Built, environment: Environment, tmp_path: Path
) -> None:
    environment.install(str(built.wheel), str(built.olive))
    assert "the best model" in environment.drupe("--help").stdout
    findings = environment.findings()
    assert findings["drupe"]["state"] == "fine"
    for extra in ("finetune", "cpu", "gpu", "eval", "search", "ray", "azureml"):
        assert findings[f"[{extra}]"]["state"] == "note"
        assert findings[f"[{extra}]"]["remedy"] == f'pip install "drupe[{extra}]"'
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.txt").write_text("one")
    config = {"input_model": {"type": "Files", "model_path": "input"}, "passes": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = environment.drupe("run", *TINY, "--dry-run", folder=tmp_path)
    assert "0 of 0 steps to run" in shown.stdout
    olive = run(str(environment.program("olive")), "run", *TINY, "--dry_run", folder=tmp_path)
    assert olive.returncode == 0
    assert olive.stdout == shown.stdout
    assert olive.stderr.startswith("olive: drupe 0.1.0's command of that name (drupe-olive)")
    words = ("init", "quantize", "--model", str(EXAMPLE / "model"), "-o", "new")
    assert "Wrote new/config.yaml\n" in environment.drupe(*words, folder=tmp_path).stdout
    shown = environment.drupe("config", "check", "new/config.yaml", folder=tmp_path).stdout
    assert shown == "new/config.yaml: no fault, 0 warnings\n"


def test_cpu_exports_and_answers(built: Built, environment: Environment, tmp_path: Path) -> None:
    environment.install(f"drupe[cpu] @ {built.wheel.as_uri()}")
    findings = environment.findings()
    assert findings["[cpu]"]["state"] == "fine"
    assert findings["CPUExecutionProvider"]["found"] == "loads and runs"
    # fp32 needs nothing that int4 does not.
    folder = job(tmp_path, {"builder": {"type": "ModelBuilder", "precision": "int4"}})
    environment.drupe("run", *TINY, folder=folder)
    words = ("chat", "output", "--prompt", "The lamp went out.", "--max-length", "24")
    assert environment.drupe(*words, folder=folder).stdout.strip()


def test_finetune_tunes_and_merges(built: Built, environment: Environment, tmp_path: Path) -> None:
    environment.install(f"drupe[finetune] @ {built.wheel.as_uri()}")
    assert environment.findings()["[finetune]"]["state"] == "fine"
    (tmp_path / "job").mkdir()
    tuned = {"max_steps": 2, "per_device_train_batch_size": 1}
    lora = {"type": "LoRA", "train_data_config": "phrases", "training_args": tuned}
    passes = {"lora": lora, "merge": {"type": "MergeAdapterWeights"}}
    folder = job(tmp_path / "job", passes)
    environment.drupe("run", *TINY, folder=folder)
    report = json.loads((folder / "output" / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == ["input model", "lora", "merge"]
    merged = folder / "output" / "lora-merge" / "cpu-cpu_model" / "model.safetensors"
    assert merged.stat().st_size > (folder / "model" / "model.safetensors").stat().st_size / 2


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("eval", ["lm_eval"]),
        ("search", ["optuna"]),
        ("ray", ["ray", "ray.util.client"]),
        ("azureml", ["azure.ai.ml", "azure.identity", "azure.keyvault.secrets"]),
    ],
)
def test_an_extra_of_services_is_complete_and_loads(
    extra: str, modules: list[str], built: Built, environment: Environment
) -> None:
    environment.install(f"drupe[{extra}] @ {built.wheel.as_uri()}")
    assert environment.findings()[f"[{extra}]"]["state"] == "fine"
    loaded = run(str(environment.program("python")), "-c", f"import {', '.join(modules)}")
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA on macOS")
def test_gpu_exports_and_answers_on_the_cpu_where_there_is_no_gpu(
    built: Built, environment: Environment, tmp_path: Path
) -> None:
    """ONNX Runtime's CUDA wheels hold the CPU's kernels too; CUDA itself is not run here."""
    environment.install(f"drupe[gpu] @ {built.wheel.as_uri()}")
    findings = environment.findings()
    assert findings["[gpu]"]["state"] == "fine"
    assert findings["CPUExecutionProvider"]["found"] == "loads and runs"
    assert findings["[cpu]"]["state"] == "note"
    assert "onnxruntime" not in findings, "two runtimes in one environment"
    passes = {"builder": {"type": "ModelBuilder", "precision": "int4"}}
    folder = job(tmp_path, passes)
    environment.drupe("run", *TINY, folder=folder)
    lock = json.loads((folder / "output" / "config.lock.json").read_text())
    assert "(onnxruntime-gpu)" in lock["libraries"]["onnxruntime"]
    words = ("chat", "output", "--prompt", "The lamp went out.", "--max-length", "24")
    assert environment.drupe(*words, folder=folder).stdout.strip()
