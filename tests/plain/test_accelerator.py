"""Whether there is a GPU to train on, as the driver and the installed versions tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupe.core import accelerator
from drupe.core.accelerator import has_bitsandbytes_optimizers, trains_on_cuda


@pytest.mark.parametrize(
    ("versions", "driver", "trains", "optimizers"),
    [
        ({"torch": "2.9.0", "bitsandbytes": "0.49"}, True, True, True),
        ({"torch": "2.9.0+cu128"}, True, True, False),
        ({"torch": "2.9.0+cpu", "bitsandbytes": "0.49"}, True, False, False),
        ({"torch": "2.9.0", "bitsandbytes": "0.49"}, False, False, False),
        ({"bitsandbytes": "0.49"}, True, False, False),
    ],
)
def test_driver_torch_and_bitsandbytes_decide(
    versions: dict[str, str],
    driver: bool,
    trains: bool,
    optimizers: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accelerator, "installed_version", versions.get)
    file = tmp_path / "version"
    if driver:
        file.write_text("NVRM version: 570")
    assert trains_on_cuda(file) is trains
    assert has_bitsandbytes_optimizers(file) is optimizers
