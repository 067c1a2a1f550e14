"""What holds for every test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

# No test writes into the user's journal of what steps took, or is told by it.
os.environ["DRUPE_JOURNAL"] = ""
# Nor into the table of what operators take here.
os.environ["DRUPE_TIMES"] = ""

# Tests start hundreds of Python processes: what these import is compiled once, for all of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Several trainings share the cores: a thread that waits for others lets go of its own.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# A job that a shell has put in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _an_environment_that_no_test_before_has_changed() -> Iterator[None]:
    """A verb of a step's own process, called in this one, sets what that process needs."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
