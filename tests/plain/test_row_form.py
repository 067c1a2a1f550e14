"""What a row is, by the config or by its columns; what of it is learnt."""

from __future__ import annotations

from typing import Any

import pytest

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data.row_form import Segment, conversation, row_form, segments


def read(row: dict[str, Any], **fields: Any) -> list[Segment]:
    preprocess = TextPreprocess(**fields)
    return segments(row, 1, row_form(preprocess, tuple(row)), preprocess)


@pytest.mark.parametrize(
    ("columns", "kind", "name"),
    [
        (("text",), "text", "text"),
        (("id", "text", "instruction", "output"), "text", "text"),
        (("instruction", "input", "output"), "pair", "Alpaca"),
        (("instruction", "output", "id"), "pair", "Alpaca"),
        (("prompt", "completion"), "pair", "prompt and completion"),
        (("input", "output"), "pair", "input and output"),
        (("messages",), "messages", "OpenAI messages"),
        (("id", "conversations"), "messages", "ShareGPT"),
    ],
)
def test_columns_tell_what_a_row_is(columns: tuple[str, ...], kind: str, name: str) -> None:
    form = row_form(TextPreprocess(), columns)
    assert (form.kind, form.name, form.recognised) == (kind, name, True)
    assert set(form.columns) <= set(columns)


def test_what_the_config_says_outweighs_the_columns() -> None:
    form = row_form(TextPreprocess(text_cols=("output",)), ("instruction", "output"))
    assert (form.kind, form.columns, form.recognised) == ("text", ("output",), False)
    form = row_form(TextPreprocess(message_col="chat"), ("text", "chat"))
    assert (form.kind, form.columns) == ("messages", ("chat",))


def test_columns_that_tell_nothing() -> None:
    words = r'says nothing of how a row becomes text, and the columns \("phrase", "tone"\) do not'
    with pytest.raises(DrupeError, match=words) as told:
        row_form(TextPreprocess(), ("phrase", "tone"))
    assert told.value.remedy == "Write a text_template, text_cols, message_col or pair_format."


def test_alpaca_with_and_without_an_input() -> None:
    row = {"instruction": "Add.", "input": "", "output": "3"}
    asked, answer = read(row)
    assert asked.text.endswith("### Instruction:\nAdd.\n\n### Response:\n")
    assert "Input" not in asked.text
    assert (asked.learnt, answer) == (False, Segment("3"))
    asked, _ = read({**row, "input": "1 and 2"})
    assert "### Input:\n1 and 2\n\n### Response:\n" in asked.text
    asked, _ = read(row, ignore_source_in_labels=False)
    assert asked.learnt


@pytest.mark.parametrize(
    ("row", "fields", "expected"),
    [
        ({"input": "1+1", "output": 2}, {"pair_format": "default"}, ("1+1", "2")),
        ({"prompt": "p", "completion": "c"}, {"pair_format": "self_instruct"}, ("p", "c")),
        ({"text": "<human>: Hi\n<bot>: Ho"}, {"pair_format": "chip2"}, ("Hi", "Ho")),
        (
            {"q": "why", "a": "so"},
            {"pair_format": "custom", "input_template": "Q: {q}\n", "output_template": "{a}!"},
            ("Q: why\n", "so!"),
        ),
    ],
)
def test_pair_formats(row: dict[str, Any], fields: Any, expected: tuple[str, str]) -> None:
    assert tuple(segment.text for segment in read(row, **fields)) == expected


def test_rows_that_do_not_fit_their_form() -> None:
    with pytest.raises(DrupeError, match='row 1: has no "<bot>:" in the column "text"'):
        read({"text": "no turns"}, pair_format="chip2")
    with pytest.raises(DrupeError, match='row 1: has no value in the column "output"'):
        read({"input": "a", "output": None}, pair_format="default")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (
            [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
        ),
        (
            [{"role": "system", "content": "S", "value": None}],
            [{"role": "system", "content": "S"}],
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}],
            [{"role": "user", "content": "ab"}],
        ),
    ],
)
def test_conversations(turns: Any, expected: Any) -> None:
    assert conversation({"chat": turns}, 1, "chat") == expected


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        (None, r'data, row 3: has no messages in the column "chat"'),
        ([], "has no messages"),
        ("text", "has no messages"),
        (["text"], "is no role with a text: text"),
        ([{"role": "user"}], "is no role with a text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "is no role with a text"),
        ([{"content": "a"}], "is no role with a text"),
    ],
)
def test_what_is_no_conversation(turns: Any, words: str) -> None:
    with pytest.raises(DrupeError, match=words):
        conversation({"chat": turns}, 3, "chat")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strategy": "join-random", "max_samples": 3}, "needs max_samples and random_seed"),
        ({"strategy": "line-by-line-random", "random_seed": 3}, "needs max_samples and random"),
        ({"strategy": "join-sliding-window"}, "needs a stride of at most max_seq_len"),
        ({"strategy": "join-sliding-window", "stride": 9, "max_seq_len": 8}, "needs a stride"),
        ({"text_template": "{a}", "message_col": "b"}, "text_template and message_col exclude"),
        ({"text_formatting_func": "f"}, "text_formatting_func and user_script belong together"),
        ({"pair_format": "custom"}, 'pair_format "custom" needs input_template and output'),
        ({"input_template": "{a}", "output_template": "{b}"}, 'need pair_format "custom"'),
    ],
)
def test_fields_that_do_not_fit_together(fields: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextPreprocess(**fields)
