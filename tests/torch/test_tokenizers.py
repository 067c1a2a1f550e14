"""Each kind of tokenizer, exported: ONNX Runtime GenAI reads and writes as transformers does.

Where it does not, the texts are listed here with the reason, and drupe tells of it. A list is
exact: a version that reads a text rightly fails the test as one does that reads another wrongly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export.export_proof import prove
from drupe.export.passes import ExportGenAI, ExportProof
from drupe.export.tokens import open_tokenizer
from tests.make_models import make
from tests.make_tokenizers import KINDS

TEXTS = (
    "",
    "Hello, how are you?",
    "don't we'll I'M",
    " one before",
    "  two before",
    "one after ",
    "two after  ",
    "a  b   c    d",
    " ",
    "   ",
    "one\ntwo\n\nthree\n",
    "one\r\ntwo",
    "\n",
    "one\ttwo\t\tthree",
    "no\u00a0break, zero\u200bwidth",
    "7 42 384400 3.14 x_1 = 1e-5;",
    "naïve café",
    "cafe\u0301",
    "ﬁ ½ Ⅳ ２",
    "😀 👨‍👩‍👧 🇬🇷 👍🏽",
    "Καλημέρα κόσμε, ΩΜΕΓΑ",
    "မင်္ဂလာပါ ကမ္ဘာ",
    "வணக்கம் உலகம்",
    "中文字符，。",
    "<|user|>Hello<|end|>",
    "<|user|>\nHello<|end|>\n<|user|>",
    "<|user|> Hello <|end|> there",
    "A list:\n\n\t- one\n\t- two\n",
    "one<tool>two",
    "one <tool> two",
    "<|user|><tool><|end|>",
    "<|user |> <|us",
)
ADDED = {text for text in TEXTS if "<|end|>" in text or "<tool>" in text}
# A text that transformers reads as beginning with ▁ gets no other; GenAI puts one before it.
BEGINS_WITH_SPACE = {" one before", "  two before", " ", "   "}
# Before SentencePiece BPE that no Split cuts, GenAI cuts between letters and signs: the token "t:",
# which transformers finds here, it never gives.
LETTER_AND_SIGN = {"A list:\n\n\t- one\n\t- two\n"}
READ_OTHERWISE: dict[str, set[str]] = {
    "qwen2": {"cafe\u0301"},  # GenAI composes no characters (NFC)
    "llama2": LETTER_AND_SIGN,
    # transformers 5 puts ▁ before the text alone, GenAI (as tokenizer.json is published) before
    # each piece between added tokens.
    "phi3": LETTER_AND_SIGN | BEGINS_WITH_SPACE | ADDED - {"<|user|><tool><|end|>"},
    # GenAI knows no added tokens of Unigram, ends no empty text, and keeps what T5Tokenizer of
    # transformers 5 takes for spaces.
    "t5": ADDED
    | {"", " ", "   ", "\n", "one\ntwo\n\nthree\n", "one\r\ntwo", "one\ttwo\t\tthree"}
    | {"no\u00a0break, zero\u200bwidth"}
    | LETTER_AND_SIGN,
}
# With the begin of text alone GenAI writes a replacement character.
WRITTEN_OTHERWISE: dict[str, set[str]] = {
    "llama3": {""},
    # One of two spaces goes where a special token stood between them.
    "llama2": {"", "<|user|> Hello <|end|> there", "<|user|>\nHello<|end|>\n<|user|>"},
    "phi3": {"", " ", "<|user|> Hello <|end|> there"},
    "gemma": {""},
    "t5": {"one<tool>two", "one <tool> two", "<|user|><tool><|end|>"},  # <unk> for <tool>
}

# One of the texts of the proof that it finds to be read otherwise.
DIFFERENCE_TOLD = {
    "llama2": "A list:\n\n\t- one\n\t- two\n",
    "phi3": "<|user|>Hello there<|user|>\n",
    "t5": "<|user|>Hello there<|user|>\n",
}


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "unigram"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """A kind, a tiny Llama that has it, and what ModelBuilder made of that."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = make("llama", folder / "checkpoint", tokenizer=request.param)
    out = folder / "out"
    out.mkdir()
    step = ExportGenAI(precision="fp32", target=Target(threads=1))
    step.apply(Model("hf", checkpoint, ""), out, Job(folder / "scratch", threads=1))
    return request.param, checkpoint, out


def test_releases_before_0_14_know_its_class(exported: tuple[str, Path, Path]) -> None:
    """They load none that is named TokenizersBackend (docs/deploy.md)."""
    kind, checkpoint, out = exported
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == KINDS[kind][1]
    theirs, ours = (AutoTokenizer.from_pretrained(folder) for folder in (checkpoint, out))
    assert type(ours) is type(theirs)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == ids
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_is_as_it_was(legacy: bool, tmp_path: Path) -> None:
    checkpoint = make("llama", tmp_path / "checkpoint", tokenizer="phi3")
    file = checkpoint / "tokenizer_config.json"
    published = json.loads(file.read_text()) | {"legacy": legacy, "add_bos_token": True}
    file.write_text(json.dumps(published))
    out = tmp_path / "out"
    out.mkdir()
    step = ExportGenAI(precision="fp32", target=Target(threads=1))
    step.apply(Model("hf", checkpoint, ""), out, Job(tmp_path / "scratch", threads=1))
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["legacy"] is legacy
    assert settings["tokenizer_class"] == "LlamaTokenizer"


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_a_setting_without_effect_in_training_has_none_when_deployed(
    kind: str, tmp_path: Path
) -> None:
    """GPT2Tokenizer of transformers 5 puts nothing before a text, whatever add_bos_token says."""
    checkpoint = make("llama", tmp_path / "checkpoint", tokenizer=kind)
    file = checkpoint / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_bos_token": True}))
    out = tmp_path / "out"
    out.mkdir()
    step = ExportGenAI(precision="fp32", target=Target(threads=1))
    step.apply(Model("hf", checkpoint, ""), out, Job(tmp_path / "scratch", threads=1))
    theirs, ours = AutoTokenizer.from_pretrained(checkpoint), open_tokenizer(out)
    assert ours.encode("Hello").tolist() == theirs("Hello")["input_ids"]


def test_texts_are_read_alike(exported: tuple[str, Path, Path]) -> None:
    kind, checkpoint, out = exported
    tokenizer, deployed = AutoTokenizer.from_pretrained(checkpoint), open_tokenizer(out)
    theirs = {text: tokenizer(text)["input_ids"] for text in TEXTS}
    ours = {text: deployed.encode(text).tolist() for text in TEXTS}
    assert {text for text in TEXTS if ours[text] != theirs[text]} == READ_OTHERWISE.get(kind, set())
    if kind == "t5":
        return
    published = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    if kind == "qwen2":
        published.normalizer = None
    for text in set(TEXTS) - LETTER_AND_SIGN:  # what the reasons above say, to the token
        assert ours[text] == published.encode(text).ids


def test_tokens_are_written_alike(exported: tuple[str, Path, Path]) -> None:
    kind, checkpoint, out = exported
    tokenizer, deployed = AutoTokenizer.from_pretrained(checkpoint), open_tokenizer(out)
    ids = {text: tokenizer(text)["input_ids"] for text in TEXTS}
    theirs = {text: tokenizer.decode(ids[text], skip_special_tokens=True) for text in TEXTS}
    ours = {text: deployed.decode(ids[text]) for text in TEXTS}
    differ = {text for text in TEXTS if ours[text] != theirs[text]}
    assert differ == WRITTEN_OTHERWISE.get(kind, set())


def test_an_answer_is_written_piece_by_piece(exported: tuple[str, Path, Path]) -> None:
    """Characters of several tokens too: what `drupe chat` prints."""
    _, checkpoint, out = exported
    tokenizer, deployed = AutoTokenizer.from_pretrained(checkpoint), open_tokenizer(out)
    tried = 0
    for text in set(TEXTS) - ADDED:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = deployed.create_stream()
        written = "".join(pieces.decode(token) for token in ids)
        if tokenizer.unk_token_id not in ids:  # GenAI writes nothing for it
            assert written.lstrip(" ") == tokenizer.decode(ids).lstrip(" ")
            tried += 1
    assert tried > 8


def test_the_proof_tells_what_is_read_otherwise(
    exported: tuple[str, Path, Path], tmp_path: Path
) -> None:
    kind, checkpoint, out = exported
    events: list[dict[str, Any]] = []
    job = Job(tmp_path, threads=1, send=events.append)
    prove(ExportProof(), Model("onnx-genai", out, ""), Model("hf", checkpoint, ""), tmp_path, job)
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["passed"]
    told = [event["text"] for event in events if event["event"] == "warning"]
    differences = score["token_differences"]
    text = DIFFERENCE_TOLD.get(kind)
    if text is None:
        assert differences == []
        assert told == []
        return
    (found,) = (each for each in differences if each["text"] == text)
    assert found["checkpoint"] == AutoTokenizer.from_pretrained(checkpoint)(text)["input_ids"]
    assert found["deployed"] == open_tokenizer(out).encode(text).tolist()
    for each, line in zip(differences[:3], told[:3], strict=True):
        assert f"reads {each['text']!r} as {each['deployed']}, " in line
        assert f"tokenizer as {each['checkpoint']}: the deployed model" in line
    if len(differences) > 3:
        assert f"So it is with {len(differences) - 3} more" in told[3]


def test_a_kind_that_is_not_read_is_refused(tmp_path: Path) -> None:
    checkpoint = make("llama", tmp_path / "checkpoint", tokenizer="unigram")
    step = ExportGenAI(precision="fp32", target=Target(threads=1))
    (tmp_path / "out").mkdir()
    with pytest.raises(DrupeError, match="of a kind that ONNX Runtime GenAI does not read"):
        step.apply(Model("hf", checkpoint, ""), tmp_path / "out", Job(tmp_path / "scratch"))
