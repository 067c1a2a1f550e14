"""What ends a verb, as the sentence that a person reads."""

from __future__ import annotations

from drupe.core.errors import DrupeError, Interrupted


def fault_of(error: BaseException) -> DrupeError:
    """Return Ctrl-C, a full disk, a folder without permission in three parts."""
    if isinstance(error, DrupeError):
        return error
    if isinstance(error, OSError):
        place = str(error.filename or "the disk")
        remedy = "Mend that and run again: finished steps are kept."
        return DrupeError(place, error.strerror or str(error), remedy)
    return Interrupted()
