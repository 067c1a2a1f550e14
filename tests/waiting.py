"""Waiting for what other processes bring about, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

MOST_SECONDS = 240.0  # what takes so long does not come


def until(true: Callable[[], Any], told: Callable[[], object] = lambda: "") -> Any:
    """Wait for something, and return it. told: what is there instead if it does not come."""
    end = time.monotonic() + MOST_SECONDS
    while not (value := true()):
        assert time.monotonic() < end, f"it did not come about: {told()}"
        time.sleep(0.02)
    return value
