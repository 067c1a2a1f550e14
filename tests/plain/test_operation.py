"""Passes and metrics: their keys, and what is held against what they declare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from drupe_toys import Append, Breaks, Length, Reverse

from drupe import Job, Metric, Model, Pass, Target
from drupe.core.digest import DigestMemo
from drupe.core.errors import ContractError, DrupeError
from drupe.core.libraries import HERE
from drupe.core.model import check_kind


class Aimed(Pass):
    takes, gives = ("files",), "files"
    target: Target

    def run(self, model: Model, out: Path, job: Job) -> None: ...


class Rename(Pass):
    """Works where it must not: gives a file of its input another name."""

    takes, gives = ("files",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None:
        (out / "a.txt").write_text("")
        (model.path / "a.txt").rename(model.path / "sub" / "a.txt")


class Spoiling(Metric):
    takes = ("files",)

    def run(self, model: Model, out: Path, job: Job) -> None:
        (out / "score.json").write_text("{}")
        (model.path / "more.txt").write_text("")


class Silent(Metric):
    takes = ("files",)

    def run(self, model: Model, out: Path, job: Job) -> None: ...


class Empty(Pass):
    takes, gives = ("files",), "files"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "input"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("abc")
    return Model("files", folder, "digest")


@pytest.fixture
def apply(model: Model, tmp_path: Path) -> Callable[[Pass], Path]:
    def applied(step: Pass, kind: str = "files") -> Path:
        out = tmp_path / "out"
        out.mkdir()
        step.apply(Model(kind, model.path, model.digest), out, Job(tmp_path))
        return out

    return applied


def key(step: Pass | Metric, name: str = "X", parents: tuple[str, ...] = ("p",)) -> str:
    return step.key(name, parents, DigestMemo().digest)


def test_two_keys_are_pinned(tmp_path: Path) -> None:
    """Who changes the form of a key makes every cache cold: raise `format` in key_parts with it."""
    expected = "74a508e1cee91a1983c30391af6250adb9b2e06dcf4fc357161cce71681aac46"
    assert key(Reverse(), "Reverse") == expected
    (tmp_path / "more.txt").write_text("more")
    step = Append(text="!", source=tmp_path / "more.txt")
    expected = "ab86dcf03f3ac4097a9112c4b5aea94cdacccfcf8a62622a847ed312297538cb"
    assert key(step, "Append", ("p", "q")) == expected


def test_the_parts_of_a_key(tmp_path: Path) -> None:
    assert Append(text="!").key_parts("Append", ("p",), str) == {
        "format": 1,
        "operation": "Append",
        "version": 1,
        "fields": {"text": "!", "source": None},
        "libraries": {},
        "parents": ["p"],
    }


def test_what_decides_a_result_is_in_its_key() -> None:
    class Newer(Append):
        version: ClassVar[int] = 2

    class WithLibrary(Append):
        libraries: ClassVar[tuple[str, ...]] = ("pydantic",)

    class WithAbsentLibrary(Append):
        libraries: ClassVar[tuple[str, ...]] = ("no-such-library",)

    keys = [
        key(Append()),
        key(Append(text="!")),
        key(Newer()),
        key(WithLibrary()),
        key(WithAbsentLibrary()),
        key(Append(), "Y"),
        key(Append(), parents=("q",)),
        key(Append(), parents=("p", "p")),
    ]
    assert len(set(keys)) == len(keys)


def test_the_target_is_in_the_key() -> None:
    cpu, cuda = Target(), Target(provider="CUDAExecutionProvider")
    assert key(Aimed(target=cpu)) == key(Aimed(target=Target()))
    assert key(Aimed(target=cpu)) != key(Aimed(target=cuda))
    assert key(Aimed(target=cpu)) == key(Aimed(target=Target(threads=2)))  # faster, not other


def test_refuses_a_kind_before_any_work() -> None:
    refused = Reverse().refusal("hf", Target())
    assert str(refused) == (
        "Reverse: works on files, but what comes before gives hf\n  Mend the order of the passes."
    )
    assert Reverse().refusal("files", Target()) is None


def test_names_the_libraries_that_are_missing() -> None:
    class Needy(Append):
        libraries: ClassVar[tuple[str, ...]] = ("pydantic", "no-such-library")
        extra: ClassVar[str] = "finetune"

    refused = Needy().refusal_in(HERE)
    assert str(refused) == 'Needy: needs no-such-library\n  pip install "drupe[finetune]"'


def test_applies(apply: Callable[[Pass], Path]) -> None:
    assert (apply(Reverse()) / "a.txt").read_text() == "cba"


def test_refuses_a_model_of_another_kind(apply: Callable[..., Path]) -> None:
    with pytest.raises(ContractError, match=r"^Reverse: was given hf, takes files"):
        apply(Reverse(), "hf")


def test_an_output_that_lacks_files_is_the_developers_fault(apply: Callable[[Pass], Path]) -> None:
    words = (
        r"^Breaks: declares that it gives folder of files, but its output lacks \*\n"
        r"  Developer of this pass: write these files, or declare another kind in `gives`\.$"
    )
    with pytest.raises(ContractError, match=words):
        apply(Breaks(how="nothing"))


@pytest.mark.parametrize("step", [Breaks(how="input"), Rename()])
def test_an_input_that_was_changed_is_the_developers_fault(
    step: Pass, apply: Callable[[Pass], Path]
) -> None:
    with pytest.raises(ContractError, match=r"changed its input .*\n  Developer of this pass"):
        apply(step)


def test_a_pass_without_work_is_the_developers_fault(apply: Callable[[Pass], Path]) -> None:
    with pytest.raises(ContractError, match=r"^Empty: declares neither `work` nor `run`"):
        apply(Empty())


def test_a_metric_scores(model: Model, tmp_path: Path) -> None:
    Length().apply(model, None, tmp_path, Job(tmp_path))
    score: dict[str, Any] = json.loads((tmp_path / "score.json").read_text())
    assert score["value"] == 3


@pytest.mark.parametrize(
    ("metric", "words"),
    [(Silent(), "^Silent: wrote no score.json"), (Spoiling(), "^Spoiling: changed the model")],
)
def test_a_metric_that_breaks_its_promise(
    metric: Metric, words: str, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ContractError, match=words):
        metric.apply(model, None, out, Job(tmp_path))


def test_a_model_survives_json(model: Model) -> None:
    adapter = Model("hf-adapter", model.path, "d", base=model, remote_code=True)
    assert Model.from_json(json.loads(json.dumps(adapter.to_json()))) == adapter


def test_a_folder_of_another_kind_is_told(model: Model) -> None:
    words = r"is not a Hugging Face checkpoint \(hf\): it lacks config.json, \*.safetensors"
    with pytest.raises(DrupeError, match=words):
        check_kind("hf", model.path)
