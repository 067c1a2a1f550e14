"""What a checkpoint's folder can be seen to lack before anything is loaded from it.

Standard library only, and the heads of files only: a folder of 30 shards costs milliseconds.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from drupe.core.errors import Refused
from drupe.core.model import PICKLES, check_kind

# Any of these is a tokenizer: of the library `tokenizers`, SentencePiece, tiktoken, or older ones.
TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "*.spm", "vocab.*", "*vocab*.json", "*.tiktoken"),
    *("spiece.model", "sentencepiece*.model", "tekken.json", "merges.txt"),
)
# Classes whose tokens are the bytes or characters themselves.
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
# The same limit as safetensors' own reader has.
HEADER_BYTES_MOST = 100_000_000
AGAIN = "Copy or download the model again."


def check_checkpoint(folder: Path, *, needs_tokenizer: bool = True) -> None:
    """Refuse a folder that is no whole checkpoint, in one sentence with the remedy."""
    _check_is_folder(folder)
    pickles = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise Refused(
            str(folder),
            f"holds its weights as a pickle ({pickles[0].name}), which can run any code",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder) writes safetensors.",
        )
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise Refused(
            str(folder),
            "is an adapter, no whole model",
            'Give its base model as "model_path" and this folder as "adapter_path".',
        )
    check_kind("hf", folder)
    _check_config(folder / "config.json")
    _check_shards(folder)
    for file in sorted(folder.glob("*.safetensors")):
        check_safetensors(file)
    if needs_tokenizer:
        _check_tokenizer(folder)


def check_adapter(folder: Path) -> None:
    """Refuse a folder that is no whole PEFT adapter."""
    _check_is_folder(folder)
    check_kind("hf-adapter", folder)
    _json_object(folder / "adapter_config.json")
    check_safetensors(folder / "adapter_model.safetensors")


def check_safetensors(file: Path) -> None:
    """Refuse a file of weights whose header does not fit its size: it was cut short, or is none.

    Eight bytes of length, a header in JSON, and the tensors up to the last byte:
    https://huggingface.co/docs/safetensors/index#format
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if start == b"version ":
            raise Refused(str(file), "is a pointer of Git LFS, not the file", "git lfs pull")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, HEADER_BYTES_MOST):
            raise Refused(str(file), "is no whole safetensors file: it has no header", AGAIN)
        written = opened.read(length)
    try:
        ends = [
            entry["data_offsets"][1]
            for name, entry in json.loads(written).items()
            if name != "__metadata__"
        ]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as fault:
        what = "is no whole safetensors file: its header cannot be read"
        raise Refused(str(file), what, AGAIN) from fault
    if expected != size:
        what = f"is {size} bytes long, but its header tells of {expected}"
        raise Refused(str(file), what, AGAIN)


def _check_is_folder(path: Path) -> None:
    if path.is_file():
        raise Refused(str(path), "is a file", "Give the folder of the model.")


def _check_config(file: Path) -> None:
    names = _json_object(file).get("architectures")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise Refused(
            str(file),
            'names no "architectures", so nothing tells what the weights are',
            "Give the folder that the model's own save_pretrained wrote.",
        )


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        reason = str(fault).partition("\n")[0]
        raise Refused(str(file), f"cannot be read as JSON: {reason}", AGAIN) from fault
    if not isinstance(value, dict):
        raise Refused(str(file), "holds no JSON object", AGAIN)
    return value


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    shards = _json_object(index).get("weight_map")
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
    config = _json_object(file) if file.is_file() else {}
    if config.get("tokenizer_class") in WITHOUT_VOCABULARY or "auto_map" in config:
        return
    raise Refused(
        str(folder),
        "has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, ...)",
        "Copy the tokenizer's files there, from where the model comes from.",
    )
