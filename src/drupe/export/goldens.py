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

from drupe.checkpoint.load import load_tokenizer
from drupe.core.files import files_below
from drupe.core.job import Job
from drupe.core.libraries import library_version
from drupe.core.model import Model
from drupe.core.process import total_memory_bytes
from drupe.core.target import PROVIDERS

FORMAT = 1
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
# Weights stay as they lie in the file: ONNX Runtime has no fast kernels for them then.
NOT_PREPACKED = {"session.disable_prepacking": "1"}
# The likeliest token must lead by this share of the logits' standard deviation. Processors round
# in other orders, so that one of two tokens as good as equal would be no evidence of anything:
# the golden tokens end before such a place.
LEAD = 0.05


def write_goldens(exported: Model, out: Path, job: Job) -> None:
    """Write out/goldens.json: what the export in `exported` answers on this machine.

    Where it cannot be run here, the digests stand alone, with the reason in "not_run".
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
    except Exception as fault:  # GenAI raises bare exceptions  # noqa: BLE001
        goldens["not_run"] = str(fault).split("\n")[0].replace(str(exported.path), "model")
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


def _answers(exported: Model, job: Job) -> dict[str, Any]:
    if not fits_as_deployed(exported.path):
        raise MemoryError("the model does not fit in the memory of this machine")
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
    prompts = []
    for prompt in PROMPTS:
        ids = _ids(tokenizer, prompt)
        prompts.append({"prompt": prompt, "ids": ids, "tokens": greedy(model, ids)})
    return {"provider": provider, "texts": texts, "prompts": prompts}


def greedy_on_floats(exported: Model, *, large: bool) -> list[tuple[list[int], list[int]]]:
    """Return prompts and their first greedy tokens, quantized weights multiplied in float32.

    That is on the CPU, and slow: of a large model it is less. Empty where it cannot be run.
    """
    config = onnxruntime_genai.Config(str(exported.path))
    config.clear_providers()
    config.overlay(json.dumps({"model": {"decoder": {"session_options": NOT_PREPACKED}}}))
    try:
        model = onnxruntime_genai.Model(config)
        tokenizer = onnxruntime_genai.Tokenizer(model)
        prompts = [_ids(tokenizer, prompt) for prompt in PROMPTS[: 1 if large else None]]
        tokens = NEW_TOKENS_OF_LARGE if large else NEW_TOKENS
        return [(ids, greedy(model, ids, tokens)) for ids in prompts]
    except Exception:  # the goldens say why: this is how they are made  # noqa: BLE001
        return []


def _load(folder: Path) -> tuple[onnxruntime_genai.Model, str]:
    """Return the model on its own provider, or on the CPU where that is not on this machine."""
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    options = settings["model"]["decoder"]["session_options"].get("provider_options") or []
    wanted = next((name.lower() for option in options for name in option), "cpu")
    here = {
        PROVIDERS[name][1] for name in onnxruntime.get_available_providers() if name in PROVIDERS
    }
    config = onnxruntime_genai.Config(str(folder))
    if wanted not in here:
        config.clear_providers()
        wanted = "cpu"
    return onnxruntime_genai.Model(config), wanted


def _ids(tokenizer: onnxruntime_genai.Tokenizer, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text)]


def greedy(
    model: onnxruntime_genai.Model, ids: list[int], new_tokens: int = NEW_TOKENS
) -> list[int]:
    """Return the first greedy tokens after `ids`, as far as each leads clearly."""
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        max_length=len(ids) + new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0
    )
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(ids)
    tokens: list[int] = []
    while not generator.is_done():
        logits = generator.get_logits()[0, -1].astype(np.float64)
        second, first = np.partition(logits, -2)[-2:]
        if not first - second >= LEAD * logits.std():
            break
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens
