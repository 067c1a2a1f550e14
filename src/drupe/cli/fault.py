"""What ends a verb: as the sentence that a person reads, and as values for a program."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from drupe.core.errors import Blocked, ConfigError, DrupeError, Interrupted
from drupe.core.secrets import redacted_values


def fault_of(error: BaseException) -> DrupeError:
    """Return Ctrl-C, a full disk, a fault of drupe's own in three parts."""
    if isinstance(error, DrupeError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted()
    if isinstance(error, OSError):
        place = str(error.filename or "the disk")
        remedy = "Mend that and run again: finished steps are kept."
        return DrupeError(place, error.strerror or str(error), remedy)
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    remedy = "This is a fault of drupe's: run again with --debug, and report what it shows."
    return DrupeError("drupe", what, remedy)


def failure(fault: DrupeError) -> dict[str, Any]:
    """Return a fault as JSON values; where there are several, they stand in it one by one."""
    error: dict[str, Any] = {"where": fault.where, "what": fault.what, "remedy": fault.remedy}
    if isinstance(fault, ConfigError | Blocked):
        error["faults"] = [
            {"where": each.where, "what": each.what, "remedy": each.remedy} for each in fault.faults
        ]
    values: dict[str, Any] = redacted_values({"error": error, "exit": fault.exit_code})
    return values
