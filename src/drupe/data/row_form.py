"""What a row is: a text, a pair, a conversation; and which of its words are learnt.  Light.

| form     | said by                           | recognised by the columns                         |
|----------|-----------------------------------|---------------------------------------------------|
| text     | text_template, text_cols          | text                                              |
| function | text_formatting_func, user_script |                                                   |
| pair     | pair_format, input_template and   | instruction, output (Alpaca); prompt, completion; |
|          | output_template                   | input, output                                     |
| messages | message_col                       | messages (OpenAI); conversations (ShareGPT)       |

Of a pair and of a conversation only the answers are learnt, unless ignore_source_in_labels is
false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data.text_template import parse, value_text

Kind = Literal["text", "function", "pair", "messages"]

# The prompts of Stanford Alpaca's own training code, on which most Alpaca-like models learnt.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
TEMPLATES = {"default": ("{input}", "{output}"), "self_instruct": ("{prompt}", "{completion}")}
HUMAN, BOT = "<human>: ", "\n<bot>: "  # how chip2 marks its turns
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class RowForm:
    """How rows are read. columns: those that a row needs. recognised: by them, not by the config.

    pair_format: of a pair. name: in the user's words ("Alpaca").
    """

    kind: Kind
    columns: tuple[str, ...]
    name: str
    pair_format: str | None = None
    recognised: bool = False


@dataclass(frozen=True)
class Segment:
    """A part of a row's text, learnt or only read."""

    text: str
    learnt: bool = True


def row_form(preprocess: TextPreprocess, columns: Sequence[str]) -> RowForm:
    """Return how rows with these columns are read; raises DrupeError where nothing tells."""
    said = said_form(preprocess)
    return said or _recognised(columns)


def said_form(preprocess: TextPreprocess) -> RowForm | None:
    """Return the form that the config says, or None where the columns are to tell."""
    if preprocess.text_formatting_func is not None:
        return RowForm("function", (), f"{preprocess.text_formatting_func} of user_script")
    if preprocess.text_template is not None:
        return RowForm("text", parse(preprocess.text_template).columns, "text_template")
    if preprocess.message_col is not None:
        return RowForm("messages", (preprocess.message_col,), "messages")
    if preprocess.pair_format is not None:
        return _pair(preprocess.pair_format, *templates(preprocess, preprocess.pair_format))
    if preprocess.text_cols is not None:
        return RowForm("text", preprocess.text_cols, "text_cols")
    return None


def _pair(pair_format: str, source: str, answer: str) -> RowForm:
    columns: tuple[str, ...]
    if pair_format == "alpaca":
        columns = ("instruction", "output")
    elif pair_format == "chip2":
        columns = ("text",)
    else:
        columns = tuple(dict.fromkeys((*parse(source).columns, *parse(answer).columns)))
    return RowForm("pair", columns, f"pairs ({pair_format})", pair_format)


def _recognised(columns: Sequence[str]) -> RowForm:
    there = set(columns)
    if "messages" in there:
        return RowForm("messages", ("messages",), "OpenAI messages", recognised=True)
    if "conversations" in there:
        return RowForm("messages", ("conversations",), "ShareGPT", recognised=True)
    for needed, pair_format, name in (
        (("instruction", "output"), "alpaca", "Alpaca"),
        (("prompt", "completion"), "self_instruct", "prompt and completion"),
        (("input", "output"), "default", "input and output"),
    ):
        if there.issuperset(needed) and "text" not in there:
            return RowForm("pair", needed, name, pair_format, recognised=True)
    if "text" in there:
        return RowForm("text", ("text",), "text", recognised=True)
    listed = ", ".join(f'"{each}"' for each in columns) or "none"
    raise DrupeError(
        "pre_process_data_config",
        f"says nothing of how a row becomes text, and the columns ({listed}) do not tell",
        "Write a text_template, text_cols, message_col or pair_format.",
    )


def templates(preprocess: TextPreprocess, pair_format: str) -> tuple[str, str]:
    """Return the templates of what is asked and of what is answered."""
    source, answer = TEMPLATES.get(pair_format, ("", ""))
    return preprocess.input_template or source, preprocess.output_template or answer


def segments(
    row: Mapping[str, Any], number: int, form: RowForm, preprocess: TextPreprocess
) -> list[Segment]:
    """Return the text of a row (from 1) that is a text or a pair; raises DrupeError."""
    if form.kind == "text":
        if preprocess.text_template is not None:
            return [Segment(parse(preprocess.text_template).render(row, number))]
        return [Segment(" ".join(value_text(row, name, number) for name in form.columns))]
    source, answer = _both(row, number, form, preprocess)
    return [Segment(source, not preprocess.ignore_source_in_labels), Segment(answer)]


def _both(
    row: Mapping[str, Any], number: int, form: RowForm, preprocess: TextPreprocess
) -> tuple[str, str]:
    if form.pair_format == "alpaca":
        prompt = ALPACA_WITH_INPUT if row.get("input") else ALPACA
        return parse(prompt).render(row, number), value_text(row, "output", number)
    if form.pair_format == "chip2":
        source, mark, answer = value_text(row, "text", number).partition(BOT)
        if not mark:
            what = f'has no "{BOT.strip()}" in the column "text"'
            raise DrupeError(f"data, row {number}", what, "Mend the row, or choose a pair_format.")
        return source.removeprefix(HUMAN), answer
    source, answer = templates(preprocess, form.pair_format or "default")
    return parse(source).render(row, number), parse(answer).render(row, number)


def conversation(row: Mapping[str, Any], number: int, column: str) -> list[dict[str, str]]:
    """Return the messages of a row (from 1) as [{"role", "content"}]; raises DrupeError.

    ShareGPT's "from" and "value" are read as role and content, its "human" as user, its "gpt" as
    assistant.
    """
    where = f"data, row {number}"
    turns = row.get(column)
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        what = f'has no messages in the column "{column}"'
        raise DrupeError(where, what, 'Give a list of {"role": ..., "content": ...}.')
    found = []
    for turn in turns:
        role = turn.get("role") or turn.get("from") if isinstance(turn, Mapping) else None
        content = _content(turn) if role else None
        if role is None or content is None:
            what = f'has a message in "{column}" that is no role with a text: {str(turn)[:60]}'
            raise DrupeError(where, what, 'Give {"role": ..., "content": "text"}.')
        found.append({"role": ROLES.get(str(role), str(role)), "content": content})
    return found


def _content(turn: Mapping[str, Any]) -> str | None:
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if isinstance(content, Sequence) and not isinstance(content, str):  # parts, each with a type
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        whole = len(texts) == len(content) and all(isinstance(text, str) for text in texts)
        return "".join(map(str, texts)) if whole else None
    return content if isinstance(content, str) else None
