"""The conda file of a job's environment: what of it cannot be installed, or does not fit drupe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Lines that cannot be installed today, or that do not fit: (pattern, why).
DEAD_PINS = (
    (r"\bpython\s*=+\s*(2|3\.([0-9]|10))(\.|\s|$)", "is older than the Python 3.11 of drupe"),
    (r"git\+https?://\S*/olive@", "is a branch of Olive, which no step of drupe needs"),
    (r"\bort-nightly", "is a nightly build, and those are removed after some weeks"),
    (r"\.dev\d{8}", "is a nightly build, and those are removed after some weeks"),
    (r"\bolive-ai\b(?!.*@)", "is Olive, which no step of drupe needs"),
)


def conda_lints(file: Path) -> Iterator[str]:
    """Yield what is wrong with the file, a line each."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        yield f"names {file.name}, which cannot be read: mend the path"
        return
    for number, line in enumerate(lines, 1):
        for pattern, why in DEAD_PINS:
            if not line.lstrip().startswith("#") and re.search(pattern, line, re.IGNORECASE):
                yield f"{file.name}:{number}: {line.strip(' -')} {why}: leave it out"
                break
