"""The environment of a job: what its conda file pins is in the key, what contradicts is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from drupe_toys import NeedsToyLibrary

from drupe.core.libraries import PINNED
from drupe.core.system import Setting
from drupe.systems.azureml.declaration import AzureML
from drupe.systems.conda import CondaEnvironment, read


@pytest.fixture
def conda(tmp_path: Path) -> Any:
    """Return what a conda file with these lines in its pip section installs."""

    def made(*lines: str, digest: str = "d") -> CondaEnvironment:
        text = "".join(f"      - {line}\n" for line in lines)
        file = tmp_path / "conda.yaml"
        file.write_text(f"dependencies:\n  - python=3.11\n  - pip:\n{text}")
        return CondaEnvironment(read(file), digest)

    return made


@pytest.mark.parametrize(
    ("line", "library", "version"),
    [
        ("torch==2.13.0", "torch", "2.13.0"),
        ("Toy_Library == 2.0  # the one", "toy-library", "2.0"),
        ("transformers[torch]==5.23.0", "transformers", "5.23.0"),
        ("onnxruntime-gpu==1.31.1", "onnxruntime", "1.31.1 (onnxruntime-gpu)"),
        ("onnxruntime==1.31.1", "onnxruntime", "1.31.1"),
        ("torch", "torch", f"{PINNED}d"),
        ("torch>=2.6", "torch", f"{PINNED}d"),
        ("torch==2.*", "torch", f"{PINNED}d"),
        ("git+https://example.org/x@main#egg=toy_library", "toy-library", f"{PINNED}d"),
        ("toy-library @ https://example.org/toy.whl", "toy-library", f"{PINNED}d"),
        ("torch==2.13.0", "onnxruntime", None),
        ("torch==2.13.0", "no-such-library", None),
        ("pydantic==2.14.3", "pydantic-core", f"{PINNED}d"),  # pydantic brings it
    ],
)
def test_what_is_pinned_is_of_that_version_and_the_rest_is_pinned_by_the_file(
    line: str, library: str, version: str | None, conda: Any
) -> None:
    assert conda(line).version(library) == version


@pytest.mark.parametrize(
    ("line", "library", "words"),
    [
        (
            "transformers==4.40",
            "transformers",
            r"needs transformers>=5\.20, and conda\.yaml:4 asks",
        ),
        ("transformers<5", "transformers", r"needs transformers>=5\.20, and conda\.yaml:4 asks"),
        ("transformers>=5.20,<6", "transformers", None),
        ("transformers", "transformers", None),
    ],
)
def test_a_pin_that_contradicts_a_pass_is_told_with_its_line(
    line: str, library: str, words: str | None, conda: Any
) -> None:
    told = conda(line).unfit(library, "finetune")
    assert (told is None) if words is None else re.match(words, told)


def test_the_key_is_that_of_a_local_run_where_the_version_is_the_same(conda: Any) -> None:
    class Installed:
        remedy = None

        def version(self, library: str) -> str:
            return "2.0"

        def unfit(self, library: str, extra: str) -> None:
            return None

    def parts(environment: Any) -> Any:
        return NeedsToyLibrary().key_parts("NeedsToyLibrary", (), lambda path: "", environment)

    assert parts(conda("toy-library==2.0")) == parts(Installed())
    assert parts(conda("toy-library==2.1")) != parts(Installed())
    assert parts(conda("toy-library")) != parts(conda("toy-library", digest="other"))


def test_a_contradiction_stops_the_plan(conda: Any) -> None:
    class NeedsTorch(NeedsToyLibrary):
        libraries = ("torch", "toy-library")
        extra = "finetune"

    refused = NeedsTorch().refusal_in(conda("torch==2.2"))
    assert refused is not None
    assert refused.what == (
        "needs toy-library; needs torch>=2.6, and conda.yaml:4 asks for torch==2.2"
    )
    assert refused.remedy == "Mend the pip section of conda.yaml."
    assert NeedsTorch().refusal_in(conda("torch==2.6.1", "toy-library")) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, fields: (folder / "conda.yaml").write_text("# another\n"),
        lambda folder, fields: fields.update(base_image="another"),
    ],
)
def test_the_content_of_the_environment_is_in_what_is_not_known(
    change: Any, tmp_path: Path, conda: Any
) -> None:
    conda("torch")
    fields: dict[str, Any] = {"base_image": "image", "conda_file_path": "conda.yaml"}

    def version() -> str | None:
        described = {"aml_compute": "c", "aml_docker_config": fields}
        system = AzureML.model_validate(described, context={"folder": tmp_path}, strict=False)
        return system.environment(Setting("aml", tmp_path, tmp_path)).version("torch")

    before = version()
    assert before is not None
    assert before.startswith(PINNED)
    assert version() == before
    change(tmp_path, fields)
    assert version() != before


def test_a_registered_environment_and_an_image_stand_for_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM image")
    described: list[dict[str, Any]] = [
        {"aml_environment_config": {"name": "e", "version": "1"}},
        {"aml_environment_config": {"name": "e", "version": "2"}},
        {"aml_docker_config": {"base_image": "image"}},
        {"aml_docker_config": {"dockerfile": "Dockerfile", "build_context_path": str(tmp_path)}},
    ]
    found = set()
    for fields in described:
        system = AzureML.model_validate({"aml_compute": "c", **fields}, strict=False)
        environment = system.environment(Setting("aml", tmp_path, tmp_path))
        found.add(environment.version("anything"))
        assert environment.unfit("anything", "cpu") is None
    assert len(found) == len(described)
    assert all(str(version).startswith(PINNED) for version in found)
