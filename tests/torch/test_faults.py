"""Faults of real data, as a user meets them: the sentence, and that nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.data import load

GOOD = json.dumps({"phrase": "a", "tone": "joy"})


def read(file: Path, scratch: Path) -> list[str]:
    """Return the texts of a file of phrases."""
    data = Dataset(
        name="phrases",
        load_dataset_config=LoadDataset(data_name="json", data_files=file),
        pre_process_data_config=TextPreprocess(text_template="{phrase} {tone}"),
    )
    examples = load.examples(data, load.rows(data, scratch))
    return ["".join(segment.text for segment in example) for example in examples]


@pytest.mark.parametrize("before", [1, 5, 3000])
def test_the_broken_line_of_the_data_is_named(before: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    content = "\n".join([*[GOOD] * before, '{"phrase": ', GOOD])
    file.write_text(content)
    words = (
        rf"^phrases: .*/rows\.json cannot be read as json: rows\.json, line {before + 1}, "
        r"column 11: Expecting value\n  Mend the file, or the format in \"data_name\""
    )
    with pytest.raises(DrupeError, match=words):
        read(file, tmp_path / "scratch")
    assert file.read_text() == content


@pytest.mark.parametrize("row", [{"phrase": "a"}, {"phrase": "a", "tone": None}])
def test_a_row_without_the_value_is_named(row: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text("\n".join([GOOD, GOOD, json.dumps(row), GOOD]))
    with pytest.raises(DrupeError, match=r'row 3: has no value in the column "tone"'):
        read(file, tmp_path / "scratch")


def test_a_byte_order_mark_in_data_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "Zeilen mit ä 猫.json"
    file.write_text(f"{GOOD}\n{GOOD}\n", encoding="utf-8-sig")
    assert read(file, tmp_path / "scratch") == ["a joy", "a joy"]
