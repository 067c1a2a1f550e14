"""Write a base with its adapter folded in as a checkpoint of its own (`merged` has the arithmetic).

All is read, computed and written in blocks of rows, so the memory does not grow with the model.
Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from drupe.checkpoint.tensors import tensor_bytes
from drupe.checkpoint.writer import CheckpointWriter
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.finetune.merged import Merged, copy_other_files, opened, tell
from drupe.finetune.passes import MergeAdapterWeights


def merge(step: MergeAdapterWeights, model: Model, out: Path, job: Job) -> None:
    """Write the base of the adapter `model` with the adapter folded in below `out`.

    Raises DrupeError before anything is written when the adapter is not plain LoRA on linear
    layers of this base; and when it changes no stored weight.
    """
    with opened(model, step.base) as merged:
        torch.set_num_threads(1)  # each worker is one thread
        _write_weights(merged, out, job)
        job.facts.update(tell(merged, job))
    copy_other_files(model, out)


def _write_weights(merged: Merged, out: Path, job: Job) -> None:
    done, total = 0, merged.size_bytes
    with CheckpointWriter(out, merged.specs) as writer, ThreadPoolExecutor(job.threads) as pool:
        for spec in writer.order:
            parts = _told(_parts(merged, spec.name, pool, job.threads), done, total, job)
            writer.write(spec.name, parts)
            done += spec.size_bytes
    job.progress("merging", total, total, "bytes")


def _parts(
    merged: Merged, name: str, pool: ThreadPoolExecutor, threads: int
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor; of one that is changed, some blocks are made ahead."""
    blocks = list(merged.blocks(name))
    if not blocks:
        yield from merged.chunks(name)
    ahead: deque[Future[torch.Tensor]] = deque()
    for start, stop in blocks:
        ahead.append(pool.submit(merged.rows, name, start, stop))
        if len(ahead) > threads:
            yield tensor_bytes(ahead.popleft().result())
    while ahead:
        yield tensor_bytes(ahead.popleft().result())
    for start, stop in blocks:
        merged.drop(name, start, stop)


def _told(
    parts: Iterator[bytes | memoryview], done: int, total: int, job: Job
) -> Iterator[bytes | memoryview]:
    for part in parts:
        job.progress("merging", done, total, "bytes")
        yield part
        done += len(part)
