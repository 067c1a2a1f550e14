"""Accuracy's further numbers, counted by torchmetrics, with intervals by the bootstrap."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torchmetrics import functional

from drupe.core.errors import DrupeError
from drupe.core.intervals import percentiles
from drupe.core.job import Job
from drupe.evaluate.metrics import NumberArguments

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "accuracy_score": functional.accuracy,
    "f1_score": functional.f1_score,
    "precision": functional.precision,
    "recall": functional.recall,
    "auroc": functional.auroc,
}
DRAWS = 400


def counted(
    wanted: Mapping[Any, NumberArguments],
    scores: torch.Tensor,  # (rows, choices), log-probabilities
    right: Sequence[str],
    choices: Sequence[str],
    job: Job,
) -> dict[str, dict[str, float]]:
    """Return {number: {"value", "low", "high"}} of the answers to the rows."""
    probabilities = scores.softmax(1).float()
    places = {choice: place for place, choice in enumerate(choices)}
    truth = torch.tensor([places[each] for each in right])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(truth), (DRAWS, len(truth)), generator=generator)
    found = {}
    for name, arguments in wanted.items():
        predictions, targets, options = _prepared(name, arguments, probabilities, truth, choices)
        function = FUNCTIONS[name]
        value = float(function(predictions, targets, **options))
        with warnings.catch_warnings():  # a draw may hold no row of some class
            warnings.simplefilter("ignore")
            draws = sorted(
                float(function(predictions[rows], targets[rows], validate_args=False, **options))
                for rows in drawn
            )
        low, high = percentiles(draws)
        found[name] = {"value": value, "low": low, "high": high}
        if name in ("f1_score", "precision", "recall") and _is_accuracy(arguments):
            job.note(
                f"{name} with the average micro is accuracy_score, for a row has one answer: write "
                '"average": "macro" for the mean over the classes'
            )
    return found


def _is_accuracy(arguments: NumberArguments) -> bool:
    micro = arguments.average in (None, "micro")
    return arguments.task == "multiclass" and micro and arguments.top_k == 1


def _prepared(
    name: str,
    arguments: NumberArguments,
    probabilities: torch.Tensor,
    truth: torch.Tensor,
    choices: Sequence[str],
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Return what torchmetrics is given: predictions, targets, its arguments."""
    where = f"Accuracy.metric_config.{name}"
    if arguments.task == "multiclass":
        wanted = arguments.num_classes
        if wanted not in (None, len(choices)):
            raise DrupeError(
                f"{where}.num_classes",
                f"is {wanted}, but there are {len(choices)} choices: {', '.join(choices[:10])}",
                "Leave it out, or name all the choices.",
            )
        options: dict[str, Any] = {"task": "multiclass", "num_classes": len(choices)}
        if name != "auroc":
            options["top_k"] = arguments.top_k
        if arguments.average is not None:
            options["average"] = arguments.average
        return probabilities, truth, options
    if len(choices) != 2:
        what = f"is binary, but there are {len(choices)} choices: {', '.join(choices[:10])}"
        raise DrupeError(f"{where}.task", what, 'Write "multiclass".')
    positive = arguments.positive or choices[1]
    if positive not in choices:
        what = f'is "{positive}", which is no choice: {", ".join(choices)}'
        raise DrupeError(f"{where}.positive", what, "Name one of them.")
    place = list(choices).index(positive)
    options = {"task": "binary"}
    if name == "auroc":
        options["max_fpr"] = arguments.max_fpr
    else:
        options["threshold"] = arguments.threshold
    return probabilities[:, place], (truth == place).long(), options
