"""Look at the rows of a data config as training would read them, before anything is trained.

    python -m drupe.data.text_lints < {"dataset", "model", "others"} > [finding, ...]

A program of its own, since it imports `datasets`; the tokenizer is read by `tokenizers` alone, so
that a look costs a second and not the five that transformers takes.  Heavy file.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from drupe.core.dataset import Dataset, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data import load
from drupe.data.row_form import RowForm, Segment
from drupe.data.strategies import longest
from drupe.data.text_template import Text, parse
from drupe.data.vocabulary import without_embedding

# What marks turns and ends in the templates of the common families.
MARKER = re.compile(
    r"<\|[^<>|\s]+\|>|<｜[^<>\s]+｜>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
)
MOST_BYTES = 64 * 2**20
BATCH = 1024
Found = tuple[str, str, str]  # level, what, remedy


@dataclass(frozen=True)
class Reading:
    """How a model reads text: its tokenizer, its end of text, the markers of its own template.

    embeddings: of how many tokens, as config.json says; None where it does not.
    """

    tokenizer: Tokenizer
    end: int | None
    own_markers: frozenset[str]
    embeddings: int | None

    @classmethod
    def of(cls, model: Path) -> Reading:
        """Return how the model in the folder `model` (with a tokenizer.json) reads."""
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        config = _settings(model / "tokenizer_config.json")
        end = config.get("eos_token")
        end = end.get("content") if isinstance(end, dict) else end
        beside = model / "chat_template.jinja"
        template = beside.read_text(encoding="utf-8") if beside.is_file() else ""
        template = template or json.dumps(config.get("chat_template") or "", ensure_ascii=False)
        special = {config.get("bos_token"), end}
        own = frozenset(marker for marker in MARKER.findall(template) if marker not in special)
        size = _settings(model / "config.json").get("vocab_size")
        return cls(
            tokenizer,
            end=None if end is None else tokenizer.token_to_id(end),
            own_markers=own,
            embeddings=size if isinstance(size, int) else None,
        )

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of `text`, with the tokenizer's own begin and end where `special`."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=special).ids
        return found


def _settings(file: Path) -> dict[str, Any]:
    """Return what a JSON file of the model says; nothing where it is not there."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def lint(
    dataset: Dataset, model: Path, scratch: Path, others: Sequence[Dataset] = ()
) -> Iterator[Found]:
    """Yield what is wrong, or looks wrong, with the text that `dataset` makes for `model`.

    others: the data that is measured on, which should not be trained on.
    """
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
        yield from markers(literal, "text_template", reading)
        yield from another_template(literal, reading)
    if preprocess.chat_template is not None:
        yield from markers(preprocess.chat_template, "chat_template", reading)
    if preprocess.user_script is not None:
        yield "note", f"was not looked at: {preprocess.user_script.name} runs in its step alone", ""
        return
    rows = load.rows(dataset, scratch)
    form = load.form_of(dataset, rows)
    if form.recognised and form.kind != "text":
        yield "note", f"is read as {form.name}, by its columns", ""
    examples = load.examples(dataset, rows, _chat_tokenizer(model, form))
    texts = _texts(examples)
    yield from overlap(Read(dataset, rows, form, texts), others, model, scratch)
    yield from end_of_text(texts, form, preprocess, reading)
    yield from answers_cut(examples, form, preprocess, reading)
    yield from samples_left(texts, form, preprocess, reading)
    yield from without_embeddings(texts, form, preprocess, reading)


def _chat_tokenizer(model: Path, form: RowForm) -> Any:
    """Return the tokenizer that has the chat template, where one is needed: it takes seconds."""
    if form.kind != "messages":
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model), local_files_only=True)


def _texts(examples: Iterable[Sequence[Segment]]) -> list[str]:
    return ["".join(segment.text for segment in example) for example in examples]


@dataclass(frozen=True)
class Read:
    """The rows of a data config, as they are and as texts."""

    dataset: Dataset
    rows: Any
    form: RowForm
    texts: list[str]

    def values(self, columns: Sequence[str]) -> list[str]:
        """Return what each row has in these columns."""
        return [json.dumps(row, default=str) for row in self.rows.select_columns(list(columns))]


def overlap(
    trained: Read, others: Sequence[Dataset], model: Path, scratch: Path
) -> Iterator[Found]:
    """Yield where rows that are measured on are trained on: memory would be measured."""
    dataset = trained.dataset
    for other in others:
        if other.model_copy(update={"name": dataset.name}) == dataset:
            continue  # no others are named, and the plan tells that
        if other.pre_process_data_config.user_script is not None:
            continue
        rows = load.rows(other, scratch)
        form = load.form_of(other, rows)
        texts = _texts(load.examples(other, rows, _chat_tokenizer(model, form)))
        both = sum(_in_both(trained, Read(other, rows, form, texts)))
        if both and other.part is not None:
            what = f"{both} of the {len(texts)} rows that are held out of {other.name} are"
            yield "warning", f"{what} trained on as well", "Leave out what is there twice."
        elif both:
            what = f"{both} of the {len(texts)} rows of {other.name} are trained on as well"
            yield "warning", what, f"Memory would be measured: take them out of {other.name}."


def _in_both(trained: Read, measured: Read) -> list[bool]:
    """Return of each row that is measured on whether it is trained on.

    It is where its text is; or, since two templates may word one row, where the columns are equal
    that both read, if they are all that one of the two reads.
    """
    texts = set(trained.texts)
    found = [text in texts for text in measured.texts]
    ours, theirs = set(trained.form.columns), set(measured.form.columns)
    shared = sorted(ours & theirs)
    if shared and set(shared) in (ours, theirs):
        values = set(trained.values(shared))
        pairs = zip(found, measured.values(shared), strict=True)
        found = [same or value in values for same, value in pairs]
    return found


def answers_cut(
    examples: Sequence[Sequence[Segment]],
    form: RowForm,
    preprocess: TextPreprocess,
    reading: Reading,
) -> Iterator[Found]:
    """Yield where nothing of a row is learnt, for its answer begins behind the last token."""
    if preprocess.joins or form.kind == "pair":
        return
    cut = 0
    for example in examples:
        asked = ""
        for segment in example:
            if segment.learnt:
                break
            asked += segment.text
        cut += len(reading.ids(asked, special=False)) >= preprocess.max_seq_len if asked else 0
    if cut:
        level = "blocker" if cut == len(examples) else "warning"
        what = f"{cut} of {len(examples)} rows have no answer within max_seq_len"
        yield level, f"{what} {preprocess.max_seq_len}: nothing of them is learnt", "Choose more."


def markers(literal: str, field: str, reading: Reading) -> Iterator[Found]:
    """Yield each marker of the template that the model reads as several tokens."""
    for marker in dict.fromkeys(MARKER.findall(literal)):
        count = len(reading.ids(marker, special=False))
        if count > 1:
            what = f'the marker "{marker}" of {field} is {count} tokens to this model, not one'
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


def end_of_text(
    texts: list[str], form: RowForm, preprocess: TextPreprocess, reading: Reading
) -> Iterator[Found]:
    """Yield where no end of text follows a row, so that nothing teaches the model to stop."""
    if form.kind == "messages" or preprocess.add_special_tokens or not texts:
        return
    ids = reading.ids(texts[0], special=False)
    if reading.end is None or not ids or ids[-1] != reading.end:
        what = "no end of text stands behind a row: the model will not learn to stop"
        yield "warning", what, 'Leave "add_special_tokens" true, or end text_template with it.'


def samples_left(
    texts: list[str], form: RowForm, preprocess: TextPreprocess, reading: Reading
) -> Iterator[Found]:
    """Yield where the rows give no sample, or fewer tokens than one block of `join` has."""
    most = longest(form, preprocess)
    joined = preprocess.joins
    between = len(reading.ids(preprocess.joiner or "", special=False)) if joined else 0
    tokens = 0
    for length in _lengths(texts, preprocess, reading):
        tokens += length + between
        enough = most if preprocess.drop_short_sequences else 2
        if tokens >= most if joined else length >= enough:
            return
    if not joined:
        short = f" of {most} tokens" if preprocess.drop_short_sequences else ""
        what = f"{len(texts)} rows leave no sample{short} to train on"
        yield "blocker", what, "Look at the data, max_seq_len and drop_short_sequences."
    elif tokens > 1:
        what = f"all rows together have {tokens} tokens, less than one block of {most}"
        yield "warning", what, 'Choose a smaller max_seq_len, or strategy "line-by-line".'
    else:
        yield "blocker", f"{len(texts)} rows have {tokens} tokens together", "Look at the data."


def without_embeddings(
    texts: list[str], form: RowForm, preprocess: TextPreprocess, reading: Reading
) -> Iterator[Found]:
    """Yield where a row has a token beyond the model's embeddings, or a prompt could have one."""
    size = reading.embeddings
    last = max(reading.tokenizer.get_vocab().values(), default=0)
    if size is None or last < size:
        return
    most = None if preprocess.joins else longest(form, preprocess)
    found = max(
        (max(ids[:most], default=0) for ids in _rows(texts, preprocess, reading)), default=0
    )
    if found >= size:
        written = str(reading.tokenizer.id_to_token(found))
        what, remedy = without_embedding(found, written, size)
        yield "blocker", f"tokenizer: {what}", remedy
    else:
        written = str(reading.tokenizer.id_to_token(last))
        what = f'the tokenizer goes up to {last} ("{written}"), the model has embeddings for {size}'
        yield "note", what, "No row has such a token; let no prompt have one."


def _lengths(texts: list[str], preprocess: TextPreprocess, reading: Reading) -> Iterator[int]:
    """Yield the tokens of each row, its end of text counted."""
    for ids in _rows(texts, preprocess, reading):
        yield len(ids)


def _rows(texts: list[str], preprocess: TextPreprocess, reading: Reading) -> Iterator[list[int]]:
    """Yield the ids of each row, with its end of text."""
    special = preprocess.add_special_tokens
    puts_end = special and reading.ids("a", special=True)[-1:] == [reading.end]
    ending = [reading.end] if special and reading.end is not None and not puts_end else []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        for encoded in reading.tokenizer.encode_batch(batch, add_special_tokens=special):
            yield [*encoded.ids, *ending]


def main() -> None:
    """Read what to look at from standard input, write the findings to standard output."""
    asked: dict[str, Any] = json.load(sys.stdin)
    dataset = Dataset.model_validate_json(json.dumps(asked["dataset"]))
    with tempfile.TemporaryDirectory(prefix="drupe-look-") as scratch:
        try:
            others = [Dataset.model_validate_json(json.dumps(each)) for each in asked["others"]]
            found = list(lint(dataset, Path(asked["model"]), Path(scratch), others))
        except DrupeError as fault:
            found = [("blocker", f"{fault.where}: {fault.what}", fault.remedy)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
