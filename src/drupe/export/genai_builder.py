"""Export by ONNX Runtime GenAI's own model builder.

The builder is run by its documented entry, `python -m onnxruntime_genai.models.builder`, but in
this process: a worker is a forked child in which torch and transformers are loaded, so a tiny
model takes 1 s instead of 5 s. The builder needs the whole model in memory.  Heavy file: the
worker imports it.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime_genai
import torch

from drupe.checkpoint.load import runs_remote_code, tell_about_code
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.export.folder import check_no_path_left, check_result, finish_tokenizer, incomplete
from drupe.export.passes import ExportGenAI

WHERE = "ModelBuilder"
ENTRY = "onnxruntime_genai.models.builder"
# What generation_config.json may say, GenAI's search knows, and the builder (0.18) does not carry
# over: it takes the sampling settings and the special tokens alone.
CARRIED_SETTINGS = ("repetition_penalty", "no_repeat_ngram_size", "length_penalty")


def export(step: ExportGenAI, model: Model, out: Path, job: Job) -> None:
    """Write the checkpoint `model` as an ONNX Runtime GenAI folder into `out`.

    Raises DrupeError when the builder does not know the architecture or fails, and when what it
    wrote does not load and answer (its exit code is 0 either way).
    """
    architecture = _architecture(model.path)
    tell_about_code(model, job)
    cache = job.scratch / "builder-cache"
    torch.set_num_threads(job.threads)
    _run_builder(_arguments(step, model, out, cache), architecture)
    shutil.rmtree(cache, ignore_errors=True)
    graph = _finish_settings(step, model.path, out)
    finish_tokenizer(model.path, out)
    check_no_path_left(out, (model.path, out, job.scratch))
    job.facts["size_bytes"] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    check_result(step, graph, out, job)


def _architecture(checkpoint: Path) -> str:
    """Return the class name that the checkpoint's config.json gives its architecture."""
    names = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get(
        "architectures"
    )
    if not names:
        raise DrupeError(
            WHERE,
            f"{checkpoint / 'config.json'} names no architecture",
            'Add "architectures": ["<class>"] as the model\'s publisher has it.',
        )
    return str(names[0])


def _arguments(step: ExportGenAI, model: Model, out: Path, cache: Path) -> list[str]:
    """Return the builder's command line, in the words of onnxruntime-genai 0.18."""
    options = {"hf_remote": "true"} if runs_remote_code(model) else {}
    if step.precision in ("int4", "int8"):
        # Up to 0.17 these were `int4_block_size` and `int4_accuracy_level`.
        options["block_size"] = str(step.int4_block_size)
        if step.int4_accuracy_level is not None:
            options["accuracy_level"] = str(step.int4_accuracy_level)
    for name in ("exclude_embeds", "exclude_lm_head"):
        if getattr(step, name):
            options[name] = "true"
    arguments = ["-i", str(model.path), "-o", str(out), "-c", str(cache)]
    arguments += ["-p", step.precision, "-e", step.target.short_provider]
    if options:
        arguments += ["--extra_options", *(f"{key}={value}" for key, value in options.items())]
    return arguments


def _run_builder(arguments: list[str], architecture: str) -> None:
    try:
        with _command_line(arguments):
            runpy.run_module(ENTRY, run_name="__main__")
    except NotImplementedError as fault:
        raise DrupeError(
            WHERE,
            f"onnxruntime-genai {onnxruntime_genai.__version__} does not export {architecture}: "
            f"{fault}",
            "Choose a model of an architecture that its builder knows, or a newer "
            "onnxruntime-genai.",
        ) from fault
    except MemoryError:
        raise  # the worker has words for it
    except SystemExit as fault:
        if fault.code not in (None, 0):
            raise DrupeError(
                WHERE,
                f"the builder of onnxruntime-genai {onnxruntime_genai.__version__} refused its "
                f"arguments ({fault.code}): {' '.join(arguments)}",
                "See the step's log; install the onnxruntime-genai that drupe names.",
            ) from fault
    except Exception as fault:
        raise DrupeError(
            WHERE,
            f"the builder failed on {architecture}: {type(fault).__name__}: {fault}",
            "See the step's log for where; try another precision or a newer onnxruntime-genai.",
        ) from fault


@contextlib.contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """Have sys.argv hold `arguments`, and git find no repository, for the time of the context.

    The builder stamps the graph with the commit of whatever git repository encloses the
    installation (a virtual environment inside the user's project), so that the same model would
    have other bytes after each commit. Without a repository it takes its own version.
    """
    before, git = sys.argv, os.environ.get("GIT_DIR")
    sys.argv = [ENTRY, *arguments]
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        sys.argv = before
        if git is None:
            del os.environ["GIT_DIR"]
        else:
            os.environ["GIT_DIR"] = git


def _finish_settings(step: ExportGenAI, checkpoint: Path, out: Path) -> Path:
    """Complete genai_config.json in `out`; return the path of the ONNX graph that it names.

    Without a thread count ONNX Runtime GenAI uses one thread: half the speed on two cores.
    """
    file = out / "genai_config.json"
    if not file.is_file():
        raise incomplete("genai_config.json")
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    decoder = settings["model"]["decoder"]
    if step.target.threads is not None:
        decoder["session_options"]["intra_op_num_threads"] = step.target.threads
    generation = checkpoint / "generation_config.json"
    if generation.is_file():
        wanted = json.loads(generation.read_text(encoding="utf-8"))
        for name in CARRIED_SETTINGS:
            if wanted.get(name) is not None:
                settings["search"][name] = wanted[name]
    file.write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")
    graph: Path = out / decoder["filename"]
    for name in (graph.name, "tokenizer.json"):
        if not (out / name).is_file():
            raise incomplete(name)
    return graph
