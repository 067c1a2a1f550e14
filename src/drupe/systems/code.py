"""drupe's own code and that of its plug-ins as it travels: on another Python's path, or as wheels.

What is installed here goes along as it is, also where it was never built (an editable install):
the packages, and of each distribution what says its version and its entry points.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

from drupe.core.digest import value_digest
from drupe.core.files import remove_tree, replace_folder

GROUPS = ("drupe.passes", "drupe.metrics", "drupe.systems")
WHEEL = "Wheel-Version: 1.0\nGenerator: drupe\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LEFT_OUT = ("__pycache__",)
STAMP = (1980, 1, 1, 0, 0, 0)  # so that the same code gives the same bytes


@dataclass(frozen=True)
class Code:
    """A distribution as files: {path in the archive: content}."""

    name: str
    version: str
    files: dict[str, bytes]

    @property
    def wheel_name(self) -> str:
        """What its wheel is called."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def distributions() -> dict[str, set[str]]:
    """Return the packages of drupe, then of each distribution that adds to it."""
    found = {"drupe": {"drupe"}}
    for group in GROUPS:
        for entry in importlib.metadata.entry_points(group=group):
            if entry.dist is not None:
                found.setdefault(entry.dist.name, set()).add(entry.module.partition(".")[0])
    return found


def installed_code() -> list[Code]:
    """Return drupe, then each distribution that adds to it."""
    found = distributions()
    return [_code(importlib.metadata.distribution(name), found[name]) for name in found]


def put_on_path(folder: Path) -> Path:
    """Return a folder below `folder` to be put on a Python's path; it is written once."""
    codes = installed_code()
    contents = [
        [path, hashlib.sha256(content).hexdigest()]
        for code in codes
        for path, content in sorted(code.files.items())
    ]
    made = folder / value_digest(contents)[:16]
    if not made.is_dir():
        staging = folder / f".{made.name}.{os.getpid()}"
        remove_tree(staging)
        for code in codes:
            for path, content in code.files.items():
                (staging / path).parent.mkdir(parents=True, exist_ok=True)
                (staging / path).write_bytes(content)
        replace_folder(staging, made)
    with suppress(OSError):
        os.utime(made)  # housekeeping tells when it was used
    return made


def write_wheels(folder: Path) -> list[Path]:
    """Write each distribution as a wheel into `folder`; the same code gives the same bytes."""
    written = []
    for code in installed_code():
        file = folder / code.wheel_name
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(code.files.items()):
                archive.writestr(zipfile.ZipInfo(path, STAMP), content, zipfile.ZIP_DEFLATED)
        written.append(file)
    return written


def _code(distribution: Distribution, packages: set[str]) -> Code:
    name, version = distribution.name, distribution.version
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {path: content for package in sorted(packages) for path, content in _package(package)}
    for part in ("METADATA", "entry_points.txt"):
        text = distribution.read_text(part)
        if text is not None:
            files[f"{about}/{part}"] = text.encode()
    files[f"{about}/WHEEL"] = WHEEL.encode()
    files[f"{about}/RECORD"] = _record(files, about).encode()
    return Code(name, version, files)


def _package(name: str) -> Iterator[tuple[str, bytes]]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        yield origin.name, origin.read_bytes()
        return
    root = origin.parent
    for file in sorted(root.rglob("*")):
        if file.is_file() and not set(LEFT_OUT) & set(file.parts):
            yield file.relative_to(root.parent).as_posix(), file.read_bytes()


def _record(files: dict[str, bytes], about: str) -> str:
    """Return the list of a wheel's files with their digests, as its format asks for."""
    lines = []
    for path, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{about}/RECORD,,", ""])
