"""What a checkpoint's folder can be seen to lack before anything is loaded from it.

The heads of files only: a folder of 30 shards costs milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drupe.checkpoint.header import AGAIN, headers, read_header
from drupe.core.errors import Refused
from drupe.core.model import PICKLES, check_kind

# Any of these is a tokenizer: of the library `tokenizers`, SentencePiece, tiktoken, or older ones.
TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "*.spm", "vocab.*", "*vocab*.json", "*.tiktoken"),
    *("spiece.model", "sentencepiece*.model", "tekken.json", "merges.txt"),
)
# Classes whose tokens are the bytes or characters themselves.
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")


def check_checkpoint(folder: Path, *, needs_tokenizer: bool = True) -> None:
    """Refuse a folder that is no whole checkpoint, in one sentence with the remedy."""
    _check_is_folder(folder)
    check_no_pickles(folder)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise Refused(
            str(folder),
            "is an adapter, no whole model",
            'Give its base model as "model_path" and this folder as "adapter_path".',
        )
    check_kind("hf", folder)
    _check_config(folder / "config.json")
    check_shards(folder)
    _check_weights(folder)
    if needs_tokenizer:
        _check_tokenizer(folder)


def check_described(folder: Path) -> None:
    """Refuse a folder whose config.json does not say what the weights are; they are elsewhere."""
    _check_is_folder(folder)
    _check_config(folder / "config.json")


def check_no_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are pickles alone."""
    pickles = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise Refused(
            str(folder),
            f"holds its weights as a pickle ({pickles[0].name}), which can run any code",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder) writes safetensors.",
        )


def check_adapter(folder: Path) -> None:
    """Refuse a folder that is no whole PEFT adapter."""
    _check_is_folder(folder)
    check_kind("hf-adapter", folder)
    json_object(folder / "adapter_config.json")
    read_header(folder / "adapter_model.safetensors")


def _check_weights(folder: Path) -> None:
    """Refuse files of weights that are not whole, or that config.json does not describe."""
    config = json_object(folder / "config.json")
    asked = (config.get("vocab_size"), config.get("hidden_size"))
    for spec in headers(folder):
        if not spec.name.endswith("embed_tokens.weight") or len(spec.shape) != 2:
            continue
        if all(isinstance(size, int) for size in asked) and spec.shape != asked:
            raise Refused(
                str(folder / "config.json"),
                f"says vocab_size {asked[0]} and hidden_size {asked[1]}, but the weights have "
                f"{spec.shape[0]} x {spec.shape[1]} ({spec.name})",
                "Give config.json and weights of one model.",
            )


def _check_is_folder(path: Path) -> None:
    if path.is_file():
        raise Refused(str(path), "is a file", "Give the folder of the model.")


def _check_config(file: Path) -> None:
    names = json_object(file).get("architectures")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise Refused(
            str(file),
            'names no "architectures", so nothing tells what the weights are',
            "Give the folder that the model's own save_pretrained wrote.",
        )


def json_object(file: Path) -> dict[str, Any]:
    """Return what a file of JSON holds; raises Refused unless that is an object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        reason = str(fault).partition("\n")[0]
        raise Refused(str(file), f"cannot be read as JSON: {reason}", AGAIN) from fault
    if not isinstance(value, dict):
        raise Refused(str(file), "holds no JSON object", AGAIN)
    return value


def check_shards(folder: Path) -> None:
    """Refuse a folder that lacks a file of weights which its index names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    shards = json_object(index).get("weight_map")
    if not isinstance(shards, dict):
        raise Refused(str(index), 'has no "weight_map"', AGAIN)
    missing = [
        name for name in sorted(set(map(str, shards.values()))) if not (folder / name).is_file()
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Refused(str(folder), f"lacks {missing[0]}{more}, which {index.name} names", AGAIN)


def _check_tokenizer(folder: Path) -> None:
    if any(any(folder.glob(pattern)) for pattern in TOKENIZERS):
        return
    file = folder / "tokenizer_config.json"
    config = json_object(file) if file.is_file() else {}
    if config.get("tokenizer_class") in WITHOUT_VOCABULARY or "auto_map" in config:
        return
    raise Refused(
        str(folder),
        "has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, ...)",
        "Copy the tokenizer's files there, from where the model comes from.",
    )
