"""A Python environment that drupe makes: by venv and pip, once, whole or absent, its versions kept.

    CACHE/environments/DIGEST/        the environment; it is whole once its mark is in it
    CACHE/environments/DIGEST.log     what pip said
    CACHE/../drupe-SYSTEM.lock        the versions: made again from it, it is the same

DIGEST stands for what was asked: the user's requirements, what drupe and the planned passes need,
the version of Python. What decides a result is of the version that it has here, so that a step has
the key of a local run; what is not known before pip has chosen is named by DIGEST in a plan.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from packaging.requirements import InvalidRequirement, Requirement

from drupe.core.digest import value_digest
from drupe.core.errors import Refused
from drupe.core.files import remove_tree, write_atomic
from drupe.core.libraries import (
    FAMILIES,
    OF_PROVIDERS,
    PINNED,
    installed_version,
    library_version,
    version_among,
)
from drupe.core.locks import locked
from drupe.core.operation import Operation
from drupe.core.requirements import (
    OF_PROVIDERS as EXTRAS,
)
from drupe.core.requirements import asked_for, exclude_each_other, family_of, folded, pinned
from drupe.core.secrets import redact_file
from drupe.core.system import Setting
from drupe.core.target import PROVIDERS
from drupe.systems.code import distributions
from drupe.systems.interpreter import python_of
from drupe.systems.processes import Interpreter

FORMAT = 1
MARK = "drupe-environment"
INCLUDES = re.compile(r"^(?:-r|--requirement|-c|--constraint)[\s=]+(\S+)")
COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class ManagedEnvironment:
    """An environment that is made, or will be.

    wanted: what pip is asked for, a line each, without what the user's file asks for itself.
    file: the user's. written: its requirements by name; content: all its lines.
    """

    name: str
    cache: Path
    wanted: tuple[str, ...]
    file: Path | None
    written: Mapping[str, Requirement]
    content: tuple[str, ...]

    @classmethod
    def asked(
        cls, setting: Setting, providers: Sequence[str], file: Path | None
    ) -> ManagedEnvironment:
        """Return the environment that a system is to have; raises Refused for what cannot be.

        providers: the execution providers that are to be in it.
        """
        where = f"systems.{setting.name}.requirements_file"
        content = tuple(_lines(file, where)) if file is not None else ()
        written = {folded(each.name): each for each in _requirements(content)}
        short = next((PROVIDERS[name][1] for name in providers if name in PROVIDERS), "cpu")
        _check_families(written, short, where)
        wanted = tuple(sorted(_wanted(setting.operations, short, written, where)))
        return cls(setting.name, setting.cache, wanted, file, written, content)

    @cached_property
    def digest(self) -> str:
        """What stands for all that is asked for."""
        machine = [platform.system(), platform.machine(), *platform.python_version_tuple()[:2]]
        return value_digest([FORMAT, machine, self.wanted, self.content])

    @property
    def folder(self) -> Path:
        """Where the environment lies, once it is made."""
        return self.cache / "environments" / self.digest[:32]

    @property
    def lock(self) -> Path:
        """The file with the versions, beside the cache."""
        name = re.sub(r"[^\w.-]", "-", self.name)
        return self.cache.parent / f"drupe-{name}.lock"

    @property
    def remedy(self) -> str:
        """How a library that is missing gets there."""
        return "Add it to the requirements_file of the system."

    def version(self, library: str) -> str | None:
        """Return the version that is in it, that it will have, or what pins it; None: absent."""
        return version_among(library, self._version)

    def unfit(self, library: str, extra: str) -> None:
        """Return None: what does not fit is refused before."""

    def interpreter(self, variables: Mapping[str, str], first: Sequence[Path]) -> Interpreter:
        """Return its Python; where all is in the cache it may not be there."""
        return python_of(self.folder, variables, first) if self._is_made() else Interpreter()

    def make(self, note: Callable[[str], None]) -> bool:
        """Make the environment where it is not there; return whether it was made now."""
        if self._is_made():
            with suppress(OSError):  # a cache that cannot be written serves what it holds
                os.utime(self.folder / MARK)  # housekeeping drops what is not used any more
            return False
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        log = self.folder.with_suffix(".log")
        waits = f"Another process makes the environment of {self.name}: waiting for it."
        with locked(self.folder.with_suffix(".held"), lambda: note(waits)):
            if self._is_made():
                return True
            known = self._locked()
            from_lock = f" as {self.lock.name} has it" if known else ""
            note(f"Making the environment of {self.name}{from_lock} (its log: {log})")
            remove_tree(self.folder)
            try:
                frozen = self._install(log, locked=bool(known))
            except BaseException:
                remove_tree(self.folder)
                raise
            finally:
                if log.exists():
                    redact_file(log)
            text = f"# Written by drupe: the environment of {self.name}.\n{self._stamp}\n{frozen}"
            write_atomic(self.lock, text.encode())
            write_atomic(self.folder / MARK, text.encode())
        return True

    def _version(self, distribution: str) -> str | None:
        name = folded(distribution)
        if self._versions:
            return self._versions.get(name)
        asked = [each[name] for each in (self.written, self._own) if name in each]
        if not asked:
            return None
        version = next(filter(None, (pinned(each.specifier) for each in asked)), None)
        # Which build of a version it will be (+cpu, +cu130) is pip's to choose.
        several = "+" in (installed_version(distribution) or "")
        return f"{PINNED}{self.digest}" if several or version is None else version

    @cached_property
    def _own(self) -> dict[str, Requirement]:
        return {folded(each.name): each for each in map(Requirement, self.wanted)}

    @cached_property
    def _versions(self) -> dict[str, str]:
        """What is known to be in it: it is made, or will be made so. Empty where it is not."""
        made = self.folder / MARK
        return _frozen(made.read_text(encoding="utf-8")) if made.is_file() else self._locked()

    @property
    def _stamp(self) -> str:
        return f"# Made for {self.digest}"

    def _locked(self) -> dict[str, str]:
        """Return the versions of the lock file, if it is about what is asked for."""
        if not self.lock.is_file():
            return {}
        text = self.lock.read_text(encoding="utf-8")
        return _frozen(text) if self._stamp in text.splitlines() else {}

    def _is_made(self) -> bool:
        return (self.folder / MARK).is_file()

    def _install(self, log: Path, *, locked: bool) -> str:
        """Make the environment; return what pip says is in it."""
        has_pip = importlib.util.find_spec("pip") is not None
        with log.open("wb") as written:
            options = ["--without-pip"] if has_pip else []
            self._call([sys.executable, "-m", "venv", *options, str(self.folder)], log, written)
            python = python_of(self.folder).python
            pip = [sys.executable, "-m", "pip", "--python", python]
            pip = pip if has_pip else [python, "-m", "pip"]
            options = ["--no-input", "--disable-pip-version-check"]
            chosen = ["--no-deps", "--requirement", str(self.lock)] if locked else [*self.wanted]
            chosen += ["--requirement", str(self.file)] if self.file is not None else []
            self._call([*pip, "install", *options, *chosen], log, written)
            return self._call([*pip, "freeze", "--all"], log, written, answers=True)

    def _call(
        self, words: list[str], log: Path, written: IO[bytes], *, answers: bool = False
    ) -> str:
        """Run a program to its end; raises Refused with what it said last when it fails.

        answers: whether its standard output is returned, and not in the log.
        """
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else written,
            stderr=written,
        )
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            redact_file(log)
            lines = log.read_text(errors="replace").strip().splitlines()
            errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
            said = errors[0].removeprefix("ERROR: ") if errors else f"{words[2]} failed"
            raise Refused(
                f"systems.{self.name}",
                f"its environment cannot be made: {said}",
                f"Mend its requirements; what pip said: {log}",
            )
        return (output or b"").decode()


def _lines(file: Path, where: str, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a requirements file, and of those that it includes."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        what = f"names {file}, which " + ("cannot be read" if file.exists() else "is not there")
        raise Refused(where, what, "Mend the path.") from fault
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        plain = COMMENT.sub("", line).strip()
        included = INCLUDES.match(plain)
        if included and "://" not in included[1] and depth < 10:
            yield from _lines(file.parent / included[1], where, depth + 1)
        if plain:
            yield plain


def _requirements(lines: Sequence[str]) -> Iterator[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(re.split(r"\s--hash", line, maxsplit=1)[0])
        except InvalidRequirement:
            continue  # an option, a path, an address: pip's business
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def _check_families(written: Mapping[str, Requirement], short: str, where: str) -> None:
    """Raise Refused for two siblings, and for one without the provider that is to be there."""
    for library, names in FAMILIES.items():
        there = [name for name in names if name in written]
        wanted = OF_PROVIDERS.get(short, {}).get(library, library)
        if len(there) > 1:
            what = f"asks for {' and '.join(there)}, which overwrite each other's files"
            raise Refused(where, what, f"Keep {wanted}.")
        if there and short in OF_PROVIDERS and there != [wanted]:
            what = f"asks for {there[0]}, and the system's accelerator is run by {wanted}"
            raise Refused(where, what, f"Write {wanted}, or leave it out.")


def _wanted(
    operations: Sequence[Operation], short: str, written: Mapping[str, Requirement], where: str
) -> Iterator[str]:
    """Yield what drupe asks pip for: its own needs, and the passes', of the versions here."""
    own = distributions()
    needed: dict[str, Requirement] = {}
    extras = {
        EXTRAS.get(short, "cpu") if each.extra == "cpu" else each.extra for each in operations
    }
    asked = [each for name in own for each in asked_for("", name)]
    asked += [each for extra in extras - {""} for each in asked_for(extra)]
    deciding = {
        OF_PROVIDERS.get(short, {}).get(name, name)
        for each in operations
        for name in each.deciding_libraries()
    }
    asked += map(Requirement, sorted(deciding))
    for each in asked:
        name = folded(each.name)
        if name in own:
            continue
        known = needed.get(name)
        needed[name] = each if known is None or not known.specifier else known
    siblings = {family_of(name) for name in written} - {None}
    light = {folded(each.name) for name in own for each in asked_for("", name)}
    for name, each in needed.items():
        theirs = written.get(name)
        if theirs is not None and exclude_each_other(theirs.specifier, each.specifier):
            what = f"asks for {theirs}, and drupe needs {name}{each.specifier}"
            raise Refused(where, what, "Mend that line.")
        version = installed_version(name)
        if version is None and family_of(name) == "onnxruntime-genai":  # all go by one number
            version = (library_version("onnxruntime-genai") or "").partition(" ")[0]
        here = (version or "").partition("+")[0]
        if family_of(name) in siblings:
            continue
        if theirs is not None and (pinned(theirs.specifier) or theirs.url):
            continue
        fits = theirs is None or theirs.specifier.contains(here or "0", prereleases=True)
        if here and fits and name not in light:
            yield f"{name}=={here}"
        else:
            yield f"{name}{each.specifier}"


def _frozen(text: str) -> dict[str, str]:
    """Return {distribution: version} of what pip froze; what came of an address has the address."""
    found = {}
    for line in text.splitlines():
        name, at, address = line.partition(" @ ")
        if line.startswith("#"):
            continue
        if at:
            found[folded(name)] = f"{PINNED}{value_digest(address)}"
        elif "==" in line:
            name, _, version = line.partition("==")
            found[folded(name)] = version.strip()
    return found
