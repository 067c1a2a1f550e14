"""A metric by a user's own function, as Olive calls it: in this process, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import torch

from drupe.core.dataset import Dataset
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.data.user_script import loaded
from drupe.evaluate import accuracy
from drupe.evaluate.metrics import Custom
from drupe.evaluate.runtimes import (
    NotRunHereError,
    Runtime,
    TorchRuntime,
    open_runtime,
    write_skipped,
)


@dataclass(frozen=True)
class JudgedModel:
    """What a user's function is given.

    model_path: its folder, a text. kind: hf, hf-adapter, onnx-genai. base_path: of an adapter.
    """

    model: Model
    target: Target
    threads: int

    @property
    def model_path(self) -> str:
        """The model's folder."""
        return str(self.model.path)

    @property
    def kind(self) -> str:
        """What lies in it."""
        return self.model.kind

    @property
    def base_path(self) -> str | None:
        """Of an adapter, the folder of the model that it is for."""
        return str(self.model.base.path) if self.model.base else None

    def runtime(self) -> Runtime:
        """Return the model ready to score: tokenizer, encode(text), logits(ids)."""
        return open_runtime(self.model, self.target, self.threads)

    def load_model(self) -> Any:
        """Return the checkpoint (of an adapter: on its base) as a torch module."""
        if self.model.kind == "onnx-genai":
            raise DrupeError(
                self.model_path,
                "is an ONNX model, which load_model cannot give as a torch module",
                "Use prepare_session() or runtime() where model.kind is onnx-genai.",
            )
        return TorchRuntime(self.model, self.threads).network

    def prepare_session(
        self,
        inference_settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        execution_providers: Any = None,
        rank: int | None = None,
    ) -> onnxruntime.InferenceSession:
        """Return a session of ONNX Runtime on the model's graph."""
        file = self.model.path / "genai_config.json"
        if not file.is_file():
            raise DrupeError(
                self.model_path,
                "is a checkpoint, which ONNX Runtime cannot run",
                "Use load_model() or runtime() where model.kind is hf or hf-adapter.",
            )
        decoder = json.loads(file.read_text(encoding="utf-8"))["model"]["decoder"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        providers = execution_providers or [self.target.provider]
        listed = [providers] if isinstance(providers, str) else list(providers)
        return onnxruntime.InferenceSession(
            str(self.model.path / decoder["filename"]), options, providers=listed
        )


class ModelOutput(NamedTuple):
    """The answers to rows. logits: (rows, choices), the choices' log-probabilities."""

    preds: list[str]
    logits: torch.Tensor


def measure(metric: Custom, model: Model, out: Path, job: Job) -> None:
    """Write out/score.json with what the function gives."""
    judged = JudgedModel(model, metric.target, job.threads)
    try:
        if metric.evaluate_func is not None:
            given = _evaluated(metric, metric.evaluate_func, judged)
        else:
            given = _answered(metric, judged, job)
    except NotRunHereError as fault:
        write_skipped("custom", fault, out, job)
        return
    name = metric.evaluate_func or metric.metric_func or ""
    numbers = numbers_of(given, f"{metric.user_script.name}: {name}", metric.names or ())
    first = next(iter(numbers.values()))
    score = {"metric": "custom", **first, "sub_types": numbers}
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")


def _evaluated(metric: Custom, name: str, judged: JudgedModel) -> Any:
    function = _function(metric, name)
    data_dir = None if metric.data_dir is None else str(metric.data_dir)
    target = metric.target
    arguments = (judged, data_dir, metric.batch_size, target.device, [target.provider])
    return _called(metric, name, lambda: function(*arguments, **metric.evaluate_func_kwargs))


def _answered(metric: Custom, judged: JudgedModel, job: Job) -> Any:
    name, data = metric.metric_func or "", metric.data_config
    assert isinstance(data, Dataset)
    function = _function(metric, name)
    asked = accuracy.questions(data, None, None, job)
    choices = accuracy.choices_of(None, asked.right)
    scores = accuracy.choice_scores(
        judged.runtime(), asked.prompts, choices, special=asked.special, job=job
    )
    output = ModelOutput([choices[place] for place in scores.argmax(1).tolist()], scores)
    return _called(metric, name, lambda: function(output, asked.right, **metric.metric_func_kwargs))


def _function(metric: Custom, name: str) -> Callable[..., Any]:
    function = getattr(loaded(metric.user_script, metric.script_dir), name, None)
    if not callable(function):
        raise DrupeError(str(metric.user_script), f'has no function "{name}"', "Mend the name.")
    found: Callable[..., Any] = function
    return found


def _called(metric: Custom, name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except DrupeError:
        raise
    except Exception as fault:
        what = f"{name} failed: {type(fault).__name__}: {fault}"
        raise DrupeError(str(metric.user_script), what, "Mend the function.") from fault


def numbers_of(given: Any, where: str, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return what a function gave as {name: {"value", "low", "high"}}; names: those wanted."""
    remedy = 'Have it return a number, {"name": number}, or {"name": {"value", "low", "high"}}.'
    if not isinstance(given, Mapping):
        if len(names) > 1:
            what = f"gave one number, and {len(names)} are wanted: {', '.join(names)}"
            raise DrupeError(where, what, remedy)
        given = {names[0] if names else "value": given}
    found: dict[str, dict[str, float]] = {}
    for name, value in given.items():
        parts = value if isinstance(value, Mapping) else {"value": value}
        try:
            found[str(name)] = {part: float(each) for part, each in parts.items()}
        except (TypeError, ValueError) as fault:
            what = f"gave {type(value).__name__} for {name}, no number"
            raise DrupeError(where, what, remedy) from fault
        if "value" not in found[str(name)]:
            raise DrupeError(where, f'gave no "value" for {name}', remedy)
    missing = [name for name in names if name not in found]
    if missing or not found:
        what = f"gave {', '.join(found) or 'nothing'}, and {', '.join(missing) or 'a number'} "
        raise DrupeError(where, what + "is wanted", remedy)
    return {name: found[name] for name in dict.fromkeys([*names, *found])}
