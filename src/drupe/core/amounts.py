"""Amounts as people write them: "20GB", "1.5 GiB", "30d"."""

from __future__ import annotations

import re

BYTES = {"B": 1}
BYTES |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", start=1)}
BYTES |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)}
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
NUMBER_AND_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def read_bytes(text: str) -> int:
    """Return the bytes that a text such as "20GB" names; raises ValueError saying what it lacks."""
    return int(_read(text, BYTES, "a size", "20GB"))


def read_seconds(text: str) -> float:
    """Return the seconds that a text such as "30d" names; raises ValueError as `read_bytes`."""
    return _read(text, SECONDS, "a time", "30d")


def _read(text: str, units: dict[str, int], what: str, example: str) -> float:
    folded = {unit.casefold(): count for unit, count in units.items()}
    match = NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2].casefold() not in folded:
        known = ", ".join(units)
        raise ValueError(f'should be {what} with its unit, such as "{example}" (units: {known})')
    return float(match[1]) * folded[match[2].casefold()]
