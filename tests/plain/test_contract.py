"""The toys keep the contract that plug-in authors inherit, and whoever breaks it fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from drupe_toys import Append, Reverse
from pydantic import ConfigDict

from drupe import Job, Model, Pass
from drupe.testing import PassContract


class TestReverse(PassContract):
    step = Reverse()

    def make_input(self, folder: Path) -> None:
        (folder / "a.txt").write_text("abc")


class TestAppend(TestReverse):
    step = Append(text="!")


class Foreign(Reverse):
    takes: ClassVar[tuple[str, ...]] = ("no-such-kind",)


class Open(Reverse):
    model_config = ConfigDict(extra="ignore")


class Thawed(Reverse):
    model_config = ConfigDict(frozen=False)
    text: str = ""


class Idle(Pass):
    takes, gives = ("files",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None: ...


class Harmful(Reverse):
    def run(self, model: Model, out: Path, job: Job) -> None:
        super().run(model, out, job)
        (model.path / "a.txt").write_text("changed")


class Moody(Pass):
    takes, gives = ("files",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None:
        (out / "a.txt").write_text(out.name)


class Chatty(Pass):
    takes, gives = ("files",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None:
        (out / "a.txt").write_text(f"made from {model.path}")


class Lost(Pass):
    takes, gives = ("files",), "files"
    work = "drupe_toys:no_such_function"


class Unstable(Reverse):
    def key(self, name: str, parents: tuple[str, ...], digest: Any) -> str:
        return str(id(object())) + str(len(UNSTABLE.append(None) or UNSTABLE))


UNSTABLE: list[None] = []


class Forgetful(Reverse):
    def key(self, name: str, parents: tuple[str, ...], digest: Any) -> str:
        return super().key(name, ("none",), digest)


class Locked(Reverse):
    text: str = ""

    def __getstate__(self) -> dict[Any, Any]:
        return {"lock": threading.Lock()}


class Lossy(Reverse):
    number: float = 0.5

    def model_dump_json(self, **more: Any) -> str:
        return "{}"


class Fixture(TestReverse):
    """The contract's own fixture, called as a plain function."""

    __test__ = False


BROKEN = [
    (Foreign(), "test_kinds_are_known"),
    (Open(), "test_is_frozen_and_closed"),
    (Thawed(), "test_is_frozen_and_closed"),
    (Lossy(number=0.25), "test_fields_survive_json"),
    (Unstable(), "test_key_is_stable"),
    (Forgetful(), "test_key_is_stable"),
    (Idle(), "test_gives_what_it_declares"),
    (Harmful(), "test_gives_what_it_declares"),
    (Moody(), "test_gives_the_same_twice"),
    (Chatty(), "test_output_names_no_path"),
    (Lost(), "test_work_can_be_found"),
    (Locked(), "test_work_can_be_found"),
]


@pytest.mark.parametrize(("step", "promise"), BROKEN)
def test_a_pass_that_breaks_a_promise_fails(step: Pass, promise: str, tmp_path: Path) -> None:
    contract = Fixture()
    contract.step = step  # type: ignore[misc]
    (tmp_path / "input").mkdir()
    contract.make_input(tmp_path / "input")
    given = {
        "model": Model("files", tmp_path / "input", "digest"),
        "tmp_path": tmp_path,
    }
    test = getattr(contract, promise)
    names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    # Whatever way a test fails in: an assertion, pytest.raises' own failure, or an error.
    with pytest.raises(BaseException, match=r"(?s).*"):
        test(**{name: given[name] for name in names})


@pytest.mark.parametrize("promise", sorted({promise for _, promise in BROKEN}))
def test_the_way_of_calling_above_passes_for_a_good_pass(promise: str, tmp_path: Path) -> None:
    contract = Fixture()
    (tmp_path / "input").mkdir()
    contract.make_input(tmp_path / "input")
    given = {"model": Model("files", tmp_path / "input", "digest"), "tmp_path": tmp_path}
    test = getattr(contract, promise)
    test(**{n: given[n] for n in test.__code__.co_varnames[1 : test.__code__.co_argcount]})
