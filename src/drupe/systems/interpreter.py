"""Another Python of this machine: where it is, and what is installed there."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drupe.core.errors import Refused
from drupe.core.libraries import FAMILIES, version_among
from drupe.core.requirements import asked_for, folded, specifier
from drupe.systems.processes import Interpreter

WHERE = "python_environment_path"
PROGRAMS = ("", "bin", "Scripts")
NAMES = ("python", "python3", "python.exe")
OLDEST = (3, 11)
LONGEST_SECONDS = 60
ASKED = """
import importlib.metadata as metadata, json, sys
found = {}
for each in metadata.distributions():
    if each.metadata["Name"]:
        found.setdefault(each.metadata["Name"], each.version)
print(json.dumps({"python": sys.version_info[:3], "installed": found}))
"""


def python_of(
    place: Path, variables: Mapping[str, str] | None = None, first: Sequence[Path] = ()
) -> Interpreter:
    """Return the Python of an environment: its folder, its folder of programs, or itself.

    first: folders that come first in PATH, before the environment's own programs. Raises Refused.
    """
    found = next(
        (
            candidate
            for folder in PROGRAMS
            for name in NAMES
            if (candidate := place / folder / name).is_file()
        ),
        place if place.is_file() else None,
    )
    if found is None:
        lacks = "is not there" if not place.exists() else "holds no Python (python, bin/python)"
        raise Refused(WHERE, f"{place} {lacks}", "Name the folder of a Python environment.")
    path = [*map(str, first), str(found.parent), os.environ.get("PATH", "")]
    return Interpreter(str(found), {**(variables or {}), "PATH": os.pathsep.join(path)})


@dataclass(frozen=True)
class InterpreterEnvironment:
    """What is installed in the environment of a Python.

    python: its version. installed: {distribution, in lower case with - for _ and .: version}.
    """

    where: str
    python: tuple[int, ...]
    installed: Mapping[str, str]

    @classmethod
    def of(cls, interpreter: Interpreter) -> InterpreterEnvironment:
        """Return what a Python says of itself, asked once; raises Refused where it says nothing."""
        return _asked(interpreter.python)

    @property
    def remedy(self) -> str:
        """How a library that is missing gets there."""
        return f"{self.where} -m pip install it."

    def version(self, library: str) -> str | None:
        """Return the version that is installed there."""
        return version_among(library, lambda name: self.installed.get(folded(name)))

    def unfit(self, library: str, extra: str) -> str | None:
        """Return in words why the version that is there is none that `extra` allows, or None."""
        for name in FAMILIES.get(library, (library,)):
            version, needed = self.installed.get(folded(name)), specifier(name, extra)
            if version is not None and not needed.contains(version, prereleases=True):
                return f"needs {name}{needed}, and {name} {version} is there"
        return None


@functools.cache
def _asked(python: str) -> InterpreterEnvironment:
    try:
        done = subprocess.run(
            [python, "-c", ASKED], capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as fault:
        raise Refused(
            WHERE, f"{python} does not answer as a Python does: {fault}", "Mend the environment."
        ) from fault
    version = tuple(told["python"])
    if version < OLDEST:
        raise Refused(
            WHERE,
            f"{python} is Python {'.'.join(map(str, version))}, and drupe needs "
            f"{'.'.join(map(str, OLDEST))} or newer",
            "Name an environment of a newer Python.",
        )
    installed = {folded(name): number for name, number in told["installed"].items()}
    return InterpreterEnvironment(python, version, installed)


def check_own_needs(environment: InterpreterEnvironment) -> None:
    """Raise Refused where what drupe itself needs is not there: its code goes along, alone."""
    lacking = []
    for needed in asked_for():
        version = environment.installed.get(folded(needed.name))
        if version is None or not needed.specifier.contains(version, prereleases=True):
            lacking.append(str(needed))
    if lacking:
        what = f"{environment.where} lacks {', '.join(lacking)}, which drupe itself needs there"
        quoted = " ".join(f'"{each}"' for each in lacking)
        raise Refused(WHERE, what, f"{environment.where} -m pip install {quoted}")
