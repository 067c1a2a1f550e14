"""Which distribution holds a library: the plain one, or a sibling that an extra installs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from drupe.core import libraries
from drupe.core.operation import Metric


class Runs(Metric):
    libraries = ("onnxruntime", "onnxruntime-genai", "torch")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    there: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(libraries.importlib.metadata, "version", version)
    return there


def parts() -> Any:
    return Runs().key_parts("Runs", (), lambda _: "")["libraries"]


def test_a_sibling_holds_the_library_and_is_told_apart_in_the_key(
    installed: dict[str, str],
) -> None:
    installed |= {"onnxruntime": "1.31.1", "onnxruntime-genai": "0.18.0", "torch": "2.13.0"}
    assert Runs().refusal_in(libraries.HERE) is None
    assert parts() == {"onnxruntime": "1.31.1", "onnxruntime-genai": "0.18.0", "torch": "2.13.0"}
    installed.pop("onnxruntime")
    installed.pop("onnxruntime-genai")
    installed |= {"onnxruntime-gpu": "1.31.1", "onnxruntime-genai-cuda": "0.18.0"}
    assert Runs().refusal_in(libraries.HERE) is None
    assert parts()["onnxruntime"] == "1.31.1 (onnxruntime-gpu)"
    assert parts()["onnxruntime-genai"] == "0.18.0 (onnxruntime-genai-cuda)"


def test_one_runtime_does_not_stand_for_the_other(installed: dict[str, str]) -> None:
    installed |= {"onnxruntime-gpu": "1.31.1", "torch": "2.13.0"}
    refusal = Runs().refusal_in(libraries.HERE)
    assert refusal is not None
    assert refusal.what == "needs onnxruntime-genai"
    assert libraries.installed_version("onnxruntime") is None
