"""A config in YAML: what JSON's scalars mean, with lines; what is no plain data is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drupe.config.source import Map, Origin, origin_of, read
from drupe.core.errors import ConfigError

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def parse(folder: Path, text: str, name: str = "config.yaml") -> Map:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return read(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


@given(st.dictionaries(TEXTS, VALUES, min_size=1))
def test_json_is_yaml(folder: Path, value: dict[str, Any]) -> None:
    """With the numbers that JSON alone knows, as 1e-4."""
    assert parse(folder, json.dumps(value, ensure_ascii=False)) == value


@given(st.dictionaries(TEXTS, VALUES, min_size=1))
def test_what_pyyaml_writes_is_read_back(folder: Path, value: dict[str, Any]) -> None:
    assert parse(folder, yaml.safe_dump(value, allow_unicode=True)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5", 5),
        ("-0x10", "-0x10"),
        ("0x10", 16),
        ("0o17", 15),
        ("017", 17),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ("|-\n  {a}\n  b", "{a}\nb"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any, tmp_path: Path) -> None:
    assert parse(tmp_path, f"a: {text}\n") == {"a": value}


def test_lines_and_paths(tmp_path: Path) -> None:
    root = parse(
        tmp_path, "# a comment\na:\n  b: [1, 2]\n  c:\n    - d: 1\n\n    - 2\ne: f\n", "c.yml"
    )
    assert root.origins["a"] == Origin("c.yml:2", "a")
    assert root["a"]["b"].origins[1] == Origin("c.yml:3", "a.b[1]")
    assert origin_of(root, ("a", "c", 0, "d")) == Origin("c.yml:5", "a.c[0].d")
    assert origin_of(root, ("a", "c", 1)) == Origin("c.yml:7", "a.c[1]")
    assert origin_of(root, ("e",)) == Origin("c.yml:8", "e")


def test_an_alias_is_what_it_names(tmp_path: Path) -> None:
    assert parse(tmp_path, "a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


BOMB = "a0: &a0 [1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb: 2\n", r"config.yaml:2:2: is not YAML: expected ',' or '\]'"),
        ("a: b: c\n", r"config.yaml:1:5: is not YAML: mapping values are not allowed here"),
        ("a: " + "[" * 5000, r"config.yaml:1: is nested too deeply"),
        ("a: " + "9" * 5000, r"config.yaml:1: cannot be read: .*digits"),
        ("a: 1\n\tb: 2\n", r"config.yaml:2:1: is not YAML"),
        ("a: \x00\n", r"config.yaml:1: is not YAML"),
        ("a: 1\nb: 2\na: 3\n", r"config.yaml:3: a is there twice\n  Keep one of them\."),
        ("- 1\n", r"config.yaml:1: is not an object of names and values"),
        ("", r"config.yaml:1: is empty\n  Write the config's names and values\."),
        ("# a comment\n", r"config.yaml:1: is not an object of names and values"),
        ("a: 1\n---\nb: 2\n", r"config.yaml:2:1: is not YAML: but found another document"),
        ("a: &x [*x]\n", r"config.yaml:1:4: is larger or deeper"),
        (BOMB, r"config.yaml:\d+:\d+: is larger or deeper, its aliases followed, than any config"),
        ("a: !!python/object:os.system {}\n", r"config.yaml:1:4: has the tag tag:yaml\.org"),
        ("a: !secret x\n", r"config.yaml:1:4: has the tag !secret, and a config has none"),
        ("? [a]\n: 1\n", r"config.yaml:1:3: has a name that is no text"),
    ],
)
def test_what_is_no_config_is_told_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(tmp_path, text)
