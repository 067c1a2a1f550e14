"""What is measured where the config names no evaluator: what its data allow."""

from __future__ import annotations

from typing import Any

from drupe.catalog import find
from drupe.config.schema import NamedMetric, Workflow
from drupe.core.dataset import Dataset, Part
from drupe.data.columns import choices_shown

MOST_CHOICES = 20  # answers that are rather a class than a text, where nobody asked for accuracy


def metrics_of(workflow: Workflow) -> tuple[list[NamedMetric], list[str]]:
    """Return the metrics of the config, or without any those that its data allow."""
    if workflow.metrics or workflow.engine.evaluate == "none":
        return list(workflow.metrics), []
    data, note = _evaluation_rows(workflow)
    if data is None:
        return [], []
    fields = {"data_config": data, "target": workflow.target}
    choices = choices_shown(data)
    judged = choices is not None and 2 <= len(choices) <= MOST_CHOICES
    names = ["Accuracy", "Perplexity"] if judged else ["Perplexity"]
    made = [NamedMetric(name.lower(), name, find("metrics", name)(**fields)) for name in names]
    return made, [note]


def _evaluation_rows(workflow: Workflow) -> tuple[Dataset | None, str]:
    """Return the rows to measure on where no evaluator is named: those held out, if any are."""
    for named in workflow.passes:
        step: Any = named.step
        held_out = getattr(step, "eval_data_config", None)
        if isinstance(held_out, Dataset):
            return held_out, f"Measured on {held_out.name} (no evaluator is named)."
        rows = getattr(step, "train_data_config", None)
        if isinstance(rows, Dataset):
            size = getattr(step, "eval_dataset_size", None)
            if size:
                part = Part(eval_size=size, seed=step.training_args.data_seed, side="eval")
                return (
                    rows.model_copy(update={"part": part}),
                    f"Measured on the held-out part of {rows.name} (no evaluator is named).",
                )
            return rows, f"Measured on the training rows {rows.name}: no others are named."
    return None, ""
