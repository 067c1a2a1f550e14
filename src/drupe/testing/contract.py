"""PassContract: what every pass promises, as tests that a plug-in's author inherits.

    class TestReverse(PassContract):
        step = Reverse()
        def make_input(self, folder): (folder / "a.txt").write_text("abc")

Run by pytest. Each test works in its own temporary folder.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from drupe.core.digest import DigestMemo
from drupe.core.errors import ContractError
from drupe.core.files import files_below
from drupe.core.job import Job
from drupe.core.model import KINDS, Model, missing_files
from drupe.core.operation import Pass


class PassContract:
    """Subclass it, set `step`, define `make_input`; override `reproducible` if it is not.

    step: the pass with the fields to test. reproducible: whether the same input gives the same
    bytes. `make_input(folder)` writes a small model of the kind `step.takes[0]`; a pass that
    takes an adapter defines `make_base(folder)` too.
    """

    step: ClassVar[Pass]
    reproducible: ClassVar[bool] = True

    def make_input(self, folder: Path) -> None:
        """Write a small input model into the empty `folder`."""
        raise NotImplementedError("define make_input in your subclass")

    def make_base(self, folder: Path) -> None:
        """Write the base of an adapter into the empty `folder`."""
        raise NotImplementedError("define make_base: the pass takes an adapter")

    @pytest.fixture
    def model(self, tmp_path: Path) -> Model:
        """Return the input as a model."""
        kind, base = self.step.takes[0], None
        if KINDS[kind].has_base:
            (tmp_path / "base").mkdir()
            self.make_base(tmp_path / "base")
            base = _model("hf", tmp_path / "base")
        (tmp_path / "input").mkdir()
        self.make_input(tmp_path / "input")
        return _model(kind, tmp_path / "input", base)

    def test_kinds_are_known(self) -> None:
        """It takes and gives kinds that drupe knows."""
        assert self.step.takes
        assert {*self.step.takes, self.step.gives} <= set(KINDS)

    def test_fields_survive_json(self) -> None:
        """Its fields travel to a worker as JSON and come back equal."""
        assert type(self.step).model_validate_json(self.step.model_dump_json()) == self.step

    def test_is_frozen_and_closed(self) -> None:
        """It cannot be changed after it was made, and takes no unknown field."""
        fields = json.loads(self.step.model_dump_json())
        with pytest.raises(ValidationError, match=r"Extra inputs"):
            type(self.step).model_validate({**fields, "no_such_field": 1})
        for name in type(self.step).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(self.step, name, None)

    def test_key_is_stable(self, tmp_path: Path) -> None:
        """Its key depends on the name, the parents and the fields; not on when it is asked."""
        digests = DigestMemo()
        key = self.step.key("X", ("parent",), digests.digest)
        assert key == self.step.key("X", ("parent",), digests.digest)
        assert key != self.step.key("Y", ("parent",), digests.digest)
        assert key != self.step.key("X", ("other",), digests.digest)

    def test_gives_what_it_declares(self, model: Model, tmp_path: Path) -> None:
        """Its output is of the declared kind, and its input is left alone."""
        before = DigestMemo().folder(model.path, files_below(model.path))
        out = self._apply(model, tmp_path / "out")
        assert not missing_files(self.step.gives, out)
        assert DigestMemo().folder(model.path, files_below(model.path)) == before

    def test_gives_the_same_twice(self, model: Model, tmp_path: Path) -> None:
        """The same input gives the same bytes."""
        if not self.reproducible:
            pytest.skip("declared as not reproducible")
        first = self._apply(model, tmp_path / "first")
        second = self._apply(model, tmp_path / "second")
        digests = DigestMemo()
        assert digests.folder(first, files_below(first)) == digests.folder(
            second, files_below(second)
        )

    def test_output_names_no_path(self, model: Model, tmp_path: Path) -> None:
        """No path of this machine is left in a text file of the output."""
        out = self._apply(model, tmp_path / "out")
        for file in files_below(out):
            if file.suffix in (".json", ".txt", ".md", ".yaml", ".jinja"):
                assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name

    def test_refuses_another_kind(self, model: Model, tmp_path: Path) -> None:
        """It refuses a model of a kind that it does not take."""
        other = next(kind for kind in KINDS if kind not in self.step.takes)
        with pytest.raises(ContractError, match=f"was given {other}"):
            self._apply(Model(other, model.path, model.digest), tmp_path / "out")

    def test_work_can_be_found(self) -> None:
        """The work that it names can be imported; the declaration itself can be pickled."""
        assert callable(self.step.function())
        assert pickle.loads(pickle.dumps(self.step)) == self.step

    def _apply(self, model: Model, out: Path) -> Path:
        out.mkdir()
        scratch = out.with_name(out.name + "-scratch")
        scratch.mkdir()
        self.step.apply(model, out, Job(scratch))
        return out


def _model(kind: str, folder: Path, base: Model | None = None) -> Model:
    return Model(kind, folder, DigestMemo().folder(folder, files_below(folder)), base)
