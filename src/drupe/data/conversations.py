"""Conversations become text by a model's chat template, with its answers marked.  Heavy file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data.row_form import Segment

ASSISTANT = "assistant"


def segments(
    messages: Sequence[dict[str, str]], number: int, tokenizer: Any, preprocess: TextPreprocess
) -> list[Segment]:
    """Return the rendered messages of a row (from 1), the assistant's answers as what is learnt.

    An answer is what the template adds to the prompt that a server would send: the same template,
    the messages before, and the opening of a turn. Its end of turn belongs to it.
    Raises DrupeError for a model without a template, a conversation without an answer, and a
    template that writes earlier turns anew when the conversation goes on.
    """
    if preprocess.chat_template is None and not tokenizer.chat_template:
        raise DrupeError(
            "pre_process_data_config.chat_template",
            "is needed: the model has no chat template of its own",
            "Write one (Jinja), or a text_template.",
        )
    whole = _render(messages, number, tokenizer, preprocess)
    if not preprocess.ignore_source_in_labels:
        return [Segment(whole)]
    found: list[Segment] = []
    done = ""
    for place, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        prompt = _render(messages[:place], number, tokenizer, preprocess, opened=True)
        answered = _render(messages[: place + 1], number, tokenizer, preprocess)
        if not (prompt.startswith(done) and answered.startswith(prompt)):
            raise DrupeError(
                f"data, row {number}",
                "has an answer that the chat template does not write behind its prompt, so it "
                "cannot be told what is to be learnt",
                "Give a chat_template that only adds, or ignore_source_in_labels: false.",
            )
        found += [Segment(prompt[len(done) :], learnt=False), Segment(answered[len(prompt) :])]
        done = answered
    if not found:
        raise DrupeError(
            f"data, row {number}",
            'has no message of the role "assistant", so nothing of it is learnt',
            "Mend the row, or leave it out.",
        )
    rest = whole[len(done) :] if whole.startswith(done) else ""
    return [*found, Segment(rest, learnt=False)] if rest else found


def _render(
    messages: Sequence[dict[str, str]],
    number: int,
    tokenizer: Any,
    preprocess: TextPreprocess,
    *,
    opened: bool = False,
) -> str:
    import jinja2

    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=opened,
            chat_template=preprocess.chat_template,
        )
    except (jinja2.TemplateError, TypeError, ValueError) as fault:
        what = f"is refused by the chat template: {fault}"
        raise DrupeError(f"data, row {number}", what, "Mend the row, or the template.") from fault
    return rendered
