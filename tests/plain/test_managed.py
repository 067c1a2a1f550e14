"""What an environment that drupe makes is asked to hold; nothing is installed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drupe_toys import NeedsToyLibrary, Reverse

from drupe.config.load import load
from drupe.core import requirements
from drupe.core.errors import ConfigError, Refused
from drupe.core.libraries import PINNED, installed_version
from drupe.core.system import Setting
from drupe.core.target import Target
from drupe.export.passes import ExportGenAI
from drupe.finetune.passes import MergeAdapterWeights
from drupe.systems import managed
from drupe.systems.managed import ManagedEnvironment
from tests.plain.conftest import Workspace

EXPORT = ExportGenAI(precision="int4", target=Target())
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Asked:
    """Asks for an environment, with lines of a requirements file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *lines: str, provider: str = CPU, **given: Any) -> ManagedEnvironment:
        operations = given.get("operations", (EXPORT,))
        file = self.folder / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in lines))
        setting = Setting("made", self.folder, self.folder / "cache", operations)
        return ManagedEnvironment.asked(setting, [provider], file if lines else None)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Asks for environments where some libraries are installed in versions that are known."""
    here = {
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "onnxruntime": "1.31.1",
        "onnxruntime-genai": "0.18.0",
        "onnx-ir": "1.1.0",
        "pydantic": "2.14.3",
    }
    monkeypatch.setattr(managed, "installed_version", here.get)
    monkeypatch.setattr(managed, "library_version", here.get)
    return Asked(tmp_path)


def test_what_decides_is_of_the_version_that_it_has_here(asked: Asked) -> None:
    made = asked()
    assert {"torch==2.13.0", "transformers==5.23.0", "onnxruntime==1.31.1"} <= set(made.wanted)
    assert any(line.startswith("pydantic>=") for line in made.wanted)
    assert "drupe" not in {line.partition("=")[0] for line in made.wanted}
    assert made.version("torch") == "2.13.0"
    assert made.version("onnxruntime-genai") == "0.18.0"
    assert str(made.version("datasets")).startswith(PINNED), "not here: pip chooses"
    assert made.version("bitsandbytes") is None
    assert made.unfit("torch", "cpu") is None


def test_a_build_of_a_version_is_pips_to_choose(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed, "installed_version", {"torch": "2.13.0+cpu"}.get)
    made = asked()
    assert "torch==2.13.0" in made.wanted
    assert str(made.version("torch")).startswith(PINNED)


def test_one_onnx_runtime_is_in_each_the_one_of_its_provider(asked: Asked) -> None:
    def runtimes(made: ManagedEnvironment) -> list[str]:
        return [line for line in made.wanted if line.startswith("onnxruntime")]

    assert runtimes(asked()) == ["onnxruntime-genai==0.18.0", "onnxruntime==1.31.1"]
    # onnxruntime-gpu has releases of its own, GenAI's siblings go by one number.
    assert runtimes(asked(provider=CUDA)) == [
        "onnxruntime-genai-cuda==0.18.0",
        "onnxruntime-gpu>=1.30",
    ]
    chosen = asked("onnxruntime-gpu==1.30.2", provider=CUDA)
    assert runtimes(chosen) == ["onnxruntime-genai-cuda==0.18.0"]
    assert chosen.version("onnxruntime") == "1.30.2 (onnxruntime-gpu)"


@pytest.mark.parametrize(
    ("lines", "provider", "words"),
    [
        (
            ("onnxruntime", "onnxruntime-gpu"),
            CPU,
            r"asks for onnxruntime and onnxruntime-gpu, which overwrite .* files\n  Keep onnxrunt",
        ),
        (
            ("onnxruntime",),
            CUDA,
            r"asks for onnxruntime, and the system's accelerator is run by onnxruntime-gpu\n",
        ),
        (("transformers==4.40",), CPU, r"asks for transformers==4\.40, and drupe needs transf"),
        (("-r absent.txt",), CPU, r"absent\.txt, which is not there\n  Mend the path"),
    ],
)
def test_requirements_that_cannot_work(
    lines: tuple[str, ...], provider: str, words: str, asked: Asked
) -> None:
    with pytest.raises(Refused, match=rf"^systems\.made\.requirements_file: .*{words}"):
        asked(*lines, provider=provider)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("transformers==5.21.0", "5.21.0"),
        ("transformers>=5.20", "5.23.0"),
        ("transformers<5.23", PINNED),
        ("transformers; python_version < '3'", "5.23.0"),
    ],
)
def test_what_the_user_pins_goes_before(line: str, version: str, asked: Asked) -> None:
    found = asked(line).version("transformers")
    assert found == version or (version == PINNED and str(found).startswith(PINNED))


def test_it_is_named_by_what_is_asked_for(asked: Asked, tmp_path: Path) -> None:
    first = asked()
    assert asked().digest == first.digest
    assert asked("toy-library").digest != first.digest
    assert asked("# a comment").digest == first.digest
    more = asked(operations=(EXPORT, MergeAdapterWeights()))
    assert more.digest != first.digest
    (tmp_path / "more.txt").write_text("toy-library\n")
    included = asked("-r more.txt")
    (tmp_path / "more.txt").write_text("toy-library==2.0\n")
    assert asked("-r more.txt").digest != included.digest
    assert asked("-r more.txt").version("toy-library") == "2.0"


def test_a_library_of_a_plug_in_is_asked_for(asked: Asked) -> None:
    assert "toy-library" in asked(operations=(NeedsToyLibrary(),)).wanted
    assert not [line for line in asked(operations=(Reverse(),)).wanted if "torch" in line]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"managed_env": True, "python_environment_path": "x"}, "managed_env makes an environment"),
        ({}, "python_environment_path is missing: the folder of the environment"),
        (
            {"python_environment_path": "x", "requirements_file": "r.txt"},
            "requirements_file is for an environment that drupe makes: managed_env",
        ),
    ],
)
def test_what_makes_no_sense_together(
    fields: dict[str, Any], words: str, workspace: Workspace
) -> None:
    workspace.config["systems"] = {"made": {"type": "PythonEnvironment", **fields}}
    with pytest.raises(ConfigError, match=words):
        load(workspace.write())


def test_olives_name_is_read(workspace: Workspace) -> None:
    workspace.config["systems"] = {
        "made": {"type": "PythonEnvironment", "config": {"olive_managed_env": True}},
        "aml": {"type": "AzureML", "config": {"aml_compute": "c", "is_dev": False}},
    }
    workspace.config["engine"]["host"] = "made"
    workflow = load(workspace.write())
    assert workflow.raw["systems"]["made"]["managed_env"] is True
    told = " ".join(said.text for said in workflow.notes)
    assert "olive_managed_env is read as managed_env" in told
    workspace.config["systems"]["aml"]["config"]["olive_managed_env"] = True
    with pytest.raises(ConfigError, match="asks for an environment to be made there"):
        load(workspace.write())


def test_specifiers_that_leave_no_version() -> None:
    def excluded(one: str, other: str) -> bool:
        found = requirements.SpecifierSet(one), requirements.SpecifierSet(other)
        return requirements.exclude_each_other(*found)

    assert excluded("==4.40", ">=5.20")
    assert excluded("<5", ">=5.20")
    assert excluded("==3.10.*", ">=3.11")
    assert not excluded("<6", ">=5.20")
    assert not excluded("~=5.1", ">=5.20")
    assert not excluded("<5.20.1", ">5.20")
    assert not excluded("", ">=5.20")


def test_the_environment_of_here_has_drupes_own_needs() -> None:
    for needed in requirements.asked_for():
        version = installed_version(needed.name)
        assert version is not None
        assert needed.specifier.contains(version, prereleases=True)
