"""Fixtures that the tests of heavy files share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_tiny_phi3
from training import PHRASES

from drupe.finetune import lora


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Phi-3 in float32, shared by all tests: read it only."""
    return make_tiny_phi3(tmp_path_factory.mktemp("models") / "tiny-phi3")


@pytest.fixture(scope="session")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows in several scripts, shared by all tests: read it only."""
    file = tmp_path_factory.mktemp("data") / "phrases.json"
    rows = [{"phrase": phrase, "tone": tone} for phrase, tone in PHRASES]
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function after which a training dies when it has done so many steps."""

    class KilledError(Exception):
        """What a kill is to the Trainer."""

    original = lora._Voice.on_log

    def set_at(step: int | None) -> type[Exception]:
        def on_log(self: Any, args: Any, state: Any, control: Any, **also: Any) -> None:
            if step is not None and state.global_step >= step:
                raise KilledError
            original(self, args, state, control, **also)

        monkeypatch.setattr(lora._Voice, "on_log", on_log)
        return KilledError

    return set_at
