"""Fixtures that the tests of heavy files share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import make_tiny_phi3


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Phi-3 in float32, shared by all tests: read it only."""
    return make_tiny_phi3(tmp_path_factory.mktemp("models") / "tiny-phi3")
