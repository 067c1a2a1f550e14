"""Time the answers of a model, and beside it those of a baseline, in turns.

MODEL is a run's output folder, the folder of an ONNX Runtime GenAI model, or a
checkpoint (which answers in torch). Each is loaded in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe import __version__
from drupe.cli.chat import model_below
from drupe.core.errors import Refused
from drupe.core.libraries import library_version
from drupe.core.machine import speed_class
from drupe.core.model import Model, missing_files
from drupe.core.process import usable_cores
from drupe.evaluate.answer_times import latency_numbers, ratios, throughput_numbers
from drupe.evaluate.spread import Estimate
from drupe.evaluate.timed import Asked, Generation, Timed, in_turns
from drupe.report.words import size
from drupe.systems.worker import ENVIRONMENT

EXAMPLES = """\
  drupe benchmark models/phi3-emotion
  drupe benchmark int4/ --baseline fp32/ --prompt-length 256
"""
HEAD = ("", "first token", "per token", "tokens/s", "peak memory", "size")
RATIOS = {"first_token": "first token", "per_token": "per token", "latency": "whole answer"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe benchmark`."""
    usual = Asked()
    parser.add_argument("model", metavar="MODEL", type=Path, help="what to time")
    parser.add_argument("--baseline", metavar="MODEL", type=Path, help="time it beside this one")
    for option, default, what in (
        ("prompt-length", usual.prompt_length, "tokens of the prompt"),
        ("new-tokens", usual.new_tokens, "tokens of an answer"),
        ("repeats", usual.repeats, "answers that count; from six on there are intervals"),
        ("warm-ups", usual.warm_ups, "answers before those"),
    ):
        told = f"{what} ({default}, unless said)"
        parser.add_argument(f"--{option}", metavar="N", type=int, default=default, help=told)
    parser.add_argument(
        "--max-seconds", metavar="S", type=float, default=usual.most_seconds,
        help=f"after which no further answer is begun ({usual.most_seconds:.0f}, unless said)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")


@dataclass(frozen=True)
class _Measured:
    """One model with what its process took."""

    name: str
    path: Path
    answers: list[Generation]
    peak: int
    size: int

    def to_json(self, prompt_length: int) -> dict[str, Any]:
        return {
            "model": str(self.path),
            "latency_ms": _json(latency_numbers(self.answers)),
            "tokens_per_second": _json(throughput_numbers(self.answers, prompt_length)),
            "peak_memory_bytes": self.peak or None,
            "size_bytes": self.size,
            "seconds": [[each.first, *each.others] for each in self.answers],
        }


def run(arguments: argparse.Namespace) -> int:
    """Time the answers, print them; return 0."""
    asked = _asked(arguments)
    named = {"model": arguments.model, "baseline": arguments.baseline}
    models = {name: _model(path) for name, path in named.items() if path is not None}
    measured = _measure(models, asked, show=not arguments.json and sys.stderr.isatty())
    compared = ratios(*(each.answers for each in measured)) if len(measured) == 2 else {}
    if arguments.json:
        told = {
            "drupe": __version__,
            "prompt_length": asked.prompt_length,
            "new_tokens": asked.new_tokens,
            "machine": speed_class(),
            "libraries": {name: library_version(name) for name in _libraries(models)},
            **{each.name: each.to_json(asked.prompt_length) for each in measured},
            "ratios": _json(compared),
        }
        print(json.dumps(told, indent=2))
        return 0
    print("\n".join(_aligned([HEAD, *(_row(each) for each in measured)])))
    if compared:
        print("\nmodel / baseline, round by round in turns (below 1: the model is faster):")
        for name, words in RATIOS.items():
            print(f"  {words:<12}  {_interval(compared[name], '.3g')}")
    print(f"\n{_conditions(asked, models, len(measured[0].answers))}")
    return 0


def _asked(arguments: argparse.Namespace) -> Asked:
    least = {"prompt_length": 1, "new_tokens": 2, "repeats": 1, "warm_ups": 0}
    for name, count in least.items():
        given = getattr(arguments, name)
        if given < count:
            option = f"--{name.replace('_', '-')}"
            raise Refused(option, f"is {given}, and at least {count} is needed", "Give more.")
    return Asked(
        prompt_length=arguments.prompt_length,
        new_tokens=arguments.new_tokens,
        repeats=arguments.repeats,
        warm_ups=arguments.warm_ups,
        most_seconds=arguments.max_seconds,
    )


def _model(path: Path) -> Model:
    """Return what lies at a path: a checkpoint, or a GenAI model that it is or holds."""
    if path.is_dir() and not missing_files("hf", path):
        model = Model("hf", path.absolute(), "")
    else:
        model = Model("onnx-genai", model_below(path).absolute(), "")
    missing = [name for name in _libraries({"": model}) if library_version(name) is None]
    if missing:
        remedy = 'pip install "drupe[cpu]"'
        raise Refused("drupe benchmark", f"needs {', '.join(missing)}, which is not here", remedy)
    return model


def _libraries(models: dict[str, Model]) -> list[str]:
    of_kind = {"hf": ("torch", "transformers"), "onnx-genai": ("onnxruntime-genai", "onnxruntime")}
    return list(dict.fromkeys(name for each in models.values() for name in of_kind[each.kind]))


def _measure(models: dict[str, Model], asked: Asked, *, show: bool) -> list[_Measured]:
    environment = {**os.environ, **ENVIRONMENT}  # as in a worker: threads that wait do not spin
    with ExitStack() as opened:
        timed = [
            opened.enter_context(Timed(each, usable_cores(), environment))
            for each in models.values()
        ]

        def tell(done: int) -> None:
            if show:
                print(f"\r{done} of {asked.repeats} rounds ", end="", file=sys.stderr, flush=True)

        answers = in_turns(timed, asked, tell)
    if show:
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
    return [
        _Measured(name, model.path, each, process.peak, _size(model.path))
        for (name, model), each, process in zip(models.items(), answers, timed, strict=True)
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _json(found: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in found.items()}


def _row(measured: _Measured) -> tuple[str, ...]:
    times = latency_numbers(measured.answers)
    rate = throughput_numbers(measured.answers, 1)["p50"]
    return (
        measured.name,
        _interval(times["first_token"], ".3g", " ms"),
        _interval(times["per_token"], ".3g", " ms"),
        _interval(rate, ".3g"),
        size(measured.peak) if measured.peak else "not told",
        size(measured.size),
    )


def _interval(estimate: Estimate, form: str, unit: str = "") -> str:
    """Return a median with its 95 % interval; one without is marked."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}{unit} (no interval)"
    return f"{estimate.value:{form}}{unit} ({estimate.low:{form}}-{estimate.high:{form}})"


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _conditions(asked: Asked, models: dict[str, Model], count: int) -> str:
    """Return in what circumstances the figures are right."""
    here = speed_class()
    instructions = ", ".join(here["instructions"]) or "instructions not told"
    versions = ", ".join(f"{name} {library_version(name)}" for name in _libraries(models))
    return (
        f"median of {count} answers with its 95 % interval; prompt of {asked.prompt_length}, "
        f"{asked.new_tokens} new tokens\n"
        f"on {here['name']} ({here['processor']}: {instructions}), {here['cores']} cores, "
        f"{here['system']}; {versions}"
    )
