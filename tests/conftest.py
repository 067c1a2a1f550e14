"""What holds for every test."""

from __future__ import annotations

import os
import signal

# No test writes into the user's journal of what steps took, or is told by it.
os.environ["DRUPE_JOURNAL"] = ""

# A job that a shell has put in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
