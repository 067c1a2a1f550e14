"""What lies beside an exported model in its folder: verify.py with its values, Foundry's file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from drupe.core.files import write_atomic
from drupe.outcome import Stage

DELIVERED = Path(__file__).parent / "delivered"
VERIFY, VALUES, FOUNDRY = "verify.py", "verify.json", "inference_model.json"
COMPANIONS = (VERIFY, VALUES, FOUNDRY)
PLAIN = "{Content}"


@cache
def program(name: str) -> bytes:
    """Return the text of a program that is delivered as it is."""
    return (DELIVERED / name).read_bytes()


def companions(stage: Stage, name: str) -> dict[str, bytes]:
    """Return {file name: content} of what goes with `stage` into its folder called `name`.

    Nothing but what `verify.py` needs is read from the golden values, and no path is in them.
    """
    if stage.kind != "onnx-genai":
        return {}
    goldens = stage.goldens or {}
    found = {FOUNDRY: _json(foundry(name, goldens.get("chat_prompt")))}
    if goldens:
        values = {key: value for key, value in goldens.items() if key != "chat_prompt"}
        found |= {VERIFY: program(VERIFY), VALUES: _json(values)}
    return found


def foundry(name: str, chat_prompt: str | None) -> dict[str, Any]:
    """Return what Foundry Local reads of a model: its name and how a prompt is framed."""
    template = {"assistant": PLAIN, "prompt": chat_prompt or PLAIN}
    return {"Name": name, "PromptTemplate": template}


def write_companions(stage: Stage, folder: Path, name: str) -> None:
    """Write what goes with `stage` into `folder`, where it is not there as it should be.

    Foundry's file is the user's once it is there: the name and the template are theirs to change.
    """
    for file_name, content in companions(stage, name).items():
        file = folder / file_name
        if file.is_file() and (file_name == FOUNDRY or file.read_bytes() == content):
            continue
        write_atomic(file, content)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
