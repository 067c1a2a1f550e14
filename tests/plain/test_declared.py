"""Declared values: closed, strict, frozen; keyed by what their files contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from drupe.core.dataset import Dataset, LoadDataset, Paths
from drupe.core.declared import Declared
from drupe.core.digest import DigestMemo, value_digest
from drupe.core.documented import description
from drupe.core.target import Target
from drupe.finetune.training_args import TrainingArgs


class Inner(Declared):
    file: Path | None = None
    rate: float = Field(default=1, gt=0)


class Outer(Declared):
    count: int = 3
    text: str = "x"
    flag: bool = False
    files: Paths = (Path("default"),)
    inner: Inner = Inner()


def content(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cuont": 1}, r"cuont\s+Extra inputs are not permitted"),
        ({"count": "1"}, r"count\s+Input should be a valid integer"),
        ({"count": 1.0}, r"count\s+Input should be a valid integer"),
        ({"count": True}, r"count\s+Input should be a valid integer"),
        ({"flag": 1}, r"flag\s+Input should be a valid boolean"),
        ({"flag": "false"}, r"flag\s+Input should be a valid boolean"),
        ({"text": 5}, r"text\s+Input should be a valid string"),
        ({"inner": {"rate": 0}}, r"inner.rate\s+Input should be greater than 0"),
        ({"inner": {"no": 1}}, r"inner.no\s+Extra inputs are not permitted"),
        ({"files": []}, r"files\s+.* should have at least 1 item"),
    ],
)
def test_nothing_is_converted_or_passed_over(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Outer.model_validate_json(json.dumps(fields))


def test_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().count = 4  # type: ignore[misc]


def test_one_name_may_stand_for_a_list() -> None:
    one = Outer.model_validate_json('{"files": "a"}')
    assert one == Outer.model_validate_json('{"files": ["a"]}')
    assert one.files == (Path("a"),)


def test_paths_are_relative_to_the_configs_folder(tmp_path: Path) -> None:
    text = '{"files": ["a/../b", "/c"], "inner": {"file": "d"}}'
    read = Outer.model_validate_json(text, context={"folder": tmp_path})
    assert read.files == (tmp_path / "b", Path("/c"))
    assert read.inner.file == tmp_path / "d"
    assert read.input_paths() == [tmp_path / "b", Path("/c"), tmp_path / "d"]


def test_a_file_is_in_the_key_by_its_content(tmp_path: Path) -> None:
    for name, text in (("one", "same"), ("two", "same"), ("three", "other")):
        (tmp_path / name).write_text(text)

    def key(name: str) -> str:
        value = Outer(files=(tmp_path / name,), inner=Inner(file=tmp_path / name))
        form = value.key_form(content)
        assert str(tmp_path) not in json.dumps(form)
        return value_digest(form)

    assert key("one") == key("two")
    assert key("one") != key("three")


@given(st.permutations(["count", "text", "flag", "inner"]))
def test_the_key_knows_no_order_of_fields(order: list[str]) -> None:
    values = {"count": 4, "text": "y", "flag": True, "inner": {"rate": 2, "file": None}}
    read = Outer.model_validate_json(json.dumps({name: values[name] for name in order}))
    plain = Outer(count=4, text="y", flag=True, inner=Inner(rate=2))
    assert value_digest(read.key_form(str)) == value_digest(plain.key_form(str))


@given(
    st.builds(Outer, count=st.integers(), text=st.text(), flag=st.booleans()),
    st.builds(Outer, count=st.integers(), text=st.text(), flag=st.booleans()),
)
def test_equal_values_and_equal_keys_are_the_same(one: Outer, other: Outer) -> None:
    assert (one == other) == (one.key_form(str) == other.key_form(str))


@pytest.mark.parametrize("schema", [Outer, Inner, TrainingArgs, Target])
def test_writing_a_default_out_changes_no_key(schema: type[Declared]) -> None:
    default = schema()
    written = schema.model_validate_json(default.model_dump_json())
    assert value_digest(written.key_form(str)) == value_digest(default.key_form(str))


def test_a_whole_number_for_a_float_is_the_same_key() -> None:
    keys = {
        value_digest(TrainingArgs.model_validate_json(text).key_form(str))
        for text in ("{}", '{"weight_decay": 0}', '{"weight_decay": 0.0, "num_train_epochs": 3.0}')
    }
    assert len(keys) == 1


def test_a_datasets_name_is_not_in_its_key(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("{}")
    load = LoadDataset(data_files=(tmp_path / "rows.json",))
    one, other = (Dataset(name=name, load_dataset_config=load) for name in ("one", "other"))
    digests = DigestMemo()
    assert one.key_form(digests.digest) == other.key_form(digests.digest)


class Told(Declared):
    size: int = 1
    """How much,

    in grams.
    """
    name: str = "x"
    other: str = Field("x", description="What the field says.")


class ToldAnew(Told):
    size: int = 2
    name: str = "y"
    """What it is called."""


@pytest.mark.parametrize("field", ["size", "name", "other"])
def test_a_field_is_described_by_the_string_below_it(field: str) -> None:
    class Within(ToldAnew):
        own: Told = Told()
        """Another."""

    told = {
        "size": "How much,\n\nin grams.",
        "name": "What it is called.",
        "other": "What the field says.",
    }
    shape = Within.model_json_schema()
    assert shape["properties"][field]["description"] == told[field] == description(Within, field)
    assert shape["properties"]["own"]["description"] == "Another."
    above = shape["$defs"]["Told"]["properties"]
    assert above[field].get("description") == (None if field == "name" else told[field])


def test_a_class_without_source_has_no_descriptions() -> None:
    scope: dict[str, Any] = {"Declared": Declared, "__name__": "nowhere"}
    exec("class Made(Declared):\n    size: int = 1\n    'How much.'\n", scope)
    assert description(scope["Made"], "size") == ""
    assert description(scope["Made"], "absent") == ""
    assert scope["Made"].model_json_schema()["properties"]["size"]["default"] == 1
