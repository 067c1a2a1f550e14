"""What holds for every test."""

from __future__ import annotations

import os

# No test writes into the user's journal of what steps took, or is told by it.
os.environ["DRUPE_JOURNAL"] = ""
