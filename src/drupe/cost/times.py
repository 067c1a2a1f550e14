"""The table of what operators take on this machine, kept in a file of the user's.  Light.

    {"format": 1, "class": {machine, versions}, "seconds": {"Product MatMulNBits 9728 ...": s},
     "sessions": {a model's shape: [[first, token of the sum, first, token as measured], ...]}}

A file a class of machine and version of the runtime, so that no time is ever told of another. A
file that is torn, or of another format, is as if it were not there. `DRUPE_TIMES` names another
folder; if it is empty, nothing is kept.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.digest import value_digest
from drupe.core.libraries import library_version
from drupe.core.machine import speed_class
from drupe.cost.bill import Attention, Product
from drupe.cost.correction import Session

FORMAT = 1
VARIABLE = "DRUPE_TIMES"
MOST_SESSIONS = 8  # of a model's shape, the latest


@dataclass(frozen=True)
class Nodes:
    """What is neither a product nor attention: norms and sums of `hidden`, products of `width`."""

    hidden: int
    width: int


@dataclass(frozen=True)
class Measurement:
    """An operator in the circumstances that decide its time.

    tokens: how many are computed at once. behind: how many lie in the caches (attention). threads:
    0 leaves them to the runtime. streamed: bytes of all weights that pass between two of its own
    turns; a model that fits into the processor's cache is faster than one that does not.
    """

    operator: Product | Attention | Nodes
    tokens: int
    behind: int = 0
    threads: int = 0
    streamed: int = 0

    @property
    def name(self) -> str:
        """What the table calls it."""
        fields = " ".join(str(value) for value in vars(self.operator).values())
        kind = type(self.operator).__name__
        return (
            f"{kind} {fields} | tokens {self.tokens} behind {self.behind} "
            f"threads {self.threads} streamed {self.streamed}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as plain JSON values."""
        kind = type(self.operator).__name__
        return {**vars(self), "operator": {"kind": kind, **vars(self.operator)}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Measurement:
        """Return the measurement that `to_json` wrote."""
        kinds: dict[str, Any] = {each.__name__: each for each in (Product, Attention, Nodes)}
        operator = dict(value["operator"])
        return cls(**{**value, "operator": kinds[operator.pop("kind")](**operator)})


def table_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the table of this machine is kept, or None where none is to be."""
    if environment.get(VARIABLE) == "":
        return None
    return _folder(environment) / f"{value_digest(table_class())[:16]}.json"


def table_class() -> dict[str, Any]:
    """Return what the times depend on: the machine and the runtime."""
    return {**speed_class(), "onnxruntime": library_version("onnxruntime")}


def read_times(file: Path | None) -> dict[str, float]:
    """Return {name of a measurement: seconds} of a table; {} where there is none of use."""
    with suppress(ValueError, TypeError, AttributeError):
        times = {str(name): float(each) for name, each in _read(file).get("seconds", {}).items()}
        return {name: seconds for name, seconds in times.items() if seconds > 0}
    return {}


def read_sessions(shape: str, file: Path | None) -> list[Session]:
    """Return what sessions of models of a shape took, the latest last."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        found = [Session(*map(float, each)) for each in _read(file)["sessions"][shape]]
        return [each for each in found if min(vars(each).values()) > 0]
    return []


def add_times(times: Mapping[str, float], file: Path | None) -> None:
    """Add to the table, newer times in place of older ones; where that fails, nothing is kept."""
    _write(file, {"seconds": {**read_times(file), **times}})


def add_session(shape: str, session: Session, file: Path | None) -> None:
    """Add what a session took; where that fails, it is not kept."""
    latest = [*read_sessions(shape, file), session][-MOST_SESSIONS:]
    others = _read(file).get("sessions", {})
    _write(file, {"sessions": {**others, shape: [list(vars(each).values()) for each in latest]}})


def _read(file: Path | None) -> dict[str, Any]:
    """Return the content of a table of this machine; {} where there is none of use."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        value: dict[str, Any] = {} if file is None else json.loads(file.read_text("utf-8"))
        if value["format"] == FORMAT and value["class"] == table_class():
            return value
    return {}


def _write(file: Path | None, changed: Mapping[str, Any]) -> None:
    if file is None:
        return
    value = {**_read(file), "format": FORMAT, "class": table_class(), **changed}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f".{file.name}.{os.getpid()}")
        written.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(written, file)


def _folder(environment: Mapping[str, str]) -> Path:
    if VARIABLE in environment:
        return Path(environment[VARIABLE])
    home = Path.home()
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA", home / "AppData" / "Local")) / "drupe" / "times"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "drupe" / "times"
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "drupe" / "times"
