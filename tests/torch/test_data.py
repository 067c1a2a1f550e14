"""Files to rows to texts to samples to batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import VOCABULARY_SIZE, make_tokenizer

from drupe.core.dataset import Dataset, LoadDataset, Part, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.data import corpus, load
from drupe.data.row_form import RowForm, Segment

TOKENIZER = make_tokenizer()
END = TOKENIZER.eos_token_id
TEXT = RowForm("text", ("text",), "text")
TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"


def dataset(file: Path, data_name: Any = "json", **fields: Any) -> Dataset:
    template = fields.pop("text_template", TEMPLATE)
    source = {name: fields.pop(name) for name in ("split",) if name in fields}
    return Dataset(
        name="phrases",
        load_dataset_config=LoadDataset(data_name=data_name, data_files=file, **source),
        pre_process_data_config=TextPreprocess(text_template=template, **fields),
    )


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def ten_rows(folder: Path) -> Path:
    return written(folder, [{"phrase": f"number {n}", "tone": "joy"} for n in range(10)])


def heard() -> tuple[Job, list[str]]:
    """A job, and the list that what it tells goes to."""
    lines: list[str] = []
    return Job(Path(), send=lambda event: lines.append(f"{event['event']}: {event['text']}")), lines


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def texts_of(data: Dataset, rows: Any) -> list[str]:
    return ["".join(segment.text for segment in example) for example in load.examples(data, rows)]


def samples_of(texts: list[str], tokenizer: Any, preprocess: TextPreprocess, job: Job) -> list[Any]:
    """Return the samples of rows of plain text."""
    examples = [[Segment(text)] for text in texts]
    return corpus.samples(examples, TEXT, tokenizer, preprocess, job)


# Rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows[1].json", "rows *.json"])
def test_json_lines_are_read_whatever_the_files_name(tmp_path: Path, name: str) -> None:
    data = dataset(written(tmp_path, [{"phrase": "a", "tone": "b"}], name))
    found = load.rows(data, tmp_path / "scratch")
    assert texts_of(data, found) == ["### Text: a\n### The tone is:\nb"]


def test_a_json_list_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[{"phrase": "a", "tone": 1}, {"phrase": "b", "tone": 2}]')
    assert load.rows(dataset(file), tmp_path / "scratch")["tone"][:] == [1, 2]


def test_parquet_is_read(tmp_path: Path) -> None:
    load.rows(dataset(ten_rows(tmp_path)), tmp_path).to_parquet(tmp_path / "rows.parquet")
    assert len(load.rows(dataset(tmp_path / "rows.parquet", "parquet"), tmp_path)) == 10


def test_csv_text_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("phrase,tone\n007,NA\n1.0,null\n2024-01-01,true\n")
    data = dataset(file, "csv", text_template="{phrase} {tone}")
    found = load.rows(data, tmp_path / "scratch")
    assert texts_of(data, found) == ["007 NA", "1.0 null", "2024-01-01 true"]


def test_an_empty_csv_cell_has_no_value(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("phrase,tone\na,b\nc,\n")
    data = dataset(file, "csv")
    with pytest.raises(DrupeError, match=r'data, row 2: has no value in the column "tone"'):
        texts_of(data, load.rows(data, tmp_path / "scratch"))


def test_json_strings_that_the_reader_makes_dates_are_refused(tmp_path: Path) -> None:
    data = dataset(written(tmp_path, [{"phrase": "2024-01-01", "tone": "joy"}]))
    with pytest.raises(DrupeError, match='every value of the column "phrase" for a date'):
        load.rows(data, tmp_path / "scratch")


def test_text_columns_are_joined_by_a_space(tmp_path: Path) -> None:
    data = dataset(ten_rows(tmp_path), text_template=None, text_cols=("phrase", "tone"))
    assert texts_of(data, load.rows(data, tmp_path))[3] == "number 3 joy"


def test_a_split_is_taken(tmp_path: Path) -> None:
    data = dataset(ten_rows(tmp_path), split="train[80%:]")
    assert load.rows(data, tmp_path)["phrase"][:] == ["number 8", "number 9"]


@pytest.mark.parametrize("split", ["test", "train[", "train[0.5]"])
def test_an_unknown_split_is_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(DrupeError, match=r"phrases\.split: is .*\n  Write \"train\""):
        load.rows(dataset(ten_rows(tmp_path), split=split), tmp_path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match=r"phrases: names .*absent\.json, which is not there"):
        load.rows(dataset(tmp_path / "absent.json"), tmp_path)


@pytest.mark.parametrize("text", ["", " \n", "[]"])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(DrupeError, match="phrases: has no rows"):
        load.rows(dataset(file), tmp_path / "scratch")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match=r'has no rows in the split "train\[:0\]"'):
        load.rows(dataset(ten_rows(tmp_path), split="train[:0]"), tmp_path)


@pytest.mark.parametrize(
    ("data_name", "content"),
    [
        ("json", b'{"phrase": "a"}\n{"phrase": \n'),
        ("csv", b"a,b\n1,2\n1,2,3,4\n"),
        ("csv", "a,b\n1,\u00e9\n".encode("latin-1")),
        ("parquet", b"hello"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, data_name: Any, content: bytes) -> None:
    file = tmp_path / "rows"
    file.write_bytes(content)
    with pytest.raises(DrupeError, match=rf"phrases: .*rows cannot be read as {data_name}: \S"):
        load.rows(dataset(file, data_name), tmp_path / "scratch")


def test_a_misspelt_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    data = dataset(ten_rows(tmp_path), text_template="{phrase} {tune}")
    with pytest.raises(DrupeError, match=r'no column "tune"; it has .*did you mean "tone"\?'):
        load.rows(data, tmp_path)


def test_a_template_without_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match="names no column: every row would be the same text"):
        load.rows(dataset(ten_rows(tmp_path), text_template="phrase"), tmp_path)


def test_json_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes('{"phrase": "caf\u00e9", "tone": "joy"}\n'.encode("latin-1"))
    with pytest.raises(DrupeError, match=r"cannot be read as json: it is not UTF-8"):
        load.rows(dataset(file), tmp_path / "scratch")


# Parts


def sides(data: Dataset, scratch: Path, eval_size: float) -> tuple[list[str], list[str]]:
    def side(name: Any) -> list[str]:
        part = Part(eval_size=eval_size, side=name)
        return list(load.rows(data.model_copy(update={"part": part}), scratch)["phrase"])

    return side("train"), side("eval")


@pytest.mark.parametrize(("eval_size", "count"), [(0.3, 3), (0.01, 1), (2, 2), (9, 9)])
def test_the_two_sides_are_complementary(tmp_path: Path, eval_size: float, count: int) -> None:
    train, held_out = sides(dataset(ten_rows(tmp_path)), tmp_path, eval_size)
    assert len(held_out) == count
    assert sorted(train + held_out) == [f"number {n}" for n in range(10)]
    assert train == sorted(train)


def test_the_split_is_the_same_everywhere(tmp_path: Path) -> None:
    _, held_out = sides(dataset(ten_rows(tmp_path)), tmp_path, 0.3)
    assert held_out == ["number 0", "number 1", "number 4"]


@pytest.mark.parametrize("eval_size", [10, 100, 0.99])
def test_a_side_without_rows_is_refused(tmp_path: Path, eval_size: float) -> None:
    with pytest.raises(DrupeError, match=r"has 10 rows, of which \d+ are to be held out"):
        sides(dataset(ten_rows(tmp_path)), tmp_path, eval_size)


# Samples


def test_line_by_line_ends_each_row_with_the_end_of_text() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(strategy="line-by-line")
    found = samples_of(["a b", "c"], TOKENIZER, preprocess, job)
    assert [sample["input_ids"] for sample in found] == [[*ids("a b"), END], [*ids("c"), END]]
    assert found[0]["labels"] == found[0]["input_ids"]
    assert found[0]["attention_mask"] == [1] * len(found[0]["input_ids"])
    assert lines == []


def test_the_tokenizers_begin_of_text_is_kept() -> None:
    tokenizer = make_tokenizer(begin=True)
    preprocess = TextPreprocess(strategy="line-by-line")
    (sample,) = samples_of(["a b"], tokenizer, preprocess, heard()[0])
    assert sample["input_ids"] == [tokenizer.bos_token_id, *ids("a b"), END]
    bare = preprocess.model_copy(update={"add_special_tokens": False})
    (sample,) = samples_of(["a b"], tokenizer, bare, heard()[0])
    assert sample["input_ids"] == ids("a b")


def test_a_tokenizer_without_an_end_of_text_is_told() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    job, lines = heard()
    preprocess = TextPreprocess(strategy="line-by-line")
    (sample,) = samples_of(["a b"], tokenizer, preprocess, job)
    assert sample["input_ids"] == ids("a b")
    assert lines == [
        "warning: The tokenizer has no end-of-text token: the model will not learn when to stop."
    ]


def test_long_rows_are_cut_and_counted() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(strategy="line-by-line", max_seq_len=4)
    found = samples_of(["abcdefgh", "a"], TOKENIZER, preprocess, job)
    assert [len(sample["input_ids"]) for sample in found] == [4, 2]
    assert lines == ["warning: 1 of 2 rows are longer than max_seq_len 4 and were cut at the end."]


def test_short_rows_are_dropped_where_asked() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(
        strategy="line-by-line", max_seq_len=4, drop_short_sequences=True, pad_to_max_len=False
    )
    assert len(samples_of(["a", "!?;"], TOKENIZER, preprocess, job)) == 1
    assert lines == ["note: 1 of 2 rows are shorter than 4 tokens and were left out."]
    with pytest.raises(DrupeError, match="1 rows gave no sample of two tokens or more"):
        samples_of(["a"], TOKENIZER, preprocess, job)


def test_max_samples_takes_the_first() -> None:
    preprocess = TextPreprocess(strategy="line-by-line", max_samples=2)
    assert len(samples_of(["a", "b", "c"], TOKENIZER, preprocess, heard()[0])) == 2
    joined = TextPreprocess(max_seq_len=2, max_samples=2)
    assert len(samples_of(["a", "b", "c"], TOKENIZER, joined, heard()[0])) == 2


def test_join_cuts_one_stream_and_tells_the_remainder() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(max_seq_len=5, joiner="\n")
    found = samples_of(["a", "b", "c", "d"], TOKENIZER, preprocess, job)
    between = ids("\n")
    stream = [token for row in "abcd" for token in [*ids(row), END, *between]]
    assert [sample["input_ids"] for sample in found] == [stream[:5], stream[5:10]]
    assert lines == [
        "note: The rows gave 2 blocks of 5 tokens; the last 2 tokens fill none and were left out."
    ]


def test_join_keeps_a_last_block_that_is_exactly_full() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(max_seq_len=2, joiner=None)
    found = samples_of(["a", "b"], TOKENIZER, preprocess, job)
    assert [sample["input_ids"] for sample in found] == [[*ids("a"), END], [*ids("b"), END]]
    assert lines == []


def test_join_of_less_than_one_block_gives_one_short_block() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(max_seq_len=1024, joiner=None)
    (sample,) = samples_of(["a", "b"], TOKENIZER, preprocess, job)
    assert sample["input_ids"] == [*ids("a"), END, *ids("b"), END]
    assert lines[0].startswith(
        "warning: All rows together have 4 tokens, less than one block of 1024: they are one"
    )


@pytest.mark.parametrize("strategy", ["join", "line-by-line"])
def test_the_batch_of_the_tokenizer_has_no_influence(strategy: Any) -> None:
    texts = [f"row {number} " * number for number in range(1, 12)]
    found = [
        samples_of(
            texts,
            TOKENIZER,
            TextPreprocess(strategy=strategy, max_seq_len=16, processing_batch_size=size),
            heard()[0],
        )
        for size in (1, 3, 1024)
    ]
    assert found[0] == found[1] == found[2]


def test_so_many_rows_are_tokenized_at_a_time() -> None:
    counts: list[int] = []

    class Counting:
        eos_token_id = END

        def __call__(self, texts: str | list[str], **options: Any) -> Any:
            counts.append(len(texts))
            return TOKENIZER(texts, **options)

    texts = ["one", "two", "three", "four", "five"]
    preprocess = TextPreprocess(add_special_tokens=False, processing_batch_size=2, joiner=None)
    samples_of(texts, Counting(), preprocess, heard()[0])
    assert counts == [2, 2, 1]


def test_rows_of_one_token_or_none_teach_nothing() -> None:
    job, lines = heard()
    preprocess = TextPreprocess(strategy="line-by-line", add_special_tokens=False)
    assert len(samples_of(["", "a", "a b"], TOKENIZER, preprocess, job)) == 1
    assert lines == ["warning: 2 of 3 rows have fewer than two tokens and were left out."]


@pytest.mark.parametrize(
    "text", ["\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1", "မင်္ဂလာပါ", "வணக்கம்", "🍑"]
)
def test_every_script_is_tokenized_without_loss(text: str) -> None:
    preprocess = TextPreprocess(strategy="line-by-line")
    (sample,) = samples_of([text], TOKENIZER, preprocess, heard()[0])
    assert TOKENIZER.decode(sample["input_ids"][:-1]) == text


# Batches


def test_padding_is_on_the_right_without_loss() -> None:
    job, _ = heard()
    preprocess = TextPreprocess(strategy="line-by-line", pad_to_max_len=False)
    samples = samples_of(["ab", "c"], TOKENIZER, preprocess, job)
    batch = corpus.padding(TOKENIZER, preprocess, 8, VOCABULARY_SIZE)(samples)
    assert batch["input_ids"][1].tolist() == [*ids("c"), END, TOKENIZER.pad_token_id]
    assert batch["labels"][1].tolist() == [*ids("c"), END, -100]
    assert batch["attention_mask"][1].tolist() == [1, 1, 0]


def test_padding_to_the_longest_that_is_allowed() -> None:
    preprocess = TextPreprocess(strategy="line-by-line", max_seq_len=8)
    samples = samples_of(["c"], TOKENIZER, preprocess, heard()[0])
    assert corpus.padding(TOKENIZER, preprocess, 8, VOCABULARY_SIZE)(samples)[
        "input_ids"
    ].shape == (
        1,
        8,
    )
    joined = TextPreprocess(strategy="join", max_seq_len=8, use_attention_mask=False, joiner=None)
    samples = samples_of(["c"], TOKENIZER, joined, heard()[0])
    batch = corpus.padding(TOKENIZER, joined, 8, VOCABULARY_SIZE)(samples)
    assert batch["input_ids"].shape == (1, 2)
    assert "attention_mask" not in batch


def test_a_blank_line_stands_between_two_rows_as_in_olive_today() -> None:
    job, _ = heard()
    (sample,) = samples_of(["a", "b"], TOKENIZER, TextPreprocess(), job)
    between = ids("\n\n")
    assert sample["input_ids"] == [*ids("a"), END, *between, *ids("b"), END, *between]
