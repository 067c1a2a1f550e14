"""What a job prints, read while it runs: the file that AzureML keeps of it, from where we were.

A job's standard output is user_logs/std_log.txt of its default output, a blob that grows. It is
read by azure-storage-blob, by ranges. `MLClient.jobs.stream`, AzureML's own way, reads the same
file; but it prints to the standard output of its process, starts from the beginning at each look,
and comes to look once a minute only.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from drupe.systems.batch import MARK

if TYPE_CHECKING:
    from drupe.systems.azureml.workspace import Job, Workspace

FOLDER = "user_logs/"
STANDARD_OUTPUT = re.compile(r"user_logs/std_log[\D]*[0]*(?:_ps)?\.txt")  # of the first process
MOST_BYTES = 8 * 2**20  # in one request, and of what is remembered


class JobLog:
    """Reads the log of one job. printed: its last bytes, events left out."""

    def __init__(self) -> None:
        self.printed = bytearray()
        self._file = ""
        self._offset = 0
        self._rest = b""
        self._number = 0

    def read(self, workspace: Workspace, job: Job) -> list[dict[str, Any]]:
        """Return the events that were written since."""
        if not self._file:
            names = workspace.names(job.artifacts, FOLDER)
            found = [name for name in names if STANDARD_OUTPUT.fullmatch(name)]
            if not found:
                return []
            self._file = f"{job.artifacts}/{found[0]}"
        events: list[dict[str, Any]] = []
        full = True
        while full:
            content = workspace.read(self._file, self._offset, MOST_BYTES)
            full = len(content) == MOST_BYTES
            self._offset += len(content)
            *lines, self._rest = (self._rest + content).split(b"\n")
            events += [event for line in lines if (event := self._event(line))]
        return events

    def _event(self, line: bytes) -> dict[str, Any] | None:
        before, mark, after = line.partition(MARK.encode())
        if mark:
            try:
                event: dict[str, Any] = json.loads(after)
            except ValueError:  # a library has printed into the line
                return None
            if event["number"] <= self._number:
                return None
            self._number = event.pop("number")
            return event
        self.printed += before + b"\n"
        del self.printed[:-MOST_BYTES]
        return None
