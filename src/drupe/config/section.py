"""What every part of a config is that is no input of a step."""

from __future__ import annotations

from pydantic import ConfigDict

from drupe.core.documented import Documented


class Section(Documented):
    """A part of a config that is no input of a step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
