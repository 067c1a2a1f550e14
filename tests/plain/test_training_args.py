"""What of `training_args` makes another adapter, and is therefore in the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.finetune import training_args
from drupe.finetune.training_args import BITSANDBYTES_OPTIMIZERS, TrainingArgs


def no_file(path: Path) -> str:
    raise AssertionError(f"{path} was read for a key")


@pytest.mark.parametrize("optimizer", BITSANDBYTES_OPTIMIZERS)
def test_a_key_holds_the_optimizer_and_its_librarys_version(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(name: Any, version: str) -> Any:
        monkeypatch.setattr(training_args, "installed_version", lambda library: version)
        return TrainingArgs(optim=name).key_form(no_file)

    assert key(optimizer, "1") != key(optimizer, "2")
    assert key(optimizer, "1") != key("auto", "1")
    assert key("auto", "1") == key("auto", "2"), "it uses none"


def test_a_folder_that_is_written_to_is_no_part_of_a_key(tmp_path: Path) -> None:
    arguments = TrainingArgs(logging_dir=tmp_path / "not-there-yet", report_to=("tensorboard",))
    assert arguments.key_form(no_file) == TrainingArgs().key_form(no_file)
