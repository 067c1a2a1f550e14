"""The Hugging Face settings and the cache: what a run will find. Never a token's value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from drupe.core.cache import Cache
from drupe.core.stock import survey
from drupe.doctor.finding import Finding, looking_at

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
TRUE = ("1", "ON", "YES", "TRUE")


def settings(cache: Path) -> Iterator[Finding]:
    """Look at the environment's settings for the Hub, and at the folder `cache`."""
    yield from hub(os.environ)
    failed: list[Finding] = []
    with looking_at("cache", failed):
        yield cached(cache)
    yield from failed


def hub(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Tell where the Hub's files lie, whether there is a token, and what is switched off."""
    home = Path(environment.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    yield Finding("Hub's files", "fine", str(home))
    if environment.get("HF_TOKEN"):
        yield Finding("Hub's token", "fine", "HF_TOKEN is set")
    elif Path(environment.get("HF_TOKEN_PATH", home / "token")).is_file():
        yield Finding("Hub's token", "fine", "there is one from `hf auth login`")
    else:
        remedy = "Only gated and private models need one: set HF_TOKEN."
        yield Finding("Hub's token", "note", "none", remedy)
    switched = [name for name in OFFLINE if environment.get(name, "").upper() in TRUE]
    if switched:
        found = f"{', '.join(switched)} set: nothing is downloaded"
        yield Finding("network", "note", found, f"To download: unset {' '.join(switched)}")


def cached(folder: Path) -> Finding:
    """Tell how many results a cache holds, which of them are of no use, and what was left over."""
    if not folder.is_dir():
        return Finding("cache", "fine", f"none yet at {folder}")
    entries = survey(Cache(folder)).entries
    unfinished = len(list((folder / "work").glob("*")))
    found = f"{len(entries)} results at {folder}"
    if unfinished:
        found += f", {unfinished} steps begun and not finished"
    useless = sum(entry.state in ("damaged", "other format") for entry in entries)
    if useless:
        remedy = f"drupe cache verify --repair --cache-dir {folder}"
        return Finding("cache", "note", f"{found}, {useless} of them of no use", remedy)
    return Finding("cache", "fine", found)
