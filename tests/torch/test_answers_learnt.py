"""Of pairs and conversations the answers alone are learnt, with the tokens that a prompt has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_tokenizer
from training import lora_step, trained

from drupe.checkpoint.load import load_tokenizer
from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data.strategies import NO_LABEL
from drupe.finetune.lora import samples_of

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho, you."},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "No"},
]


def data_of(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Dataset:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    fields = {"strategy": "line-by-line", "pad_to_max_len": False, "max_seq_len": 200} | fields
    return Dataset(
        name="rows",
        load_dataset_config=LoadDataset(data_files=file),
        pre_process_data_config=TextPreprocess(**fields),
    )


def sampled(data: Dataset, folder: Path, **special: Any) -> tuple[list[Any], list[str]]:
    lines: list[str] = []
    job = Job(folder / "scratch", send=lambda event: lines.append(event["text"]))
    tokenizer = make_tokenizer()
    for name, value in special.items():
        setattr(tokenizer, name, value)
    return samples_of(data, tokenizer, job)[0], lines


def learnt(sample: dict[str, list[int]]) -> str:
    ids = [label for label in sample["labels"] if label != NO_LABEL]
    return str(make_tokenizer().decode(ids))


def test_alpaca_rows_are_recognised_and_their_answers_learnt(tmp_path: Path) -> None:
    rows = [{"instruction": "Say yes.", "input": "", "output": "yes it is"}]
    ((sample,), lines) = sampled(data_of(tmp_path, rows), tmp_path)
    assert lines == ["The rows of rows are read as Alpaca, by their columns."]
    tokenizer = make_tokenizer()
    assert sample["labels"][-1] == tokenizer.eos_token_id, "when to stop is learnt"
    assert learnt(sample).replace(tokenizer.eos_token, "").strip() == "yes it is"
    whole = tokenizer.decode(sample["input_ids"])
    assert "### Instruction:\nSay yes." in whole
    kept = [label for label in sample["labels"] if label != NO_LABEL]
    assert sample["input_ids"][-len(kept) :] == kept


def test_a_pair_has_the_tokens_of_its_text(tmp_path: Path) -> None:
    rows = [{"q": "one two", "a": "three"}]
    fields = {"pair_format": "custom", "input_template": "{q} ", "output_template": "{a}"}
    ((pair,), _) = sampled(data_of(tmp_path, rows, **fields), tmp_path)
    ((text,), _) = sampled(data_of(tmp_path, rows, text_template="{q} {a}"), tmp_path)
    assert pair["input_ids"] == text["input_ids"]
    fields["ignore_source_in_labels"] = False
    ((all_of_it,), _) = sampled(data_of(tmp_path, rows, **fields), tmp_path)
    assert all_of_it["labels"] == text["labels"] == text["input_ids"]


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_of_a_conversation_each_answer_with_its_end(column: str, tmp_path: Path) -> None:
    turns: Any = CHAT
    if column == "conversations":
        names = {"user": "human", "assistant": "gpt"}
        turns = [{"from": names[m["role"]], "value": m["content"]} for m in CHAT]
    data = data_of(tmp_path, [{column: turns}])
    ((sample,), lines) = sampled(data, tmp_path, chat_template=CHATML)
    assert len(lines) == 1, "recognised, and told"
    text = learnt(sample)
    assert text.count("<|end|>") == 2
    for words in ("Ho, you.", "No"):
        assert words in text
    for words in ("Hi", "More", "user"):
        assert words not in text
    rendered = make_tokenizer().decode(sample["input_ids"])
    assert rendered.count("<|assistant|>") == 2
    assert sample["input_ids"].count(make_tokenizer().eos_token_id) == 0, "the template's own end"


def test_of_a_conversation_all_where_it_is_asked_for(tmp_path: Path) -> None:
    data = data_of(tmp_path, [{"messages": CHAT}], ignore_source_in_labels=False)
    ((sample,), _) = sampled(data, tmp_path, chat_template=CHATML)
    assert sample["labels"] == sample["input_ids"]
    ((other,), _) = sampled(data_of(tmp_path, [{"messages": CHAT}]), tmp_path, chat_template=CHATML)
    assert other["input_ids"] == sample["input_ids"], "the same text, whatever is learnt of it"


def test_conversations_join_too(tmp_path: Path) -> None:
    data = data_of(tmp_path, [{"messages": CHAT}] * 5, strategy="join", max_seq_len=16)
    samples, _ = sampled(data, tmp_path, chat_template=CHATML)
    assert len(samples) > 3
    shares = [sum(label != NO_LABEL for label in sample["labels"]) for sample in samples]
    assert 0 < sum(shares) < 16 * len(samples), "some are learnt, some are not"


def test_rows_whose_answer_is_cut_off_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "a b c d e f " * 9, "completion": "x"}]
    data = data_of(tmp_path, rows, strategy="join", joiner=None, max_seq_len=32)
    samples, lines = sampled(data, tmp_path)
    assert any("hold no token of an answer and were left out" in line for line in lines)
    assert len(samples) == 1


@pytest.mark.parametrize(
    ("turns", "template", "words"),
    [
        (CHAT, None, "is needed: the model has no chat template of its own"),
        (CHAT[:1], CHATML, 'row 1: has no message of the role "assistant"'),
        (CHAT, "{{ messages[-1].content }}", "does not write behind its prompt"),
        (CHAT, "{{ raise_exception('roles') }}", "is refused by the chat template: roles"),
        (CHAT, "{% for %}", "is refused by the chat template"),
    ],
)
def test_conversations_that_cannot_be_learnt(
    turns: Any, template: str | None, words: str, tmp_path: Path
) -> None:
    data = data_of(tmp_path, [{"messages": turns}], chat_template=template)
    with pytest.raises(DrupeError, match=words):
        sampled(data, tmp_path)


def script(folder: Path, code: str) -> dict[str, Any]:
    file = folder / "mine.py"
    file.write_text(code)
    return {"user_script": file, "text_formatting_func": "text"}


def test_a_users_function_makes_the_text(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "words_of_mine.py").write_text("END = '!'")
    code = "from words_of_mine import END\ndef text(row): return row['a'].upper() + END"
    fields = script(tmp_path, code) | {"script_dir": tmp_path / "beside"}
    ((sample,), _) = sampled(data_of(tmp_path, [{"a": "oh"}], **fields), tmp_path)
    assert "OH!" in make_tokenizer().decode(sample["input_ids"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1/0", r"mine\.py: cannot be loaded: ZeroDivisionError"),
        ("def other(row): ...", r'mine\.py: has no function "text"'),
        ("def text(row): return row['b']", r"mine\.py: text failed: KeyError: 'b'"),
        ("def text(row): return 3", r"mine\.py: text gave int, not a text"),
    ],
)
def test_a_users_function_that_fails(code: str, words: str, tmp_path: Path) -> None:
    data = data_of(tmp_path, [{"a": "oh"}], **script(tmp_path, code))
    with pytest.raises(DrupeError, match=words):
        sampled(data, tmp_path)


def test_training_on_pairs_learns_their_answers(tiny_phi3: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"number {n}", "completion": "joy"} for n in range(12)]
    data = data_of(tmp_path, rows)
    step = lora_step(tmp_path / "rows.jsonl", {"max_steps": 60, "learning_rate": 2e-2})
    step = step.model_copy(update={"train_data_config": data})
    _, job, _ = trained(step, tiny_phi3, tmp_path)
    losses = [loss for _, loss in job.facts["losses"]]
    assert losses[-1] < losses[0] - 1, "measured 1.7 less: two tokens that are always the same"


def test_a_template_of_the_config_goes_with_what_was_taught_in_it(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    data = data_of(tmp_path, [{"messages": CHAT}], chat_template=CHATML)
    step = lora_step(tmp_path / "rows.jsonl", {"max_steps": 1})
    step = step.model_copy(update={"train_data_config": data})
    adapter, _, _ = trained(step, tiny_phi3, tmp_path)
    assert load_tokenizer(Model("hf", adapter, "")).chat_template == CHATML
