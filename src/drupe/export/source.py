"""What an export is made of: a checkpoint, or an adapter that is merged while it is read.

Of a merged checkpoint nothing but the small files is ever written, into the scratch folder; its
weights are made as they are where it is written (`finetune.merged`), so the bytes are the same.
Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drupe.checkpoint.header import TensorSpec
from drupe.checkpoint.mapped import MappedTensors
from drupe.checkpoint.tensors import Checkpoint, Rows, open_checkpoint
from drupe.core.job import Job
from drupe.core.merging import Merging
from drupe.core.model import Model
from drupe.finetune.merged import Merged, opened_beside


@dataclass(frozen=True)
class Source:
    """A checkpoint that may lie nowhere.

    model: its config, its tokenizer and what else there is beside weights. checkpoint, rows: the
    weights, a tensor or some rows at a time. folders: which it was read from. merged: the weights,
    where they are merged as they are read; None for a checkpoint that is there.
    """

    model: Model
    checkpoint: Checkpoint
    rows: Rows
    folders: tuple[Path, ...]
    merged: Merged | None = None

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Name, dtype and shape of each tensor."""
        return {spec.name: spec for spec in self.checkpoint.specs}


@contextmanager
def open_source(model: Model, merging: Merging | None, job: Job) -> Iterator[Source]:
    """Give what `model` is exported from; merging: how an adapter is merged.

    Raises DrupeError for an adapter that cannot be merged, as `MergeAdapterWeights` does.
    """
    if merging is None:
        checkpoint = open_checkpoint(model.path)
        with MappedTensors(checkpoint.stored) as rows:
            yield Source(model, checkpoint, rows, (model.path,))
        return
    with opened_beside(model, merging.base, job.scratch / "merged") as (beside, merged):
        read = (model.path, *dict.fromkeys(file.parent for file in merged.files))
        yield Source(beside, merged, merged, read, merged)
