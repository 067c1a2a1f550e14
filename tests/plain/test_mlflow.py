"""MLflow folders: their parts are one checkpoint, and nothing outside of them is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from drupe.config.load import load
from drupe.core.digest import DigestMemo
from drupe.core.errors import Refused
from drupe.plan import draft
from drupe.resources.mlflow import FLAVOURS
from drupe.resources.models import Located, locate
from tests.plain.checkpoints import PHI3, make_checkpoint
from tests.plain.conftest import tree
from tests.plain.mlflow_folders import split


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", PHI3, vocab_size=6, hidden_size=2)


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    return split(checkpoint, tmp_path / "model")


def located(folder: Path, **arguments: Any) -> Located:
    return locate(folder.name, folder.parent, None, False, DigestMemo(), **arguments)


def rewrite(folder: Path, flavour: str = "hftransformersv2", **settings: Any) -> None:
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavour: settings}}))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_parts_are_read_as_one_checkpoint(
    flavour: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = split(checkpoint, tmp_path / "model", flavour)
    before = tree(folder)
    found = located(folder)
    assert (found.name, found.model.path.name, found.parts) == ("model", "model", folder)
    for file in checkpoint.iterdir():
        assert (found.model.path / file.name).read_bytes() == file.read_bytes()
    assert found.model.digest == located(checkpoint).model.digest, "the same key, joined or not"
    assert found.size_bytes == located(checkpoint).size_bytes
    assert found.note == (
        f"model is an MLflow model ({flavour}): its parts are read as one checkpoint."
    )
    assert located(checkpoint).note is None
    assert tree(folder) == before


def test_a_changed_part_is_another_model(model: Path) -> None:
    before = located(model).model.digest
    (model / "data" / "tokenizer" / "tokenizer.json").write_text('{"other": 1}')
    assert located(model).model.digest != before


def test_what_a_part_is_for_is_taken_from_it(model: Path) -> None:
    """save_pretrained of a model writes its config too."""
    config = json.loads((model / "data" / "config" / "config.json").read_text())
    (model / "data" / "model" / "config.json").write_text(json.dumps({**config, "stale": True}))
    assert json.loads((located(model).model.path / "config.json").read_text()) == config
    shutil.rmtree(model / "data" / "config")
    assert "stale" in (located(model).model.path / "config.json").read_text()


def test_other_names_of_parts(model: Path) -> None:
    (model / "data").rename(model / "artifacts")
    rewrite(model, model_data="artifacts")
    assert (located(model).model.path / "config.json").is_file()


def test_without_a_tokenizer_where_none_is_needed(model: Path) -> None:
    shutil.rmtree(model / "data" / "tokenizer")
    assert located(model, needs_tokenizer=False).model.path.is_dir()
    with pytest.raises(Refused, match=r"lacks data/tokenizer, where .* has its tokenizer"):
        located(model)


def test_a_checkpoint_that_has_an_mlmodel_beside_it_is_a_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "MLmodel").write_text("flavors: {}")
    assert located(checkpoint).model.path == checkpoint


def test_another_folder_is_no_mlflow_model(tmp_path: Path) -> None:
    (tmp_path / "model" / "components").mkdir(parents=True)
    with pytest.raises(Refused, match="is not a Hugging Face checkpoint"):
        located(tmp_path / "model")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda folder: (folder / "MLmodel").unlink(),
            "of an MLflow model, but no MLmodel",
        ),
        (lambda folder: (folder / "MLmodel").write_text("flavors: ["), "cannot be read as MLflow"),
        (lambda folder: (folder / "MLmodel").write_text("run_id: 1"), "cannot be read as MLflow"),
        (lambda folder: (folder / "MLmodel").write_bytes(b"\xff\xfe\xff"), "cannot be read as"),
        (lambda folder: rewrite(folder, "sklearn"), "flavors sklearn, of which none is a model of"),
        (lambda folder: shutil.rmtree(folder / "data"), "lacks data/model and data/tokenizer, whe"),
        (lambda folder: rewrite(folder, model_data="other"), "lacks other/model and other/tokeniz"),
        (lambda folder: rewrite(folder, "transformers"), "lacks model and components/tokenizer, w"),
        (lambda folder: rewrite(folder, model_data="../checkpoint"), "lies outside of the model's"),
        (lambda folder: rewrite(folder, model_data="data/../../x"), "lies outside of the model's"),
        (lambda folder: rewrite(folder, model_data="/etc"), 'names "/etc/model", which lies outs'),
        (
            lambda folder: (folder / "data" / "config" / "config.json").write_text("{}"),
            r'model/config\.json: names no "architectures"',
        ),
        (
            lambda folder: (folder / "data" / "config" / "config.json").unlink(),
            r"model: is not a Hugging Face checkpoint \(hf\): it lacks config\.json",
        ),
    ],
)
def test_what_is_missing_is_named(spoil: Any, words: str, model: Path) -> None:
    spoil(model)
    with pytest.raises(Refused, match=words) as told:
        located(model)
    assert told.value.remedy
    assert "drupe-mlflow-" not in str(told.value), "the joined folder is nobody's business"


def test_pickles_are_refused(model: Path) -> None:
    weights = model / "data" / "model"
    (weights / "model.safetensors").rename(weights / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"holds its weights as a pickle \(pytorch_model\.bin\)"):
        located(model)


def test_pickles_beside_the_weights_are_not_joined(model: Path) -> None:
    (model / "data" / "model" / "training_args.bin").write_text("x")
    assert not (located(model).model.path / "training_args.bin").exists()


@pytest.mark.parametrize("place", ["data/tokenizer/vocab.json", "data/model", "MLmodel"])
def test_no_link_is_followed_out_of_the_folder(place: str, model: Path, tmp_path: Path) -> None:
    path, outside = model / place, tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("secret")
    path.symlink_to(outside)
    with pytest.raises(Refused, match=r"is a link to .*outside, which lies outside"):
        located(model)


def test_an_adapter_of_mlflow_is_named_as_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    folder = split(checkpoint, tmp_path / "model", "transformers")
    (folder / "model").rename(folder / "peft")
    with pytest.raises(Refused, match=r"holds an adapter \(peft\) without the model") as told:
        located(folder)
    assert f'{folder / "peft"} as "adapter_path"' in told.value.remedy


def config(**engine: Any) -> dict[str, Any]:
    return {
        "input_model": {
            "type": "PyTorchModel",
            "config": {"model_path": "model", "model_file_format": "PyTorch.MLflow"},
        },
        "passes": {"builder": {"type": "ModelBuilder", "config": {"precision": "int4"}}},
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": "output", **engine},
    }


def test_a_plan_says_so_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config()))
    before = tree(tmp_path)
    planned = draft(load(file))
    assert tree(tmp_path) == before
    assert planned.notes == (
        "model is an MLflow model (hftransformersv2): its parts are read as one checkpoint.",
    )
    assert planned.source.found
    assert planned.steps[0].key


@pytest.mark.parametrize("key", ["output_dir", "cache_dir"])
def test_nothing_is_written_among_the_parts(key: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config(**{key: "model/data/model"})))
    told = [f"{fault.where}: {fault.what}" for fault in draft(load(file)).blockers]
    assert any("lies in the input model's folder" in line and key in line for line in told)


def test_the_joined_folder_goes_with_the_process(model: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from drupe.core.digest import DigestMemo;"
        "from drupe.resources.models import locate;"
        "print(locate('model', Path(sys.argv[1]), None, False, DigestMemo()).model.path)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.name == "model"
    assert not path.parent.exists()
    assert (model / "data" / "model" / "model.safetensors").is_file()
