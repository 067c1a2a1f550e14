"""Look at the rows of a data config as training would read them, before anything is trained.

    python -m drupe.data.text_lints < {"dataset": ..., "model": FOLDER} > [finding, ...]

A program of its own, since it imports `datasets`; the tokenizer is read by `tokenizers` alone, so
that a look costs a second and not the five that transformers takes.  Heavy file.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from drupe.core.dataset import Dataset, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data import load
from drupe.data.text_template import Text, parse

# What marks turns and ends in the templates of the common families.
MARKER = re.compile(
    r"<\|[^<>|\s]+\|>|<｜[^<>\s]+｜>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
)
MOST_BYTES = 64 * 2**20
BATCH = 1024
Found = tuple[str, str, str]  # level, what, remedy


@dataclass(frozen=True)
class Reading:
    """How a model reads text: its tokenizer, its end of text, the markers of its own template."""

    tokenizer: Tokenizer
    end: int | None
    own_markers: frozenset[str]

    @classmethod
    def of(cls, model: Path) -> Reading:
        """Return how the model in the folder `model` (with a tokenizer.json) reads."""
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        file = model / "tokenizer_config.json"
        config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        end = config.get("eos_token")
        end = end.get("content") if isinstance(end, dict) else end
        beside = model / "chat_template.jinja"
        template = beside.read_text(encoding="utf-8") if beside.is_file() else ""
        template = template or json.dumps(config.get("chat_template") or "", ensure_ascii=False)
        special = {config.get("bos_token"), end}
        own = frozenset(marker for marker in MARKER.findall(template) if marker not in special)
        return cls(tokenizer, None if end is None else tokenizer.token_to_id(end), own)

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of `text`, with the tokenizer's own begin and end where `special`."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=special).ids
        return found


def lint(dataset: Dataset, model: Path, scratch: Path) -> Iterator[Found]:
    """Yield what is wrong, or looks wrong, with the text that `dataset` makes for `model`."""
    if not (model / "tokenizer.json").is_file():
        yield "note", "was not looked at: the model has no tokenizer.json", ""
        return
    if sum(file.stat().st_size for file in dataset.load_dataset_config.local_files) > MOST_BYTES:
        yield "note", f"was not looked at: it has more than {MOST_BYTES >> 20} MiB", ""
        return
    reading = Reading.of(model)
    preprocess = dataset.pre_process_data_config
    template = preprocess.text_template
    if template is not None:
        literal = "".join(piece.text for piece in parse(template).pieces if isinstance(piece, Text))
        yield from markers(literal, reading)
        yield from another_template(literal, reading)
    texts = load.texts(dataset, load.rows(dataset, scratch))
    yield from end_of_text(texts, preprocess, reading)
    yield from samples_left(texts, preprocess, reading)


def markers(literal: str, reading: Reading) -> Iterator[Found]:
    """Yield each marker of the template that the model reads as several tokens."""
    for marker in dict.fromkeys(MARKER.findall(literal)):
        count = len(reading.ids(marker, special=False))
        if count > 1:
            what = (
                f'the marker "{marker}" of text_template is {count} tokens to this model, not one'
            )
            own = ", ".join(sorted(reading.own_markers))
            remedy = f"Write the model's own: {own}." if own else "Write plain words in its place."
            yield "warning", what, remedy


def another_template(literal: str, reading: Reading) -> Iterator[Found]:
    """Yield where the template marks turns as another family's models do, or not at all."""
    own, used = reading.own_markers, set(MARKER.findall(literal))
    if not own or used & own:
        return
    shown = ", ".join(sorted(own))
    if used:
        what = f"text_template marks turns with {', '.join(sorted(used))}, the model with {shown}"
        yield "warning", what, "Write the model's own markers."
    else:
        what = f"text_template is not the model's own chat template, which has {shown}"
        yield "note", what, "Ask the tuned model in the words of text_template."


def end_of_text(texts: list[str], preprocess: TextPreprocess, reading: Reading) -> Iterator[Found]:
    """Yield where no end of text follows a row, so that nothing teaches the model to stop."""
    if preprocess.add_special_tokens or not texts:
        return
    ids = reading.ids(texts[0], special=False)
    if reading.end is None or not ids or ids[-1] != reading.end:
        what = "no end of text stands behind a row: the model will not learn to stop"
        yield "warning", what, 'Leave "add_special_tokens" true, or end text_template with it.'


def samples_left(texts: list[str], preprocess: TextPreprocess, reading: Reading) -> Iterator[Found]:
    """Yield where the rows give no sample, or fewer tokens than one block of `join` has."""
    longest = preprocess.max_seq_len
    joined = preprocess.strategy == "join"
    between = len(reading.ids(preprocess.joiner or "", special=False)) if joined else 0
    tokens = 0
    for length in _lengths(texts, preprocess, reading):
        tokens += length + between
        enough = longest if preprocess.drop_short_sequences else 2
        if tokens >= longest if joined else length >= enough:
            return
    if not joined:
        short = f" of {longest} tokens" if preprocess.drop_short_sequences else ""
        what = f"{len(texts)} rows leave no sample{short} to train on"
        yield "blocker", what, "Look at the data, max_seq_len and drop_short_sequences."
    elif tokens > 1:
        what = f"all rows together have {tokens} tokens, less than one block of {longest}"
        yield "warning", what, 'Choose a smaller max_seq_len, or strategy "line-by-line".'
    else:
        yield "blocker", f"{len(texts)} rows have {tokens} tokens together", "Look at the data."


def _lengths(texts: list[str], preprocess: TextPreprocess, reading: Reading) -> Iterator[int]:
    """Yield the tokens of each row, its end of text counted."""
    special = preprocess.add_special_tokens
    puts_end = special and reading.ids("a", special=True)[-1:] == [reading.end]
    ending = int(special and reading.end is not None and not puts_end)
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        for encoded in reading.tokenizer.encode_batch(batch, add_special_tokens=special):
            yield len(encoded.ids) + ending


def main() -> None:
    """Read what to look at from standard input, write the findings to standard output."""
    asked: dict[str, Any] = json.load(sys.stdin)
    dataset = Dataset.model_validate_json(json.dumps(asked["dataset"]))
    with tempfile.TemporaryDirectory(prefix="drupe-look-") as scratch:
        try:
            found = list(lint(dataset, Path(asked["model"]), Path(scratch)))
        except DrupeError as fault:
            found = [("blocker", f"{fault.where}: {fault.what}", fault.remedy)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
