"""Small tokenizers of the kinds that models have, trained in a tenth of a second each.

    python -m tests.make_tokenizers FOLDER     writes each kind as a folder of its own

How one is read is decided by its files and by the class that its tokenizer_config.json names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PHRASES = Path(__file__).parents[1] / "examples/phi3-emotion/dataset/dataset-classification.json"
TRAINED_TOKENS = 400
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# What a chat model adds: special tokens, and one that is text as any other.
SPECIAL, PLAIN = ("<|user|>", "<|end|>"), "<tool>"
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
END_OF_BYTES = "<|endoftext|>"
# The splits of the models' own tokenizer.json: digits by three (Llama 3) and one by one (Qwen 2).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts() -> list[str]:
    """Return what the tokenizers learn from."""
    rows = [json.loads(line) for line in PHRASES.read_text(encoding="utf-8").splitlines()[:300]]
    return [
        *(f"### Text: {row['phrase']}\n### The tone is:\n{row['tone']}" for row in rows),
        "def total(prices):\n    return sum(prices)\n\tx = 1969 + 384400\n\n",
    ]


def _byte_level_bpe(split: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + TRAINED_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def _split_bytes(digits: str) -> pre_tokenizers.PreTokenizer:
    words = Regex(WORDS.replace("DIGITS", digits))
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def gpt2() -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2 has it: words by ByteLevel's own rule, nothing put before a text."""
    tokenizer = _byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    return _finished(tokenizer, END_OF_BYTES)


def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Llama 3 has it: digits by three, BEGIN before a text."""
    tokenizer = _byte_level_bpe(_split_bytes(r"\p{N}{1,3}"))
    return _finished(tokenizer, END_OF_BYTES, begin=BEGIN)


def qwen2() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen 2 and 3 have it: composed characters, digits one by one."""
    tokenizer = _byte_level_bpe(_split_bytes(r"\p{N}"))
    tokenizer.normalizer = normalizers.NFC()
    return _finished(tokenizer, END_OF_BYTES)


def _sentencepiece_bpe() -> Tokenizer:
    """BPE over ▁ for spaces; a character that it does not know falls into its bytes."""
    learning = Tokenizer(models.BPE(unk_token=UNKNOWN))
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=TRAINED_TOKENS, show_progress=False)
    learning.train_from_iterator(texts(), trainer)
    learnt = json.loads(learning.to_str())["model"]
    vocabulary: dict[str, int] = {}
    for token in (UNKNOWN, BEGIN, END, *BYTES, *learnt["vocab"]):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in learnt["merges"]]
    model = models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def llama2() -> PreTrainedTokenizerFast:
    """SentencePiece BPE as Llama 2 and Phi-3 publish it: a normalizer puts ▁ before a text."""
    tokenizer = _sentencepiece_bpe()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _finished(tokenizer, END, begin=BEGIN, unknown=UNKNOWN)


def gemma() -> PreTrainedTokenizerFast:
    """SentencePiece BPE as Gemma has it: spaces become ▁, nothing is put before a text."""
    tokenizer = _sentencepiece_bpe()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _finished(tokenizer, END, begin=BEGIN, unknown=UNKNOWN)


def _unigram() -> Tokenizer:
    """Return pieces with their log-probabilities, after <pad>, END, UNKNOWN and the bytes."""
    learning = Tokenizer(models.Unigram())
    learning.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=TRAINED_TOKENS, unk_token=UNKNOWN, special_tokens=[UNKNOWN], show_progress=False
    )
    learning.train_from_iterator(texts(), trainer)
    learnt = json.loads(learning.to_str())["model"]["vocab"]
    first = [("<pad>", 0.0), (END, 0.0), (UNKNOWN, 0.0)]
    pieces = [(piece, score) for piece, score in learnt if piece != UNKNOWN]
    return Tokenizer(models.Unigram([*first, *pieces], unk_id=2, byte_fallback=False))


def t5() -> PreTrainedTokenizerFast:
    """Unigram as T5 has it: ▁ before each word, END after a text."""
    tokenizer = _unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return _finished(tokenizer, END, unknown=UNKNOWN)


def _finished(
    tokenizer: Tokenizer, end: str, begin: str | None = None, unknown: str | None = None
) -> PreTrainedTokenizerFast:
    """Return it with its added tokens, as transformers saves it."""
    special = [token for token in (unknown, begin, end, *SPECIAL) if token]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(PLAIN, normalized=False)])
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        unk_token=unknown,
        pad_token=end,
    )


# {name: (how it is made, the class that its tokenizer_config.json names)}
KINDS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], str]] = {
    "gpt2": (gpt2, "GPT2Tokenizer"),
    "llama3": (llama3, "PreTrainedTokenizerFast"),
    "qwen2": (qwen2, "Qwen2Tokenizer"),
    "llama2": (llama2, "PreTrainedTokenizerFast"),
    # transformers 5 puts a Metaspace of its own in the place of a LlamaTokenizer's normalizer.
    "phi3": (llama2, "LlamaTokenizer"),
    "gemma": (gemma, "GemmaTokenizer"),
    "t5": (t5, "T5Tokenizer"),
    "unigram": (t5, "PreTrainedTokenizerFast"),
}


def save(kind: str, folder: Path) -> PreTrainedTokenizerFast:
    """Write a kind as a model's publisher does, its class named; return it."""
    make, class_name = KINDS[kind]
    made = make()
    made.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"tokenizer_class": class_name}, indent=2))
    return made


if __name__ == "__main__":
    for name in KINDS:
        save(name, Path(sys.argv[1]) / name)
