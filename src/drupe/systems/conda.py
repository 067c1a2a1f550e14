"""The conda file of a job's environment: what of it cannot work, and the versions that it pins.

    channels: [conda-forge]
    dependencies:                   conda's own packages, "python=3.11"
      - pip:                        what pip installs then, "torch==2.13.0"

A library that it pins exactly is of that version, as it would be here; any other stands for the
content of the file and of the image below it.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from drupe.core.errors import nearest
from drupe.core.libraries import FAMILIES, OF_PROVIDERS, PINNED, installed_version, version_among
from drupe.core.requirements import (
    asked_for,
    exclude_each_other,
    family_of,
    folded,
    pinned,
    specifier,
)
from drupe.core.target import PROVIDERS

OLDEST_PYTHON = "3.11"
KEYS = ("name", "channels", "dependencies", "prefix", "variables")
CONDAS_NAMES = {"pytorch": "torch", "pytorch-gpu": "torch", "pytorch-cpu": "torch"}
# Lines of the pip section that no longer install: (pattern, what, remedy).
DEAD = (
    (
        r"git\+\S*/olive(\.git)?(@|#|$)",
        "is a branch of Olive, which no step of drupe needs",
        "Leave it out.",
    ),
    (
        r"_packaging/(ort-nightly|onnxruntime-genai)/",
        "is a feed of nightly builds, and those are removed after some weeks",
        "Leave it out, and pin released versions.",
    ),
    (
        r"^ort-nightly|\.dev\d{8}",
        "is a nightly build, and those are removed after some weeks",
        "Pin a released version.",
    ),
)
OLIVE = re.compile(r"^olive-ai\b", re.IGNORECASE)
OPTION = re.compile(r"^(-[a-zA-Z]|--[a-z][a-z-]*)\b")
CONDAS = re.compile(r"^(?:[\w./-]+::)?([A-Za-z0-9_.-]+)\s*(.*)$")
COMMIT = re.compile(r"@[0-9a-f]{40}\b")


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a file; number: of the line, 0 where it is none."""

    number: int
    what: str
    remedy: str


@dataclass(frozen=True)
class Asked:
    """A line that asks for a distribution. allowed: its versions; None: of a URL or a file."""

    number: int
    text: str
    name: str
    allowed: SpecifierSet | None


@dataclass
class CondaFile:
    """A conda file as far as it can be read. wrong: what cannot."""

    path: Path
    python: Asked | None = None
    asked: list[Asked] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)  # of the pip section, all of them
    has_pip: bool = False
    wrong: list[Wrong] = field(default_factory=list)

    def of(self, distribution: str) -> Asked | None:
        """Return the line that asks for a distribution."""
        name = folded(distribution)
        return next((each for each in self.asked if each.name == name), None)

    @cached_property
    def brought(self) -> set[str]:
        """What comes with what is asked for, as far as it is installed here to be asked.

        A sibling of a family is left out: the file has to say which one.
        """
        found: set[str] = set()
        left = [each.name for each in self.asked]
        while left:
            try:
                needed = asked_for("", left.pop())
            except importlib.metadata.PackageNotFoundError:
                continue
            new = {folded(each.name) for each in needed if not family_of(each.name)} - found
            found |= new
            left += sorted(new)
        return found


def read(path: Path) -> CondaFile:
    """Return what a conda file says; what is wrong with its form is among it."""
    file = CondaFile(path)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as fault:
        why = "is not there" if not path.exists() else f"cannot be read: {fault}"
        file.wrong.append(Wrong(0, why, "Mend the path."))
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        problem = getattr(fault, "problem", None) or str(fault).splitlines()[0]
        number = mark.line + 1 if mark else 1
        file.wrong.append(Wrong(number, f"is not YAML: {problem}", "Mend this line."))
    else:
        _read_top(file, node)
    return file


def faults(
    file: CondaFile, providers: Sequence[str] = (), for_token: Sequence[str] = ()
) -> Iterator[Wrong]:
    """Yield what cannot work, whatever the passes are.

    providers: that are to be there. for_token: the libraries that read the Hub's token there.
    """
    yield from file.wrong
    if file.wrong and not file.asked:
        return
    yield from _python(file)
    for number, text in file.lines:
        for pattern, what, remedy in DEAD:
            if re.search(pattern, text, re.IGNORECASE):
                yield Wrong(number, f"{text} {what}", remedy)
                break
    yield from _lacking(file)
    absent = [name for name in for_token if file.of(name) is None]
    if absent:
        what = f"lacks {' and '.join(absent)}, which read the Hub's token in the key vault"
        yield Wrong(0, what, "Add them to its pip section, or write hf_token: false.")
    yield from _families(file, providers)


def warnings(file: CondaFile) -> Iterator[Wrong]:
    """Yield what may not stay as it is."""
    for number, text in file.lines:
        dead = any(re.search(pattern, text, re.IGNORECASE) for pattern, _, _ in DEAD)
        if "git+" in text and not COMMIT.search(text) and not dead:
            what = f"{text} names no commit: what it installs may change, and the keys do not"
            yield Wrong(number, what, "Write @ and the commit's 40 digits.")
        elif OLIVE.match(text):
            what = f"{text} is Olive, which no step of drupe needs"
            yield Wrong(number, what, "Leave it out.")


@dataclass(frozen=True)
class CondaEnvironment:
    """What a conda file installs. digest: of the file and of the image below it."""

    file: CondaFile
    digest: str

    @property
    def remedy(self) -> str:
        """How a library that is missing gets there."""
        return f"Mend the pip section of {self.file.path.name}."

    def version(self, library: str) -> str | None:
        """Return the version that is pinned, else what pins it, else None."""
        return version_among(library, self._version)

    def unfit(self, library: str, extra: str) -> str | None:
        """Return which line rules out every version that `extra` allows, or None."""
        for name in FAMILIES.get(library, (library,)):
            asked = self.file.of(name)
            if asked is not None and asked.allowed is not None:
                needed = specifier(name, extra)
                if exclude_each_other(asked.allowed, needed):
                    place = f"{self.file.path.name}:{asked.number}"
                    return f"needs {name}{needed}, and {place} asks for {asked.text}"
        return None

    def _version(self, distribution: str) -> str | None:
        asked = self.file.of(distribution)
        if asked is None:
            return self._by if distribution in self.file.brought else None
        return (pinned(asked.allowed) if asked.allowed is not None else None) or self._by

    @property
    def _by(self) -> str:
        return f"{PINNED}{self.digest}"


def _read_top(file: CondaFile, node: Any) -> None:
    if not isinstance(node, yaml.MappingNode):
        what = "holds no names and values" if node is not None else "is empty"
        file.wrong.append(Wrong(1, what, 'Begin it with "dependencies:".'))
        return
    found = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in KEYS:
            known = f"Known here: {', '.join(KEYS)}."
            number = key.start_mark.line + 1
            file.wrong.append(Wrong(number, f"{name} is unknown{nearest(name, KEYS)}", known))
        found[name] = value
    listed = found.get("dependencies")
    if not isinstance(listed, yaml.SequenceNode):
        number = listed.start_mark.line + 1 if listed is not None else 1
        what = "names no list of dependencies"
        file.wrong.append(Wrong(number, what, 'Write "dependencies:" with a line each.'))
        return
    for item in listed.value:
        _read_item(file, item)


def _read_item(file: CondaFile, item: Any) -> None:
    number = item.start_mark.line + 1
    if isinstance(item, yaml.ScalarNode):
        _read_condas(file, number, str(item.value).strip())
        return
    pairs = item.value if isinstance(item, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == "pip" and isinstance(value, yaml.SequenceNode):
            file.has_pip = True
            for line in value.value:
                _read_pips(file, line)
            return
    what = "is neither a package nor a pip section"
    file.wrong.append(Wrong(number, what, 'Write "- name=version", or "- pip:" with a list.'))


def _read_condas(file: CondaFile, number: int, text: str) -> None:
    match = CONDAS.match(text)
    if match is None:
        file.wrong.append(Wrong(number, f"{text} is no package", 'Write "name=version".'))
        return
    name, rest = folded(match[1]), match[2]
    try:
        allowed = SpecifierSet(_in_pips_words(rest))
    except InvalidSpecifier:
        what = f"{text} is of no version that can be read"
        file.wrong.append(Wrong(number, what, 'Write "name=version".'))
        return
    asked = Asked(number, text, CONDAS_NAMES.get(name, name), allowed)
    if name == "python":
        file.python = asked
    else:
        file.asked.append(asked)


def _in_pips_words(rest: str) -> str:
    """Return conda's "=3.11", "=3.11.4=build" or ">=3.11,<3.13" as pip would have it."""
    rest = rest.strip().strip("[]")
    if re.match(r"=?[\d*]", rest):
        version = re.split(r"[=\s]", rest.removeprefix("="), maxsplit=1)[0].removesuffix(".*")
        return "" if version in ("", "*") else f"=={version}.*"
    return re.sub(r"(==[^=,\s]+)=\S+", r"\1", rest.replace(" ", ""))


def _read_pips(file: CondaFile, line: Any) -> None:
    number = line.start_mark.line + 1
    text = str(line.value).strip() if isinstance(line, yaml.ScalarNode) else ""
    if not text:
        file.wrong.append(Wrong(number, "is no line of pip's", 'Write "- name==version".'))
        return
    file.lines.append((number, text))
    plain = re.split(r"\s#|\s--hash", text, maxsplit=1)[0].strip()
    egg = re.search(r"#egg=([\w.-]+)", text)
    if egg and "git+" in text:
        file.asked.append(Asked(number, text, folded(egg[1]), None))
    elif not OPTION.match(plain) and "git+" not in plain.partition("@")[0]:
        try:
            requirement = Requirement(plain)
        except InvalidRequirement:
            if "/" not in plain and not plain.endswith((".whl", ".gz")):
                what = f"{text} is no requirement that pip reads"
                file.wrong.append(Wrong(number, what, 'Write "name==version".'))
            return
        allowed = None if requirement.url else requirement.specifier
        file.asked.append(Asked(number, text, folded(requirement.name), allowed))


def _python(file: CondaFile) -> Iterator[Wrong]:
    needed = f"Write python={OLDEST_PYTHON} or newer."
    if file.python is None:
        yield Wrong(0, "names no Python", f'Add "- python={OLDEST_PYTHON}" to its dependencies.')
    elif file.python.allowed is not None and exclude_each_other(
        file.python.allowed, SpecifierSet(f">={OLDEST_PYTHON}")
    ):
        what = f"{file.python.text} is older than the Python {OLDEST_PYTHON} of drupe"
        yield Wrong(file.python.number, what, needed)


def _lacking(file: CondaFile) -> Iterator[Wrong]:
    """Yield what drupe itself needs and nobody installs: its wheel travels without dependencies."""
    lacking = []
    for needed in asked_for():
        asked = file.of(needed.name)
        if asked is None:
            lacking.append(needed.name)
        elif asked.allowed and exclude_each_other(asked.allowed, needed.specifier):
            what = f"{asked.text} contradicts {needed.name}{needed.specifier}, which drupe needs"
            yield Wrong(asked.number, what, "Mend this line.")
    if lacking:
        lines = [f"{name}=={version}" for name in lacking if (version := installed_version(name))]
        where = "to its pip section" if file.has_pip else 'in a pip section ("- pip:" with a list)'
        what = f"lacks {', '.join(lacking)}, which drupe itself needs there"
        yield Wrong(0, what, f"Add {where}: {', '.join(lines)}.")


def _families(file: CondaFile, providers: Sequence[str]) -> Iterator[Wrong]:
    """Yield siblings that overwrite each other's files, and one that lacks what is asked for."""
    for library, names in FAMILIES.items():
        there = [asked for name in names if (asked := file.of(name))]
        for second in there[1:]:
            first = f"{there[0].name} (line {there[0].number})"
            what = f"{second.text} overwrites files of {first}"
            yield Wrong(second.number, what, "Keep one of them.")
        for provider in providers:
            short = PROVIDERS.get(provider, ("", ""))[1]
            wanted = OF_PROVIDERS.get(short, {}).get(library)
            if wanted and there and wanted not in (each.name for each in there):
                what = f"{there[0].text} holds no {provider}, which the system is to have"
                yield Wrong(there[0].number, what, f"Write {wanted} in its place.")
