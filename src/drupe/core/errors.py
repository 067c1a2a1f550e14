"""Every error that a person reads has three parts: where, what, and what to do.

Imports nothing of ours: the lowest file of the lowest layer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class DrupeError(Exception):
    """Something that the user can act on; `cli.main` prints it and exits with `exit_code`.

    `where` names the place (a file and line, a step, a field), `what` the value that was found
    and what was expected, `remedy` what to do about it.
    """

    exit_code = 1

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(where, what, remedy)
        self.where, self.what, self.remedy = where, what, remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  {self.remedy}"


class Refused(DrupeError):  # noqa: N818  reads as what happened
    """Found before any work was done: a config, a plan or an argument that cannot work."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a config; a file's faults are told together."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  {self.remedy}"


class ConfigError(Refused):
    """All the faults of one config file."""

    def __init__(self, file: str, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(file, count, "Nothing was run; mend the config and run again.")

    def __str__(self) -> str:
        return "\n".join([f"{self.where}: {self.what}", *map(str, self.faults), self.remedy])


class Blocked(Refused):
    """All that is in the way of a run, found before any work."""

    def __init__(self, where: str, faults: Iterable[DrupeError]) -> None:
        self.faults = tuple(faults)
        super().__init__(where, f"{len(self.faults)} things are in the way", "Nothing was run.")

    def __str__(self) -> str:
        return "\n".join([f"{self.where}: {self.what}", *map(str, self.faults), self.remedy])


def refuse(where: str, faults: Iterable[DrupeError]) -> None:
    """Raise what is in the way, if anything is: one error as it is, several together."""
    faults = tuple(faults)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise Blocked(where, faults)


class Blockers:
    """A context in which a DrupeError is written down, and what follows goes on."""

    def __init__(self) -> None:
        self.found: list[DrupeError] = []

    def add(self, fault: DrupeError) -> None:
        """Write down a fault; the same of another step is told once."""
        if (fault.what, fault.remedy) not in ((known.what, known.remedy) for known in self.found):
            self.found.append(fault)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> bool:
        if isinstance(fault, DrupeError):
            self.add(fault)
        return isinstance(fault, DrupeError)


class StepError(DrupeError):
    """A step failed, was killed or ran out of memory; what was finished before it is kept."""


class PassRefused(Refused):
    """A pass refused what it was given, while it worked: its own word, no failure of its."""


class StepRefused(StepError):  # noqa: N818
    """A step ended by such a refusal. To a search, the point is infeasible."""


class ContractError(StepError):
    """A pass did not do what its class declares (addressed to the pass's developer)."""


class Infeasible(DrupeError):  # noqa: N818
    """A search ended without a model that keeps every limit."""

    exit_code = 3


class Interrupted(DrupeError):  # noqa: N818
    """Ctrl-C: everything was stopped, what was finished is kept."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__(
            "drupe", "interrupted", "Run the same command again: it goes on from here."
        )

    def __str__(self) -> str:
        return f"{self.what}\n  {self.remedy}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "X"?` for the closest known name, or an empty string."""
    match = closest(name, known)
    return f'; did you mean "{match}"?' if match else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is most like, upper and lower case being one, or None."""
    folded = {each.casefold(): each for each in known}
    match = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None
