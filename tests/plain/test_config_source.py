"""A config as values that know where they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.config.source import Items, Map, Origin, origin_of, read
from drupe.core.errors import ConfigError, Refused

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def parse(folder: Path, text: str, encoding: str = "utf-8") -> Map:
    file = folder / "config.json"
    file.write_bytes(text.encode(encoding))
    return read(file)


@given(st.dictionaries(KEYS, VALUES), st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_the_values_are_those_of_json(
    folder: Path, value: dict[str, Any], indent: Any, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse(folder, text) == json.loads(text) == value


def number(origin: Origin) -> int:
    """Return the line of an origin."""
    return int(origin.where.rpartition(":")[2])


@given(st.dictionaries(KEYS, VALUES))
def test_every_entry_knows_its_line(folder: Path, value: dict[str, Any]) -> None:
    """Written with one entry a line, each line that is told holds the entry's own text."""
    text = json.dumps(value, indent=1)
    lines = text.split("\n")

    def check(found: Any) -> None:
        if isinstance(found, Map):
            assert set(found.origins) == set(found)
            for key, inner in found.items():
                line = lines[number(found.origins[key]) - 1]
                assert line.strip().startswith(json.dumps(key) + ":")
                check(inner)
        elif isinstance(found, Items):
            assert len(found.origins) == len(found)
            for origin, inner in zip(found.origins, found, strict=True):
                start = json.dumps(inner, indent=1).split("\n")[0]
                assert lines[number(origin) - 1].strip().startswith(start)
                check(inner)

    check(parse(folder, text))


def test_lines_and_paths(tmp_path: Path) -> None:
    root = parse(tmp_path, '{\r\n"a": {"b": [1,\n\n {"c": 2}]},\n\n"d":\n3}')
    assert root.origins["a"] == Origin("config.json:2", "a")
    assert root["a"]["b"].origins == [
        Origin("config.json:2", "a.b[0]"),
        Origin("config.json:4", "a.b[1]"),
    ]
    assert origin_of(root, ("a", "b", 1, "c")) == Origin("config.json:4", "a.b[1].c")
    assert origin_of(root, ("d",)) == Origin("config.json:6", "d")
    assert origin_of(root, ("a", "x", "y")) == Origin("config.json:2", "a"), (
        "the nearest that is there"
    )
    assert origin_of(root, ("x",)) == Origin("config.json:1", "")


def test_repeated_keys_are_told_all_at_once(tmp_path: Path) -> None:
    text = '{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3}'
    with pytest.raises(ConfigError, match="2 faults") as caught:
        parse(tmp_path, text)
    assert [(fault.where, fault.what) for fault in caught.value.faults] == [
        ("config.json:2", "b.c is there twice"),
        ("config.json:3", "a is there twice"),
    ]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert parse(tmp_path, '{"a": "ä"}', "utf-8-sig") == {"a": "ä"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"config.json:1: is empty\n  Write the config as \{\.\.\.\}\."),
        (" \n", r"config.json:1: is empty"),
        ('{"a": 1,\n "b": }', r"config.json:2:7: is not JSON: Expecting value"),
        ('{"a": 1,\n}', r"config.json:\d:\d: is not JSON"),
        ("{'a': 1}", r"config.json:1:2: is not JSON: Expecting property name"),
        ("[]", r"config.json:1: is not an object of names and values\n  Begin it with \{\."),
        ("3", r"config.json:1: is not an object of names"),
        ("[" * 100_000, r"config.json:1: is nested too deeply"),
        ("[" * 600 + "]" * 600, r"config.json:1: is nested too deeply"),
    ],
)
def test_what_is_no_config_is_told_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"absent.json: there is no such file"):
        read(tmp_path / "absent.json")


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"is a folder\n  Give the path of a config in it\."):
        read(tmp_path)


@pytest.mark.parametrize("text", ['{"a": {"b": "x\\u0000"}}', '{"a": {"b": ["\\ud800"]}}'])
def test_a_character_that_no_text_has(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.json:1: a\.b.* holds a character that no text"):
        parse(tmp_path, text)


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.json:1: cannot be read: .*digits"):
        parse(tmp_path, '{"a": ' + "9" * 5000 + "}")


def test_another_encoding_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot be read: .*utf-8.*\n  A config is UTF-8 text\."):
        parse(tmp_path, '{"a": "ä"}', "utf-16")
