"""Local files become rows, and rows texts.  Heavy file."""

from __future__ import annotations

import codecs
import csv
import glob
import json
import random
from pathlib import Path
from typing import Any

import datasets

from drupe.core.dataset import Dataset, LoadDataset, Part
from drupe.core.errors import DrupeError
from drupe.data import conversations
from drupe.data.row_form import RowForm, Segment, conversation, row_form, segments
from drupe.data.text_template import missing_column, parse
from drupe.data.user_script import formatting_function

# What `datasets` and the readers below it (pyarrow, pandas, json) raise for a file that they
# cannot read: ArrowInvalid, ParserError and UnicodeDecodeError are ValueErrors.
UNREADABLE = (
    datasets.exceptions.DatasetGenerationError,
    ValueError,
    KeyError,
    TypeError,
    StopIteration,
)
NO_ROWS = "corresponds to no data"  # `datasets` has no class of its own for an empty split


def rows(dataset: Dataset, scratch: Path) -> datasets.Dataset:
    """Return the rows that `dataset` names; what is cached while reading lies in `scratch`.

    Raises DrupeError for a file that is absent, unreadable or empty, an unknown split, a column
    that the text needs and the data lack, and a part that leaves one side without rows.
    """
    datasets.disable_progress_bars()
    source = dataset.load_dataset_config
    if source.of_hub:
        found = _of_hub(dataset, scratch)
        _check_columns(dataset, found)
        return part_of(found, dataset.part, dataset.name) if dataset.part else found
    for file in source.local_files:
        if not file.is_file():
            raise DrupeError(dataset.name, f"names {file}, which is not there", "Mend the path.")
    if all(_is_blank(file) for file in source.local_files):
        raise _no_rows(dataset, "")
    if source.data_name == "json":
        for file in source.local_files:
            _check_utf8(file, dataset.name)
    whole = _read(dataset, "train", scratch)
    found = whole if source.split == "train" else _split(dataset, scratch)
    _check_columns(dataset, found)
    return part_of(found, dataset.part, dataset.name) if dataset.part else found


def examples(
    dataset: Dataset, rows: datasets.Dataset, tokenizer: Any = None
) -> list[list[Segment]]:
    """Return the text of each row in segments, those that are to be learnt marked.

    tokenizer: has the chat template of rows that are messages. Raises DrupeError that names the
    row and the column where a value is absent.
    """
    preprocess = dataset.pre_process_data_config
    form = row_form(preprocess, rows.column_names)
    numbered = enumerate(rows, 1)
    if form.kind == "function":
        function = formatting_function(preprocess)
        return [[Segment(function(row))] for _, row in numbered]
    if form.kind == "messages":
        (column,) = form.columns
        return [
            conversations.segments(conversation(row, number, column), number, tokenizer, preprocess)
            for number, row in numbered
        ]
    return [segments(row, number, form, preprocess) for number, row in numbered]


def form_of(dataset: Dataset, rows: datasets.Dataset) -> RowForm:
    """Return how the rows are read."""
    return row_form(dataset.pre_process_data_config, rows.column_names)


def part_of(rows: datasets.Dataset, part: Part, name: str) -> datasets.Dataset:
    """Return one side of the split, its rows in their old order.

    The same rows and seed give the same split on every machine: Python's own generator draws it.
    """
    count = len(rows)
    held_out = max(1, round(part.eval_size * count)) if part.eval_size < 1 else int(part.eval_size)
    if held_out >= count:
        raise DrupeError(
            name,
            f"has {count} row{'s' * (count != 1)}, of which {held_out} "
            f"{'is' if held_out == 1 else 'are'} to be held out: none is left to train on",
            "Give more rows, or a smaller eval_dataset_size; null (in drupe finetune: "
            "--eval-dataset-size null) holds none out.",
        )
    drawn = set(random.Random(part.seed).sample(range(count), held_out))
    return rows.select(
        [place for place in range(count) if (place in drawn) == (part.side == "eval")]
    )


def _of_hub(dataset: Dataset, scratch: Path) -> datasets.Dataset:
    """Return the rows of a data set whose files the plan has brought here."""
    source = dataset.load_dataset_config
    if source.snapshot is None:
        raise DrupeError(dataset.name, f"is not here: {source.data_name}", "Mend the plan.")
    try:
        return datasets.load_dataset(
            str(source.snapshot),
            name=source.subset,
            split=source.split,
            cache_dir=str(scratch / "datasets"),
        )
    except (*UNREADABLE, OSError) as fault:
        raise DrupeError(
            f"{dataset.name}.load_dataset_config",
            f'cannot read "{source.data_name}": {_reason(fault)}',
            "Look at its subset and its split.",
        ) from fault


def _is_blank(file: Path) -> bool:
    return file.stat().st_size < 1024 and not file.read_bytes().strip()


def _check_utf8(file: Path, name: str) -> None:
    """Raise DrupeError unless the file is UTF-8: the JSON reader does not look."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.open("rb") as bytes_of_file:
        try:
            while block := bytes_of_file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as fault:
            raise DrupeError(
                name,
                f"{file} cannot be read as json: it is not UTF-8 ({fault.reason})",
                "Save the file as UTF-8.",
            ) from fault


def _read(dataset: Dataset, split: str, scratch: Path) -> datasets.Dataset:
    source = dataset.load_dataset_config
    try:
        return datasets.load_dataset(
            source.data_name,
            data_files=[glob.escape(str(file)) for file in source.local_files],
            split=split,
            cache_dir=str(scratch / "datasets"),
            **_options(source),
        )
    except UNREADABLE as fault:
        if NO_ROWS in str(fault):
            raise _no_rows(dataset, f' in the split "{split}"') from fault
        raise DrupeError(
            dataset.name,
            f"{', '.join(map(str, source.local_files))} cannot be read as {source.data_name}: "
            f"{_broken_line(source) or _reason(fault)}",
            'Mend the file, or the format in "data_name" (json, csv or parquet).',
        ) from fault


def _broken_line(source: LoadDataset) -> str | None:
    """Return which line of JSON lines is no JSON: the reader counts from the start of a block."""
    for file in source.local_files if source.data_name == "json" else ():
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1 and not line.lstrip().startswith("{"):
                    break  # one JSON value over several lines
                try:
                    json.loads(line.strip() or "null")
                except json.JSONDecodeError as fault:
                    return f"{file.name}, line {number}, column {fault.colno}: {fault.msg}"
    return None


def _options(source: LoadDataset) -> dict[str, Any]:
    """Return options under which a CSV file's text stays as it is.

    Else pandas reads "007" as 7.0, and "NA", "null" or "None" as no value at all.
    """
    if source.data_name != "csv":
        return {}
    with source.local_files[0].open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    columns = datasets.Features({name: datasets.Value("string") for name in header})
    return {"features": columns, "keep_default_na": False, "na_values": [""]}


def _split(dataset: Dataset, scratch: Path) -> datasets.Dataset:
    """Return the split of a file that is known to be readable, so what fails is the split."""
    split = dataset.load_dataset_config.split
    try:
        return _read(dataset, split, scratch)
    except DrupeError as fault:
        if fault.__cause__ is None or NO_ROWS in str(fault.__cause__):
            raise
        raise DrupeError(
            f"{dataset.name}.split",
            f'is "{split}": {_reason(fault.__cause__)}',
            'Write "train" (all rows) or a part of it: "train[:100]", "train[80%:]".',
        ) from fault


def _no_rows(dataset: Dataset, place: str) -> DrupeError:
    return DrupeError(dataset.name, f"has no rows{place}", "Give a file with at least one row.")


def _reason(fault: BaseException) -> str:
    """Return the words of what went wrong first: `datasets` wraps them."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return str(fault).strip().partition("\n")[0] or type(fault).__name__


def _check_columns(dataset: Dataset, rows: datasets.Dataset) -> None:
    """Raise DrupeError unless the text can be made of these rows."""
    preprocess = dataset.pre_process_data_config
    template = parse(preprocess.text_template) if preprocess.text_template is not None else None
    if template is not None and not template.columns:
        raise DrupeError(
            f"{dataset.name}.text_template",
            "names no column: every row would be the same text",
            f"Name columns in braces; the data have {', '.join(rows.column_names)}.",
        )
    for column in row_form(preprocess, rows.column_names).columns:
        if column not in rows.column_names:
            raise missing_column(dataset.name, column, tuple(rows.column_names))
        kind = str(getattr(rows.features[column], "dtype", ""))
        if dataset.load_dataset_config.data_name == "json" and kind.startswith("timestamp"):
            raise DrupeError(
                dataset.name,
                f'the JSON reader takes every value of the column "{column}" for a date, so its '
                "text would not be what the file says",
                'Give the rows as CSV ("data_name": "csv"), whose text stays as it is.',
            )
