"""Whether the deployed model reads the tokens that its checkpoint was trained on.

ONNX Runtime GenAI has tokenizers of its own. Seen with 0.18, beside transformers 5 (each of it in
tests/torch/test_tokenizers.py): it composes no characters (NFC); it puts ▁ before each piece of
text between added tokens, where LlamaTokenizer puts it before the first alone; it cuts
SentencePiece BPE between letters and signs; it knows no added tokens of Unigram models.  Heavy
file: the worker imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime_genai

from drupe.checkpoint.load import load_tokenizer
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model

TEXTS = (
    "Hello, how are you?",
    " a space before",
    "two  spaces, and one after ",
    "A list:\n\n\t- one\n\t- two\n",
    "naïve Ωμέγα 日本語 🙂",
    "In 1969, 384,400 km; x_1 = 3.14e-5",
)
MOST_ADDED = 4  # of the tokens that were added: the markers of turns, as a rule
MOST_TOLD = 3
Difference = dict[str, Any]  # text, deployed (ids), checkpoint (ids)


def open_tokenizer(folder: Path) -> Any:
    """Return ONNX Runtime GenAI's tokenizer of an exported folder; no weights are loaded.

    Raises DrupeError for a kind of tokenizer that it does not read.
    """
    try:
        found = onnxruntime_genai.Tokenizer(onnxruntime_genai.Config(str(folder)))
    except Exception as fault:
        raise DrupeError(
            "tokenizer.json",
            f"is of a kind that ONNX Runtime GenAI does not read: {fault}",
            "Choose a model with a BPE tokenizer, of bytes or of SentencePiece.",
        ) from fault
    found.update_options(add_special_tokens="true")  # 0.18 leaves them out by itself
    return found


def token_differences(exported: Path, checkpoint: Model) -> list[Difference]:
    """Return the probe texts that the deployed model reads otherwise than the checkpoint does."""
    deployed = open_tokenizer(exported)
    tokenizer = load_tokenizer(checkpoint)
    differences = []
    for text in (*TEXTS, *_with_added(tokenizer)):
        ours = [int(token) for token in deployed.encode(text)]
        theirs = list(tokenizer(text)["input_ids"])
        if ours != theirs:
            differences.append({"text": text, "deployed": ours, "checkpoint": theirs})
    return differences


def tell(differences: list[Difference], job: Job) -> None:
    """Warn of each text that is read otherwise; of many, name the first few."""
    for found in differences[:MOST_TOLD]:
        job.warn(
            f"ONNX Runtime GenAI reads {found['text']!r} as {found['deployed']}, the checkpoint's "
            f"tokenizer as {found['checkpoint']}: the deployed model is given other tokens than "
            "it was trained on."
        )
    if len(differences) > MOST_TOLD:
        more = len(differences) - MOST_TOLD
        job.warn(f"So it is with {more} more of the texts that were tried (report.json has them).")


def _with_added(tokenizer: Any) -> list[str]:
    """Return a text around each of a few added tokens, those of the chat template first."""
    ends = {*(tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)}
    added = [token for token in tokenizer.get_added_vocab() if token not in ends]
    template = str(tokenizer.chat_template or "")
    added.sort(key=lambda token: (token not in template, tokenizer.convert_tokens_to_ids(token)))
    return [f"{token}Hello there{token}\n" for token in added[:MOST_ADDED]]
