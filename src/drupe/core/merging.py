"""How an adapter is merged where no merged checkpoint is written: the plan fills it in."""

from __future__ import annotations

from typing import Literal

from drupe.core.declared import Declared

Base = Literal["auto", "original", "dequantized"]


class Merging(Declared):
    """What `MergeAdapterWeights` was asked for, where its work is done by the pass behind it."""

    base: Base = "auto"
    """The weights to fold into, as `MergeAdapterWeights` has it."""
