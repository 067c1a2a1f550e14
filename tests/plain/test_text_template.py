"""Text templates: only names of columns, every character of the text kept."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.core.errors import DrupeError
from drupe.data.text_template import Column, Text, parse

TONE = "### Text: {phrase}\n### The tone is:\n{tone}"
NAMES = st.text(st.characters(exclude_characters="{}"), min_size=1).filter(str.strip)


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@given(st.text())
def test_rendering_escaped_text_gives_the_text(text: str) -> None:
    assert parse(escaped(text)).render({}) == text


@given(st.text(), NAMES, st.text(), st.text())
def test_a_column_of_any_name_is_replaced_by_its_value(
    before: str, name: str, value: str, after: str
) -> None:
    template = parse(escaped(before) + "{" + name + "}" + escaped(after))
    assert template.columns == (name,)
    assert template.render({name: value}) == before + value + after
    assert template.prompt({name: value}) == before


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(DrupeError):
        assert all("{" + name + "}" in text for name in parse(text).columns)


def test_the_answer_is_the_last_column() -> None:
    template = parse(TONE)
    assert template.columns == ("phrase", "tone")
    assert template.answer_column == "tone"
    assert template.prompt({"phrase": "Ha!"}) == "### Text: Ha!\n### The tone is:\n"


def test_a_column_may_be_named_twice() -> None:
    template = parse("{a}{b}{a}!")
    assert template.columns == ("a", "b")
    assert template.answer_column == "a"
    assert template.prompt({"a": 1, "b": 2}) == "12"
    assert template.render({"a": 1, "b": 2}) == "121!"


@pytest.mark.parametrize("name", ["Best Answer", "a.b", "a[0]", "a!r", "a:>10", "0", "__class__"])
def test_a_name_is_nothing_but_the_name_of_a_column(name: str) -> None:
    assert parse("{" + name + "}").pieces == (Column(name),)
    assert parse("{" + name + "}").render({name: "x"}) == "x"


def test_a_value_that_looks_like_a_template_stays_as_it_is() -> None:
    assert parse("{a}").render({"a": "{b} {{"}) == "{b} {{"


def test_doubled_braces_beside_a_column() -> None:
    assert parse("{{{a}}}").pieces == (Text("{"), Column("a"), Text("}"))


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{phrase", r'has a "\{" without its partner at character 1'),
        ("Text: phrase}", r'has a "\}" without its partner at character 13'),
        ("{a{b}}", r'has a "\{" without its partner at character 1'),
        ("a {} b", r"has braces without a name at character 3"),
        ("a { } b", r"has braces without a name at character 3"),
    ],
)
def test_stray_braces_are_refused(template: str, what: str) -> None:
    with pytest.raises(DrupeError, match=what):
        parse(template)


def test_a_missing_column_is_named_with_its_row_and_the_nearest_name() -> None:
    what = r'data, row 7: has no column "phrse"; it has "phrase", "tone"; did you mean "phrase"\?'
    with pytest.raises(DrupeError, match=what):
        parse("{phrse}").render({"phrase": "x", "tone": "y"}, 7)


def test_a_row_without_a_value_is_named() -> None:
    what = r'data, row 2: has no value in the column "tone"; its columns are "phrase", "tone"'
    with pytest.raises(DrupeError, match=what):
        parse(TONE).render({"phrase": "x", "tone": None}, 2)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (1.5, "1.5"), (False, "False"), ("", "")])
def test_every_value_but_none_is_a_text(value: object, text: str) -> None:
    assert parse("{a}").render({"a": value}) == text


def test_a_template_without_a_column_has_no_answer() -> None:
    with pytest.raises(DrupeError, match="names no column, so it has no answer"):
        parse("plain").prompt({})
