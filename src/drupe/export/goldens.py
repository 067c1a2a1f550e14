"""What `verify.py` compares on the target: digests, ids of texts, first greedy tokens.

They are made where the export is proven, by ONNX Runtime GenAI as the target will run it. The
probes are neutral texts of ours: nothing of a user's data is in them.  Heavy file: the worker
imports it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_genai

from drupe.checkpoint.genai_folder import SETTINGS
from drupe.checkpoint.load import load_tokenizer
from drupe.core.errors import DrupeError
from drupe.core.files import files_below
from drupe.core.job import Job
from drupe.core.libraries import library_version
from drupe.core.model import Model
from drupe.core.process import total_memory_bytes
from drupe.core.target import PROVIDERS
from drupe.export.settings import NOT_PREPACKED

FORMAT = 1
CPU = "cpu"
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces,\ttab\nand a new line  ",
    "Zażółć gęślą jaźń, naïve café, Ελληνικά, русский",
    "日本語のテキスト 한국어 العربية",
    "👍🏽 👩‍👩‍👧 🇫🇷 1,234.5 + x² = ½",
)
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was",
    "1, 2, 3, 4,",
    "def add(a, b):\n    return",
)
NEW_TOKENS, NEW_TOKENS_OF_LARGE = 8, 3
# What a model takes in memory whose weights are laid out anew, beside its files; and what share of
# the machine's it may take.
PREPACKED, MEMORY_SHARE = 1.3, 0.6
# The likeliest token must lead by this share of the logits' standard deviation. Processors round
# in other orders, so that one of two tokens as good as equal would be no evidence of anything:
# the golden tokens end before such a place.
LEAD = 0.05


def write_goldens(exported: Model, out: Path, job: Job) -> None:
    """Write out/goldens.json: what the export in `exported` answers on this machine.

    Where it cannot be run here (its device or the memory for it is not here, it takes no tokens or
    gives no logits), the digests stand alone, with the reason in "not_run". Raises DrupeError where
    it does not run on the very provider that it is for.
    """
    goldens: dict[str, Any] = {
        "format": FORMAT,
        "made_with": {name: library_version(name) for name in ("onnxruntime-genai", "onnxruntime")},
        "files": {
            file.relative_to(exported.path).as_posix(): _sha256(file)
            for file in files_below(exported.path)
        },
        "provider": None,
        "not_run": None,
        "texts": [],
        "prompts": [],
        "chat_prompt": chat_prompt(exported, job),
    }
    try:
        goldens |= _answers(exported, job)
    except _NotRunError as fault:
        goldens["not_run"] = str(fault)
    except Exception as fault:  # GenAI raises bare exceptions
        provider, is_here = _provider(exported.path)
        if is_here:
            raise _does_not_run(exported, provider, fault) from fault
        goldens["not_run"] = _in_words(exported, fault)
    text = json.dumps(goldens, indent=1, ensure_ascii=False)
    (out / "goldens.json").write_text(text + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def chat_prompt(exported: Model, job: Job) -> str | None:
    """Return what the model reads when a user says "{Content}"; None without a chat template."""
    tokenizer = load_tokenizer(exported)
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "{Content}"}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as fault:  # a template is a program of the model's publisher  # noqa: BLE001
        job.warn(f"the chat template cannot be used for one message of a user: {fault}")
        return None
    return str(text) if "{Content}" in str(text) else None


def fits_as_deployed(folder: Path) -> bool:
    """Return whether this machine can run an export with its weights laid out anew."""
    size = sum(file.stat().st_size for file in folder.glob("*.onnx*"))
    return PREPACKED * size <= MEMORY_SHARE * total_memory_bytes()


class _NotRunError(Exception):
    """The model cannot be run here, which is no fault of the export."""


def _in_words(exported: Model, fault: Exception) -> str:
    return str(fault).split("\n")[0].replace(str(exported.path), "model")


def _does_not_run(exported: Model, provider: str, fault: Exception) -> DrupeError:
    return DrupeError(
        "ExportProof",
        f"the exported model does not run in ONNX Runtime GenAI on {provider}, which it is for: "
        f"{_in_words(exported, fault)}",
        "Do not use this export: make it again. If that fails too, choose another precision or "
        "version of onnxruntime-genai.",
    )


def _decoder(folder: Path) -> dict[str, Any]:
    """Return what genai_config.json says of the decoder."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    found: dict[str, Any] = settings["model"]["decoder"]
    return found


def _answers(exported: Model, job: Job) -> dict[str, Any]:
    decoder = _decoder(exported.path)
    if "input_ids" not in decoder["inputs"] or "logits" not in decoder["outputs"]:
        raise _NotRunError("the model takes no tokens or gives no logits")
    if not fits_as_deployed(exported.path):
        raise _NotRunError("the model does not fit in the memory of this machine")
    model, provider = _load(exported.path)
    tokenizer = onnxruntime_genai.Tokenizer(model)
    tokenizer.update_options(add_special_tokens="true")  # as in training
    texts = [{"text": text, "ids": _ids(tokenizer, text)} for text in TEXTS]
    theirs = load_tokenizer(exported)
    for golden in texts:
        if golden["ids"] != theirs(golden["text"])["input_ids"]:
            job.note(
                f"ONNX Runtime GenAI and transformers cut {golden['text']!r} into other tokens"
            )
    prompts = [
        {"prompt": prompt, "ids": ids, "tokens": greedy(model, ids)}
        for prompt, ids in _asked(exported.path, tokenizer, NEW_TOKENS)
    ]
    return {"provider": provider, "texts": texts, "prompts": prompts}


def greedy_on_floats(
    exported: Model, job: Job, *, large: bool
) -> list[tuple[list[int], list[int]]]:
    """Return prompts and their first greedy tokens, quantized weights multiplied in float32.

    That is on the CPU, and slow: of a large model it is less. Empty where the model is for another
    provider, and the CPU does not run it; warned of, where that provider is here. Raises DrupeError
    where the model is for the CPU.
    """
    config = onnxruntime_genai.Config(str(exported.path))
    config.clear_providers()
    config.overlay(json.dumps({"model": {"decoder": {"session_options": NOT_PREPACKED}}}))
    tokens = NEW_TOKENS_OF_LARGE if large else NEW_TOKENS
    try:
        model = onnxruntime_genai.Model(config)
        tokenizer = onnxruntime_genai.Tokenizer(model)
        asked = _asked(exported.path, tokenizer, tokens)[: 1 if large else None]
        return [(ids, greedy(model, ids, tokens)) for _, ids in asked]
    except Exception as fault:  # GenAI raises bare exceptions
        provider, is_here = _provider(exported.path)
        if provider == CPU:
            raise _does_not_run(exported, provider, fault) from fault
        if is_here:
            why = _in_words(exported, fault)
            job.warn(f"no greedy tokens were compared with torch's: not run on the CPU: {why}")
        return []


def _asked(
    folder: Path, tokenizer: onnxruntime_genai.Tokenizer, new_tokens: int
) -> list[tuple[str, list[int]]]:
    """Return the prompts, with their ids, behind which the context has room for an answer."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    most = int(settings["model"]["context_length"])
    asked = [(prompt, _ids(tokenizer, prompt)) for prompt in PROMPTS]
    return [(prompt, ids) for prompt, ids in asked if len(ids) + new_tokens <= most]


def _provider(folder: Path) -> tuple[str, bool]:
    """Return the short name of a model's own provider, and whether it is on this machine."""
    options = _decoder(folder)["session_options"].get("provider_options") or []
    wanted = next((name.lower() for option in options for name in option), CPU)
    available = onnxruntime.get_available_providers()
    return wanted, wanted in {PROVIDERS[name][1] for name in available if name in PROVIDERS}


def _load(folder: Path) -> tuple[onnxruntime_genai.Model, str]:
    """Return the model on its own provider, or on the CPU where that is not on this machine."""
    provider, is_here = _provider(folder)
    config = onnxruntime_genai.Config(str(folder))
    if not is_here:
        config.clear_providers()
    return onnxruntime_genai.Model(config), provider if is_here else CPU


def _ids(tokenizer: onnxruntime_genai.Tokenizer, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text)]


def greedy(
    model: onnxruntime_genai.Model, ids: list[int], new_tokens: int = NEW_TOKENS
) -> list[int]:
    """Return the first greedy tokens after `ids`, as far as each leads clearly.

    Raises FloatingPointError for logits that are no numbers: none of them leads.
    """
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        max_length=len(ids) + new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0
    )
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(ids)
    tokens: list[int] = []
    while not generator.is_done():
        logits = generator.get_logits()[0, -1].astype(np.float64)
        if not np.isfinite(logits).all():
            raise FloatingPointError("its logits are not finite")
        second, first = np.partition(logits, -2)[-2:]
        if not first - second >= LEAD * logits.std():
            break
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens
