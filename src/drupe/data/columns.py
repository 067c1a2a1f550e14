"""Which columns local files show at a glance, before anything is run.

Looks at the first row of a file and no further.  Light: standard library only.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drupe.core.dataset import Dataset
from drupe.core.errors import DrupeError, nearest
from drupe.core.resource import Remote
from drupe.data.row_form import RowForm, row_form, said_form
from drupe.data.text_template import parse

# A first row that is longer is looked at when the step runs, like all the others.
MOST_BYTES = 2**20
MEND = 'Mend the file, or the format in "data_name" (json, csv or parquet).'


def check_template(dataset: Dataset) -> None:
    """Raise DrupeError for a template that cannot be read, or that names no column."""
    template = dataset.pre_process_data_config.text_template
    if template is not None and not parse(template).columns:
        raise DrupeError(
            "text_template",
            "names no column: every row would be the same text",
            "Name columns in braces.",
        )


def check_files(dataset: Dataset) -> None:
    """Raise DrupeError where the first row shows that the files cannot be read.

    What only the whole file shows is left to `load.rows`; so is a file that is not there to the
    plan.
    """
    source, name = dataset.load_dataset_config, dataset.name
    if isinstance(source.data_files, Remote) or source.of_hub:
        return
    for file in source.local_files:
        if file.is_dir():
            raise DrupeError(name, f"names {file}, which is a folder", "Name the files in it.")
    there = [file for file in source.local_files if file.is_file()]
    if source.data_name == "parquet":
        return
    if len(there) == len(source.local_files) and all(map(_is_blank, there)):
        raise DrupeError(name, "has no rows", "Give a file with at least one row.")
    _shown(dataset)


def check_columns(dataset: Dataset) -> None:
    """Raise DrupeError for a column that the text needs and the first rows lack."""
    # A split that begins further down may leave out the row that we see.
    if dataset.load_dataset_config.split != "train" or dataset.load_dataset_config.of_hub:
        return
    for columns in _shown(dataset):
        for column in needed_columns(dataset, columns):
            if column not in columns:
                listed = ", ".join(f'"{each}"' for each in columns) or "none"
                raise DrupeError(
                    dataset.name,
                    f'names the column "{column}", but the data have {listed}'
                    f"{nearest(column, columns)}",
                    "Mend the name, or the data.",
                )


def _shown(dataset: Dataset) -> list[tuple[str, ...]]:
    """Return the columns of each file that shows some."""
    source = dataset.load_dataset_config
    if source.data_name == "parquet":
        return []
    filled = (file for file in source.local_files if file.is_file() and not _is_blank(file))
    shown = (columns_of(file, source.data_name, dataset.name) for file in filled)
    return [columns for columns in shown if columns is not None]


def needed_columns(dataset: Dataset, columns: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the columns that a row needs to become a text; `columns`: those that it has.

    Raises DrupeError where neither the config nor the columns tell.
    """
    said = said_form(dataset.pre_process_data_config)
    if said is None and columns is None:
        return ()
    return (said or row_form(dataset.pre_process_data_config, columns or ())).columns


def recognised(dataset: Dataset) -> RowForm | None:
    """Return what the rows are where their columns alone tell it; None otherwise."""
    if said_form(dataset.pre_process_data_config) is not None:
        return None
    try:
        forms = [row_form(dataset.pre_process_data_config, each) for each in _shown(dataset)]
    except DrupeError:
        return None  # told as a fault
    return forms[0] if forms and forms[0].kind != "text" else None


def choices_shown(dataset: Dataset) -> set[str] | None:
    """Return the different answers that a glance at the rows shows; None where it does not tell.

    The answer is the last column that the template names. Looks at JSON (lines or a list) and CSV
    of at most MOST_BYTES.
    """
    template = dataset.pre_process_data_config.text_template
    source = dataset.load_dataset_config
    columns = parse(template).columns if template is not None else ()
    if not columns or source.data_name == "parquet" or not source.local_files:
        return None
    found: set[str] = set()
    for file in source.local_files:
        try:
            if file.stat().st_size > MOST_BYTES:
                return None
            text = file.read_text(encoding="utf-8-sig")
            rows = _rows_of(text, source.data_name)
            found |= {str(row[columns[-1]]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            return None
    return found


def _rows_of(text: str, format_name: str) -> list[dict[str, Any]]:
    if format_name == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def columns_of(file: Path, format_name: str, name: str) -> tuple[str, ...] | None:
    """Return the columns of a file's first row; None where a glance does not tell.

    Raises DrupeError, in the words of the data config `name`, for a file of another format.
    """
    with file.open("rb") as opened:
        start = opened.read(MOST_BYTES)
        whole = not opened.read(1)
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, final=whole)
    except UnicodeDecodeError as fault:
        raise DrupeError(
            name,
            f"names {file}, which cannot be read as {format_name}: it is not UTF-8 "
            f"({fault.reason})",
            "Save the file as UTF-8.",
        ) from fault
    if format_name == "csv":
        try:
            return tuple(next(csv.reader(io.StringIO(text, newline="")), ()))
        except csv.Error:  # a field beyond the reader's limit
            return None
    return _json_columns(text.lstrip(), file, name, whole=whole)


def _json_columns(text: str, file: Path, name: str, *, whole: bool) -> tuple[str, ...] | None:
    """Return the keys of the first object: a line, or the first item of a list."""
    if not text:
        return None
    if text[0] not in "{[":
        start = text[:20].splitlines()[0]
        what = f"names {file}, which cannot be read as json: it begins with {start!r}"
        raise DrupeError(name, what, MEND)
    first = text[1:].lstrip() if text[0] == "[" else text
    if first[:1] != "{":
        return None
    try:
        row: Any = json.JSONDecoder().raw_decode(first)[0]
    except json.JSONDecodeError as fault:
        if not whole:
            return None
        line = text[: len(text) - len(first) + fault.pos].count("\n") + 1
        what = f"names {file}, which cannot be read as json: {fault.msg} in line {line}"
        raise DrupeError(name, what, MEND) from fault
    except RecursionError:
        return None
    return tuple(row)


def _is_blank(file: Path) -> bool:
    return file.stat().st_size < 1024 and b"".join(file.read_bytes().split()) in (b"", b"[]")
