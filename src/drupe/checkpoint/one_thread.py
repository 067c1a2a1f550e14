"""Sums that are the same however many threads there are: done in one.  Heavy file: torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute in this thread alone: by several a sum is another one in its last bits.

    That holds for products too: MKL cuts a matrix by its threads, whose number each thread of ours
    has for itself, and a new one all cores until torch is asked for it, as it is here.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
