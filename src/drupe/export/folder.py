"""What every exported folder is checked for and given, whoever wrote its graph.

Only what loads and answers counts: a graph that is valid on paper may run nowhere.  Heavy file:
the worker imports it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_genai

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.export.passes import ExportGenAI
from drupe.export.settings import NOT_PREPACKED
from drupe.export.tokens import open_tokenizer

WHERE = "ModelBuilder"
PROBE_PROMPT = "Hello, how are you?"
PROBE_TOKENS = 4
# A larger model is loaded and not run: the runtime takes more memory for it than the export did.
# Its proof has it answer, as a step with an estimate of its own.
ANSWERS_BYTES = 2**28
# A class that transformers 5 writes, by the name that both it and onnxruntime-genai before 0.14
# read alike.
CLASSIC_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
# What transformers 5 leaves out as it writes a tokenizer, although another version of it reads
# otherwise without. Not `add_bos_token`: transformers 5 takes no heed of it in some classes, so
# that GenAI, which does, would read otherwise than the model was trained.
CARRIED_TOKENIZER_SETTINGS = ("legacy",)


def finish_tokenizer(checkpoint: Path, out: Path) -> None:
    """Have the tokenizer read by older runtimes too, with the settings that it came with."""
    theirs, ours = checkpoint / "tokenizer_config.json", out / "tokenizer_config.json"
    if not ours.is_file():
        raise incomplete(ours.name)
    settings: dict[str, Any] = json.loads(ours.read_text(encoding="utf-8"))
    named = str(settings["tokenizer_class"])
    settings["tokenizer_class"] = CLASSIC_CLASSES.get(named, named)
    published = json.loads(theirs.read_text(encoding="utf-8")) if theirs.is_file() else {}
    for name in CARRIED_TOKENIZER_SETTINGS:
        if name in published:
            settings.setdefault(name, published[name])
    ours.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (checkpoint / "chat_template.jinja").is_file():
        # transformers writes it too; a template that it did not read would be lost in silence.
        shutil.copyfile(checkpoint / "chat_template.jinja", out / "chat_template.jinja")


def check_no_path_left(out: Path, folders: tuple[Path, ...]) -> None:
    """Raise DrupeError if a file (weights aside) tells where it was made."""
    # A folder right below the root ("/model") is a word that names of nodes and tokens hold too.
    named = [folder.absolute() for folder in folders if len(folder.absolute().parts) > 2]
    words = [str(folder).encode() for folder in named]
    for file in out.rglob("*"):
        if file.is_file() and file.suffix != ".data":
            content = file.read_bytes()
            for word in words:
                if word in content:
                    raise DrupeError(
                        WHERE,
                        f"{file.name} holds a path of this machine ({word.decode()})",
                        "Remove the path from the checkpoint's own files; otherwise report it.",
                    )


def check_result(step: ExportGenAI, graph: Path, out: Path, job: Job) -> None:
    """Load and run what was written where this machine can; elsewhere check the graph."""
    tokenizer = open_tokenizer(out)
    if step.exclude_embeds or step.exclude_lm_head:
        _check_graph(step, graph)
        job.note("export: the graph is valid; a model without embeddings or head is not run")
    elif step.target.provider in onnxruntime.get_available_providers():
        if sum(file.stat().st_size for file in out.glob("*.onnx*")) <= ANSWERS_BYTES:
            job.facts["probe_tokens"] = _answer(step, out, tokenizer)
        else:
            _load(step, out)
    else:
        _check_graph(step, graph)
        job.note(
            f"export: the graph is valid; not run: {step.target.provider} is not on this machine"
        )


def _answer(step: ExportGenAI, out: Path, tokenizer: Any) -> list[int]:
    """Return the ids of a few greedy tokens that GenAI gives; raise DrupeError if it cannot."""
    try:
        model = onnxruntime_genai.Model(str(out))
        prompt = tokenizer.encode(PROBE_PROMPT)
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + PROBE_TOKENS, do_sample=False)
        generator = onnxruntime_genai.Generator(model, parameters)
        generator.append_tokens(prompt)
        finite = bool(np.isfinite(generator.get_logits()).all())
        while not generator.is_done():
            generator.generate_next_token()
    except Exception as fault:
        raise _does_not_load(step, str(fault)) from fault
    if not finite:
        raise _does_not_load(step, "its logits are not finite")
    return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]


def _load(step: ExportGenAI, out: Path) -> None:
    """Have GenAI load the folder, its weights mapped to their file."""
    try:
        config = onnxruntime_genai.Config(str(out))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": NOT_PREPACKED}}}))
        onnxruntime_genai.Model(config)
    except Exception as fault:
        raise _does_not_load(step, str(fault)) from fault


def _check_graph(step: ExportGenAI, graph: Path) -> None:
    """Raise DrupeError unless ONNX Runtime takes `graph` for valid, whoever may run it.

    A session on the CPU resolves every node and type, contrib operators included (onnx.checker
    knows none of them). A kernel that the CPU lacks is no fault of the graph.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as fault:
        if "NOT_IMPLEMENTED" not in str(fault):
            raise _does_not_load(step, str(fault)) from fault


def _does_not_load(step: ExportGenAI, why: str) -> DrupeError:
    return DrupeError(
        WHERE,
        f"{step.precision} for {step.target.provider} was written, but does not run: {why}",
        "Choose another precision or another version of onnxruntime-genai; the model itself is "
        "not at fault.",
    )


def incomplete(name: str) -> DrupeError:
    """Return the error for a folder that lacks a file."""
    return DrupeError(
        WHERE,
        f"the export ended without a word, but wrote no {name}",
        "See the step's log. The checkpoint needs a tokenizer of its own (tokenizer.json).",
    )
