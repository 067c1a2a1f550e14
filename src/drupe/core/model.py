"""A model is a folder; its kind says what lies in the folder."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.errors import Refused


@dataclass(frozen=True)
class Kind:
    """What a folder of this kind is, and the files without which it is none (glob patterns)."""

    meaning: str
    needs: tuple[str, ...]
    has_base: bool = False
    on_target: bool = False  # runs on the target's provider alone


KINDS: dict[str, Kind] = {
    "hf": Kind("Hugging Face checkpoint", ("config.json", "*.safetensors")),
    "hf-adapter": Kind("PEFT adapter", ("adapter_config.json", "adapter_model.safetensors"), True),
    "onnx-genai": Kind(
        "ONNX model for ONNX Runtime GenAI", ("genai_config.json", "*.onnx"), on_target=True
    ),
    "files": Kind("folder of files", ("*",)),
    "score": Kind("measured score", ("score.json",)),
}

# What of a checkpoint's folder is the model, as paths in it: what is downloaded, what its digest
# is made of, and more than what is delivered with a merged model. Caches and pictures are not,
# and never a pickle, whatever its name.
MODEL_FILES = (
    *("*.json", "*.safetensors", "*.model", "*.spm", "*.tiktoken", "*.txt", "*.jinja", "*.py"),
    *("vocab.*", "tokenizer*", "LICENSE*", "NOTICE*"),
)
MORE_TEMPLATES = "additional_chat_templates"
# What of them a tokenizer is: its files are copied as they are, never written anew. What
# transformers 5 writes lacks settings of the original (`legacy` of a LlamaTokenizer).
TOKENIZER_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("*.model", "*.spm", "*.tiktoken", "chat_template*"),
)
HUB = "hub:"  # begins the address of a model on the Hub
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")


@dataclass(frozen=True)
class Model:
    """A folder of a known kind with the digest of its content.

    An adapter is nothing without the model that it was trained on: that is its `base`.
    remote_code: the config allows the model's own Python code to run. step: of a model that is not
    there yet, the key of the step that makes it in the same job; its path says nothing then.
    source: of a model that is brought to where its steps run from elsewhere: its address,
    "hub:OWNER/NAME@COMMIT" or AzureML's. Here are its small files at most; no part of a spec.
    """

    kind: str
    path: Path
    digest: str
    base: Model | None = None
    remote_code: bool = False
    step: str | None = None
    source: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the model as plain JSON values, for a step's spec."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "digest": self.digest,
            "base": self.base.to_json() if self.base else None,
            "remote_code": self.remote_code,
            "step": self.step,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Model:
        """Return the model that `to_json` wrote."""
        base = cls.from_json(value["base"]) if value["base"] else None
        return cls(
            value["kind"],
            Path(value["path"]),
            value["digest"],
            base,
            value["remote_code"],
            value["step"],
        )


def missing_files(kind: str, folder: Path) -> list[str]:
    """Return which of the files that `kind` needs are not in `folder`."""
    if not folder.is_dir():
        return list(KINDS[kind].needs)
    return [pattern for pattern in KINDS[kind].needs if not any(folder.glob(pattern))]


def check_kind(kind: str, folder: Path) -> None:
    """Raise Refused unless `folder` holds what its kind needs."""
    missing = missing_files(kind, folder)
    if missing:
        raise Refused(
            str(folder),
            f"is not a {KINDS[kind].meaning} ({kind}): it lacks {', '.join(missing)}",
            "Give the folder that holds the model itself.",
        )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's or an adapter's folder that are the model, sorted."""
    found = [path for path in folder.iterdir() if _is_model_file(path.name)]
    found += (folder / MORE_TEMPLATES).glob("*.jinja")
    return sorted(path for path in found if path.is_file())


def tokenizer_files(folder: Path) -> list[Path]:
    """Return those of `model_files` that are the tokenizer and its chat templates."""
    return [path for path in model_files(folder) if _is_tokenizer_file(path)]


def _is_tokenizer_file(path: Path) -> bool:
    named = any(fnmatch.fnmatchcase(path.name, pattern) for pattern in TOKENIZER_FILES)
    return named or path.parent.name == MORE_TEMPLATES


def _is_model_file(name: str) -> bool:
    wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    return wanted and not name.endswith(PICKLES)
