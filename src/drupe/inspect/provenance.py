"""Where a model comes from and what its licence is, as the files beside it tell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drupe.inspect.inspection import Licence

REPORT, LOCK, CARD = "report.json", "config.lock.json", "README.md"
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)
CARD_CHARACTERS = 1_000_000
# models--OWNER--NAME/snapshots/COMMIT: how the Hub's own library keeps what it fetched.
SNAPSHOT = re.compile(r"models--(.+)")


@dataclass(frozen=True)
class Run:
    """A run of drupe's: the folder of the model that it delivered, and what it says of itself."""

    model: Path | None
    told: dict[str, str]


def run_in(folder: Path) -> Run | None:
    """Return the run whose output folder this is; None for any other folder."""
    report = _object(folder / REPORT)
    if report is None or "drupe" not in report:
        return None
    lock = _object(folder / LOCK) or {}
    named = report.get("model")
    model = None
    if isinstance(named, str) and (folder / named).resolve().is_relative_to(folder.resolve()):
        model = folder / named
    return Run(model, _told(report, lock))


def run_of(folder: Path) -> Run | None:
    """Return the run that delivered the model in `folder`; None where none did."""
    for above in (folder.parent, folder.parent.parent):
        found = run_in(above)
        if found and found.model and found.model.resolve() == folder.resolve():
            return found
    return None


def _told(report: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, str]:
    told = {"drupe": str(report["drupe"])}
    source = report.get("input_model")
    if isinstance(source, Mapping) and isinstance(source.get("name"), str):
        revision = source.get("revision")
        told["input_model"] = f"{source['name']}{f'@{revision}' if revision else ''}"
    config = lock.get("config")
    passes = config.get("passes") if isinstance(config, Mapping) else None
    if isinstance(passes, Mapping):
        kinds = (each.get("type") for each in passes.values() if isinstance(each, Mapping))
        told["passes"] = ", ".join(str(kind) for kind in kinds)
    for name in ("config", "verdict", "written"):
        if isinstance(report.get(name), str):
            told[name] = report[name]
    return told


def read_licence(folder: Path) -> Licence | None:
    """Return the licence that the model's card names, else the title of its LICENSE file."""
    card = read_card(folder)
    name = card.get("license_name") or card.get("license")
    if isinstance(name, str):
        return Licence(name, CARD)
    for file in sorted(folder.glob("LICEN[CS]E*")):
        title = next(filter(None, map(str.strip, _text(file).splitlines())), None)
        if title is not None:
            return Licence(title, file.name)
    return None


def read_card(folder: Path) -> Mapping[str, Any]:
    """Return the front matter of the model's card; {} where there is none that can be read."""
    match = FRONT_MATTER.match(_text(folder / CARD))
    if match is None:
        return {}
    try:
        value = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, Mapping) else {}


def read_provenance(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return what card, config and place tell of where a model comes from."""
    told: dict[str, str] = {}
    card = read_card(folder)
    base = card.get("base_model")
    if isinstance(base, list):
        base = ", ".join(map(str, base))
    if isinstance(base, str):
        told["base_model"] = base
    place = folder.resolve()
    match = SNAPSHOT.fullmatch(place.parent.parent.name)
    if match and place.parent.name == "snapshots":
        told["hub"] = f"{match[1].replace('--', '/', 1)}@{place.name}"
    if isinstance(config.get("transformers_version"), str):
        told["transformers"] = config["transformers_version"]
    return told


def _object(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(file: Path) -> str:
    """Return the beginning of a file of text; "" where there is none."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(CARD_CHARACTERS)
    except OSError:
        return ""
