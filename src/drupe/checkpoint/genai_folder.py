"""Which graphs a folder of ONNX Runtime GenAI is made of, by its genai_config.json.  Light.

Whoever was given the folder is careful: what lies in it may name no file outside of it.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from drupe.core.errors import Refused

SETTINGS = "genai_config.json"


def decoder_file(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Return the graph of the decoder; raise Refused where it is not named, or not there."""
    file = folder / SETTINGS
    named = _section(_section(settings, "model"), "decoder").get("filename")
    if not isinstance(named, str):
        raise Refused(
            str(file),
            "names no graph (model.decoder.filename)",
            "Give the folder that the exporter wrote, or the .onnx file itself.",
        )
    graph = _inside(folder, named)
    if not graph.is_file():
        what = f"names the graph {named}, which is not there"
        raise Refused(str(file), what, "Copy or download the model again.")
    return graph


def graph_files(folder: Path, settings: Mapping[str, Any]) -> list[Path]:
    """Return the graphs that are there of all that the settings name: those of images, too.

    Raises Refused for one that lies outside of the folder.
    """
    named = dict.fromkeys(_named(settings.get("model")))
    return [graph for graph in (_inside(folder, name) for name in named) if graph.is_file()]


def _named(value: Any) -> Iterator[str]:
    """Yield every file name below `value`; a pipeline is a list of sections."""
    if isinstance(value, Mapping):
        name = value.get("filename")
        if isinstance(name, str):
            yield name
    inner = value.values() if isinstance(value, Mapping) else value
    for each in inner if isinstance(value, Mapping | list) else ():
        yield from _named(each)


def _inside(folder: Path, named: str) -> Path:
    if leaves(named):
        what = f'names the graph "{named}", which lies outside of its folder'
        remedy = "Give the folder as its publisher has it."
        raise Refused(str(folder / SETTINGS), what, remedy)
    return folder / named


def leaves(place: str) -> bool:
    """Return whether a path leads out of its folder, on whatever system it was written.

    A link is no path: it may lead to where a download keeps its files.
    """
    path = PureWindowsPath(place)  # which knows slashes of both kinds
    inside = os.path.normpath(path.as_posix()).split("/")[0] != ".."
    return bool(path.drive or path.root) or not inside


def _section(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = owner.get(key)
    return found if isinstance(found, Mapping) else {}
