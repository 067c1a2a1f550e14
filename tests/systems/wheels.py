"""Wheels of what is installed here, and of a library of the tests, so that no index is asked."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

from drupe.core.requirements import asked_for, folded


def write_wheel(name: str, folder: Path) -> Path:
    """Write an installed distribution as the wheel that it came of."""
    distribution = importlib.metadata.distribution(name)
    tags = [
        line.removeprefix("Tag: ").strip()
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    files = {
        str(file): Path(str(file.locate())).read_bytes()
        for file in distribution.files or ()
        if not str(file).startswith("..") and "__pycache__" not in str(file)
    }
    plain = folded(name).replace("-", "_")
    about = next(str(Path(path).parent) for path in files if path.endswith(".dist-info/METADATA"))
    files.pop(f"{about}/RECORD", None)
    target = folder / f"{plain}-{distribution.version}-{_joined(tags)}.whl"
    return _write(target, files, about)


def write_toy_library(folder: Path, version: str) -> Path:
    """Write a wheel of a library that decides the result of one of the toy passes."""
    about = f"toy_library-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: toy-library\nVersion: {version}\n"
    files = {
        "toy_library.py": f"VERSION = {version!r}\n".encode(),
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return _write(folder / f"toy_library-{version}-py3-none-any.whl", files, about)


def _joined(tags: list[str]) -> str:
    python, abi, _ = tags[0].split("-")
    return f"{python}-{abi}-{'.'.join(tag.split('-')[2] for tag in tags)}"


def _write(target: Path, files: dict[str, bytes], about: str) -> Path:
    record = []
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            record.append(f"{path},sha256={digest.rstrip('=')},{len(content)}\n")
        archive.writestr(f"{about}/RECORD", "".join(record) + f"{about}/RECORD,,\n")
    return target


def write_drupes_needs(folder: Path) -> None:
    """Write wheels of what drupe itself needs, and of what that needs."""
    left, found = [each.name for each in asked_for()], set()
    while left:
        name = left.pop()
        if folded(name) not in found:
            found.add(folded(name))
            write_wheel(name, folder)
            left += [each.name for each in asked_for("", name)]
