"""What of `training_args` makes another adapter, and is therefore in the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.core.dataset import Dataset
from drupe.finetune.passes import LoRA
from drupe.finetune.training_args import BITSANDBYTES_OPTIMIZERS, TrainingArgs


def no_file(path: Path) -> str:
    raise AssertionError(f"{path} was read for a key")


class Installed:
    """An environment in which each library is of one version."""

    remedy = None

    def __init__(self, version: str) -> None:
        self._version = version

    def version(self, library: str) -> str:
        return self._version

    def unfit(self, library: str, extra: str) -> None:
        pass


@pytest.mark.parametrize("optimizer", BITSANDBYTES_OPTIMIZERS)
def test_a_key_holds_the_optimizer_and_its_librarys_version(optimizer: str) -> None:
    def key(name: Any, version: str = "1") -> Any:
        rows = Dataset(name="rows", load_dataset_config={"data_files": (Path("rows.json"),)})
        step = LoRA(train_data_config=rows, training_args=TrainingArgs(optim=name))
        return step.key_parts("LoRA", (), lambda path: "", Installed(version))

    assert key(optimizer)["libraries"]["bitsandbytes"] == "1"
    assert key(optimizer) != key(optimizer, "2")
    assert key(optimizer)["fields"] != key("auto")["fields"]
    assert "bitsandbytes" not in key("auto")["libraries"], "it uses none"


def test_a_folder_that_is_written_to_is_no_part_of_a_key(tmp_path: Path) -> None:
    arguments = TrainingArgs(logging_dir=tmp_path / "not-there-yet", report_to=("tensorboard",))
    assert arguments.key_form(no_file) == TrainingArgs().key_form(no_file)
