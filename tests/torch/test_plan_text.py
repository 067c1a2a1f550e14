"""What a plan sees of the text to train on, by the real tokenizer and the real data code."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import END, make_tokenizer
from transformers import AutoTokenizer

from drupe.cli import main
from drupe.cli.plan import show_samples
from drupe.config.load import load
from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.errors import Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data.text_lints import lint
from drupe.finetune import preview
from drupe.finetune.lora import cut_to_context, samples_of
from drupe.finetune.passes import DoRA, LoftQ, LoRA, QLoRA
from drupe.plan import draft
from drupe.preflight.texts import asked_for, samples

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
ROWS = [{"phrase": f"phrase number {number}", "tone": "joy"} for number in range(8)]
CHAT = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer, which is all of a model that a look needs."""
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def training(folder: Path, rows: list[Any] | str = "", **preprocess: Any) -> LoRA:
    """Return a LoRA over `rows`, which are written below `folder`."""
    text = rows if isinstance(rows, str) and rows else "\n".join(map(json.dumps, rows or ROWS))
    (folder / "rows.jsonl").write_text(text)
    fields = {"text_template": TEMPLATE, "max_seq_len": 16, **preprocess}
    data = {
        "name": "rows",
        "load_dataset_config": {"data_files": str(folder / "rows.jsonl")},
        "pre_process_data_config": fields,
    }
    return LoRA.model_validate_json(json.dumps({"train_data_config": data}))


def seen(folder: Path, model: Path, step: LoRA) -> list[tuple[str, str]]:
    return [
        (level, what) for level, what, _ in lint(step.train_data_config, model, folder / "scratch")
    ]


def test_sound_text_is_not_remarked_on(tmp_path: Path, model: Path) -> None:
    assert seen(tmp_path, model, training(tmp_path)) == []
    assert seen(tmp_path, model, training(tmp_path, strategy="line-by-line")) == []


def test_a_marker_that_is_several_tokens(tmp_path: Path, model: Path) -> None:
    step = training(tmp_path, text_template="<|user|>{phrase}<|unused5|><|end|>{tone}")
    [(level, user), (_, end)] = seen(tmp_path, model, step)
    assert level == "warning"
    assert user.startswith('the marker "<|user|>" of text_template is ')
    assert user.endswith(" tokens to this model, not one")
    assert '"<|end|>"' in end


def test_another_familys_template(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text(CHAT)
    [(level, what)] = seen(tmp_path, model, training(tmp_path))
    assert level == "note"
    assert what == (
        "text_template is not the model's own chat template, which has <|end|>, <|user|>"
    )
    step = training(tmp_path, text_template="[INST] {phrase} [/INST] {tone}")
    told = [each for each in seen(tmp_path, model, step) if "marks turns" in each[1]]
    assert told == [
        (
            "warning",
            "text_template marks turns with [/INST], [INST], the model with <|end|>, <|user|>",
        )
    ]


def test_the_models_own_markers_are_no_other_familys(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text(CHAT)
    step = training(tmp_path, text_template="<|user|>{phrase}<|end|>{tone}")
    assert not [
        what
        for _, what in seen(tmp_path, model, step)
        if "template" in what.split(",")[0] and "marker" not in what
    ]


@pytest.mark.parametrize(("template", "told"), [(TEMPLATE, True), (TEMPLATE + END, False)])
def test_no_end_of_text(template: str, told: bool, tmp_path: Path, model: Path) -> None:
    step = training(tmp_path, text_template=template, add_special_tokens=False)
    found = seen(tmp_path, model, step)
    words = "no end of text stands behind a row: the model will not learn to stop"
    assert (("warning", words) in found) == told


def test_a_block_longer_than_all_data(tmp_path: Path, model: Path) -> None:
    step = training(tmp_path, max_seq_len=100_000, joiner=None)
    tokenizer = make_tokenizer()
    texts = [TEMPLATE.format(**row) for row in ROWS]
    tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
    assert seen(tmp_path, model, step) == [
        ("warning", f"all rows together have {tokens} tokens, less than one block of 100000")
    ]


def test_nothing_left_to_train_on(tmp_path: Path, model: Path) -> None:
    step = training(
        tmp_path,
        strategy="line-by-line",
        drop_short_sequences=True,
        pad_to_max_len=False,
        max_seq_len=500,
    )
    [(level, what)] = seen(tmp_path, model, step)
    assert (level, what) == ("blocker", "8 rows leave no sample of 500 tokens to train on")


def with_token(model: Path, folder: Path, token: str, *, ends: bool) -> Path:
    """Return a copy of a model whose tokenizer has one token more than there are embeddings."""
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token" if ends else "pad_token": token})
    tokenizer.save_pretrained(folder)
    return folder


def test_a_token_without_embedding_is_told_before_the_run(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_token(tiny_phi3, tmp_path / "model", "<|done|>", ends=True)
    file = config(tmp_path, model, training(tmp_path))
    assert main(["plan", file]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (
        'lora (rows): tokenizer: gives the data the token 400 ("<|done|>"), but the model has '
        "embeddings for 400 tokens, 0 to 399 Take the model's own tokenizer, or remove the token"
    ) in told


def test_a_token_without_embedding_that_no_row_has(tmp_path: Path, tiny_phi3: Path) -> None:
    model = with_token(tiny_phi3, tmp_path / "model", "<|fill|>", ends=False)
    words = 'the tokenizer goes up to 400 ("<|fill|>"), the model has embeddings for 400'
    assert seen(tmp_path, model, training(tmp_path)) == [("note", words)]
    rows = [*ROWS, {"phrase": "<|fill|>", "tone": "joy"}]
    [(level, what)] = seen(tmp_path, model, training(tmp_path, rows))
    assert level == "blocker"
    assert what.startswith('tokenizer: gives the data the token 400 ("<|fill|>"), but the model')
    cut = training(tmp_path, [*ROWS, {"phrase": "word " * 99, "tone": "<|fill|>"}])
    preprocess = cut.train_data_config.pre_process_data_config
    alone = preprocess.model_copy(update={"strategy": "line-by-line", "pad_to_max_len": False})
    data = cut.train_data_config.model_copy(update={"pre_process_data_config": alone})
    found = seen(tmp_path, model, cut.model_copy(update={"train_data_config": data}))
    assert found == [("note", words)], "what is cut off is not learnt from"


def config(folder: Path, model: Path, step: LoRA) -> str:
    """Write a config of the step; return its path."""
    data = json.loads(step.train_data_config.model_dump_json(exclude={"part"}))
    job = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "data_configs": [data],
        "passes": {"lora": {"type": type(step).__name__, "train_data_config": "rows"}},
        "engine": {"evaluate": "none"},
    }
    (folder / "config.json").write_text(json.dumps(job))
    return str(folder / "config.json")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*ROWS, {"phrase": "x", "tone": None}], 'data, row 9: has no value in the column "tone"'),
        ('{"phrase": "a", "tone": "b"}\n{"phrase": \n', "rows.jsonl, line 2"),
    ],
)
def test_broken_rows_are_told_before_the_run(
    rows: Any, words: str, tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(tmp_path, tiny_phi3, training(tmp_path, rows))
    assert main(["plan", file]) == 2
    assert words in capsys.readouterr().err
    assert main(["run", file]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / ".drupe-cache" / "work").exists(), "no step was begun"


def test_one_row_of_which_finetune_would_hold_one_out(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option that is named is one that was not typed, and it is the way out."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a row of some words"}')
    words = ["finetune", str(tiny_phi3), "--data", str(tmp_path / "rows.jsonl"), "--plan"]
    words += ["-o", str(tmp_path / "tuned"), "--strategy", "line-by-line"]
    assert main(words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "has 1 row, of which 1 is to be held out: none is left to train on" in told
    assert "(in drupe finetune: --eval-dataset-size null) holds none out." in told
    assert main([*words, "--eval-dataset-size", "null"]) == 0


def test_samples_are_those_of_the_training(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = training(tmp_path)
    file = config(tmp_path, tiny_phi3, step)
    assert main(["plan", file, "--show-samples", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["samples"]["lora"]
    job = Job(tmp_path / "scratch")
    model = Model("hf", tiny_phi3, "")
    data, _ = cut_to_context(step, model, job)
    trained = samples_of(data, make_tokenizer(), job)[0][:2]
    assert [sample["ids"] for sample in shown] == [sample["input_ids"] for sample in trained]
    assert [sample["labels"] for sample in shown] == [sample["labels"] for sample in trained]
    assert shown[0]["attention_mask"] == [1] * 16
    assert "".join(shown[0]["pieces"]) == shown[0]["text"]
    assert shown[0]["text"].startswith("### Text: phrase number")
    show_samples("lora", shown[:1])  # by the verb itself: tests/e2e/test_guide.py
    out = capsys.readouterr().out
    assert "lora, sample 1: 16 tokens, learnt: 16, attended to: 16" in out

    assert "- behind it: read, and not learnt" in out


@pytest.mark.parametrize("kind", [DoRA, QLoRA, LoftQ])
def test_samples_of_each_kin_of_lora(
    kind: type[LoRA],
    tmp_path: Path,
    tiny_phi3: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the program that a plan starts, in this process: each start imports torch."""
    step = kind.model_validate_json(
        training(tmp_path).model_dump_json(include={"train_data_config"})
    )
    [planned] = draft(load(Path(config(tmp_path, tiny_phi3, step)))).steps
    assert isinstance(planned.operation, kind)
    assert planned.operation.preview == preview.__name__
    asked = asked_for(planned.operation, Model("hf", tiny_phi3, ""), 1)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    preview.main()
    [sample] = json.loads(capsys.readouterr().out)["samples"]
    assert sample["text"].startswith("### Text: phrase number")


def test_samples_of_broken_rows_are_not_shown_and_the_rows_are_told(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, {"phrase": "x", "tone": None}]
    file = config(tmp_path, tiny_phi3, training(tmp_path, rows))
    assert main(["plan", file, "--show-samples", "1"]) == 2
    told = capsys.readouterr().err
    assert 'data, row 9: has no value in the column "tone"' in told
    assert "Traceback" not in told


def test_rows_that_give_no_sample_are_told_where_samples_are_asked_for(
    tmp_path: Path, tiny_phi3: Path
) -> None:
    rows = [*ROWS, {"phrase": "x", "tone": None}]
    file = config(tmp_path, tiny_phi3, training(tmp_path, rows))
    with pytest.raises(Refused, match=r'^.*lora, .*row 9.*has no value in the column "tone"'):
        samples(draft(load(Path(file))), 1)


def test_an_adapter_that_cannot_be_merged(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    shutil.copy(tiny_phi3 / "model.safetensors", adapter / "adapter_model.safetensors")
    job = {
        "input_model": {
            "type": "HfModel", "model_path": str(tiny_phi3), "adapter_path": str(adapter),
        },
        "passes": {"merge": {"type": "MergeAdapterWeights"}},
        "engine": {"evaluate": "none"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(job))
    assert main(["plan", str(tmp_path / "config.json")]) == 2
    words = 'cannot merge this adapter: its adapter_config.json says peft_type="IA3"'
    assert words in capsys.readouterr().err


def test_a_model_that_cannot_be_exported(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_phi3, model)
    settings = json.loads((model / "config.json").read_text())
    settings["architectures"] = ["BloomForCausalLM"]
    (model / "config.json").write_text(json.dumps(settings))
    job = {
        "input_model": {"type": "HfModel", "model_path": "model"},
        "passes": {"builder": {"type": "ModelBuilder", "precision": "int4"}},
        "engine": {"evaluate": "none"},
    }
    (tmp_path / "config.json").write_text(json.dumps(job))
    assert main(["plan", str(tmp_path / "config.json")]) == 2
    words = "ONNX Runtime GenAI's builder does not know BloomForCausalLM\n  It knows ChatGLM"
    assert words in capsys.readouterr().err


def chat_rows(folder: Path, count: int, length: int) -> Path:
    turns = [{"role": "user", "content": "word " * length}, {"role": "assistant", "content": "b"}]
    file = folder / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(count)))
    return file


@pytest.mark.parametrize(("length", "words"), [(1, None), (99, "no answer within max_seq_len 32")])
def test_conversations_whose_answers_are_cut(
    length: int, words: str | None, tiny_phi3: Path, tmp_path: Path
) -> None:
    data = Dataset(
        name="chats",
        load_dataset_config=LoadDataset(data_files=chat_rows(tmp_path, 2, length)),
        pre_process_data_config=TextPreprocess(
            strategy="line-by-line",
            max_seq_len=32,
            chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
        ),
    )
    found = list(lint(data, tiny_phi3, tmp_path))
    assert ("note", "is read as OpenAI messages, by its columns", "") in found
    blocked = [what for level, what, _ in found if level == "blocker"]
    assert blocked == ([f"2 of 2 rows have {words}: nothing of them is learnt"] if words else [])


def test_rows_that_are_trained_on_and_measured_on(tiny_phi3: Path, tmp_path: Path) -> None:
    def named(name: str, texts: list[str]) -> Dataset:
        return rows_of(tmp_path, name, [{"text": text} for text in texts])

    trained_on = named("train", [f"row {n}" for n in range(40)])
    others = [named("test", ["row 3", "new", "row 5"]), named("clean", ["other"]), trained_on]
    warned = [
        what
        for level, what, _ in lint(trained_on, tiny_phi3, tmp_path, others)
        if "rows of" in what
    ]
    assert warned == ["2 of the 3 rows of test are trained on as well"]


def test_a_plan_looks_at_the_rows_that_a_training_measures_on(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path)
    names = ("rows", "same")
    job = {
        "input_model": {"type": "HfModel", "model_path": str(tiny_phi3)},
        "data_configs": [
            {
                "name": name,
                "load_dataset_config": {"data_files": "rows.jsonl", "split": split},
                "pre_process_data_config": {"text_template": TEMPLATE, "max_seq_len": 16},
            }
            for name, split in zip(names, ("train", "train[:3]"), strict=True)
        ],
        "passes": {
            "lora": {"type": "LoRA", "train_data_config": "rows", "eval_data_config": "same"}
        },
        "engine": {"evaluate": "none"},
    }
    (tmp_path / "config.json").write_text(json.dumps(job))
    assert main(["plan", str(tmp_path / "config.json")]) == 0
    assert "3 of the 3 rows of same are trained on as well" in capsys.readouterr().out


def rows_of(folder: Path, name: str, rows: list[dict[str, Any]], **fields: Any) -> Dataset:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Dataset(
        name=name,
        load_dataset_config=LoadDataset(data_files=file),
        pre_process_data_config=TextPreprocess(**fields),
    )


@pytest.mark.parametrize(
    ("template", "both"),
    [("{q} -> {a}", 1), ("Q: {q}", 2), ("{q} of {about}", 0)],
)
def test_the_same_row_in_other_words(
    template: str, both: int, tiny_phi3: Path, tmp_path: Path
) -> None:
    """Of question, answer and a third: what both read, where one of them reads no more."""
    rows = [{"q": f"row {n}", "a": "yes" if n % 2 else "no", "about": "x"} for n in range(9)]
    trained_on = rows_of(tmp_path, "train", rows, text_template="### {q}: {a}")
    others = [{**rows[3], "about": "y"}, {**rows[4], "a": "yes"}, {**rows[5], "q": "new"}]
    measured = rows_of(tmp_path, "test", others, text_template=template)
    found = list(lint(trained_on, tiny_phi3, tmp_path, [measured]))
    warned = [what for _, what, _ in found if "trained on as well" in what]
    assert warned == ([f"{both} of the 3 rows of test are trained on as well"] if both else [])


def test_rows_that_are_held_out_and_there_twice(tiny_phi3: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "twins", [{"text": f"row {n // 2}"} for n in range(40)])
    step = LoRA(train_data_config=rows, eval_dataset_size=2)
    train, held_out = step.training_rows(), step.evaluation_rows()
    assert train is not None
    assert held_out is not None
    (told,) = [
        found
        for found in lint(train, tiny_phi3, tmp_path, [held_out])
        if "trained on as well" in found[1]
    ]
    assert told == (
        "warning",
        "2 of the 2 rows that are held out of twins are trained on as well",
        "Leave out what is there twice.",
    )


def test_a_users_script_is_named_and_not_run(tiny_phi3: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    data = Dataset(
        name="own",
        load_dataset_config=LoadDataset(data_files=chat_rows(tmp_path, 1, 1)),
        pre_process_data_config=TextPreprocess(user_script=script, text_formatting_func="text"),
    )
    told = [what for _, what, _ in lint(data, tiny_phi3, tmp_path)]
    assert told == ["was not looked at: mine.py runs in its step alone"]
    assert not (tmp_path / "ran").exists()
