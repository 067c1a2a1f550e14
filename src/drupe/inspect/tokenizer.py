"""What lies in a folder of a tokenizer: its class, its vocabulary, a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.core.model import MORE_TEMPLATES
from drupe.inspect.inspection import Tokenizer
from drupe.resources.checks import TOKENIZERS, json_object

TEMPLATE = "chat_template.jinja"


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return what is there of a tokenizer; None where nothing is.

    Raises Refused for a tokenizer.json or tokenizer_config.json that is no JSON object.
    """
    settings_file, whole_file = folder / "tokenizer_config.json", folder / "tokenizer.json"
    settings = json_object(settings_file) if settings_file.is_file() else {}
    whole = json_object(whole_file) if whole_file.is_file() else {}
    found = [file.name for pattern in TOKENIZERS for file in sorted(folder.glob(pattern))]
    if not found and not settings:
        return None
    vocabulary, added = _counted(whole) if whole else (None, None)
    kind = settings.get("tokenizer_class")
    return Tokenizer(
        kind=kind if isinstance(kind, str) else None,
        file=found[0] if found else None,
        vocabulary=vocabulary,
        added=added,
        chat_template=_template(folder, settings),
    )


def _counted(whole: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many tokens there are in all, and how many of them were added to the model's."""
    model, added = whole.get("model"), whole.get("added_tokens")
    known = model.get("vocab") if isinstance(model, Mapping) else None
    words = [each for each in added if isinstance(each, Mapping)] if isinstance(added, list) else []
    if not isinstance(known, list | dict):
        return None, len(words)
    own = set(known) if isinstance(known, dict) else {str(pair[0]) for pair in known if pair}
    return len(own | {str(each.get("content")) for each in words}), len(words)


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the file that holds the chat template, None where there is none."""
    if (folder / TEMPLATE).is_file():
        return TEMPLATE
    if settings.get("chat_template"):
        return "tokenizer_config.json"
    if (folder / "chat_template.json").is_file():
        return "chat_template.json"
    return MORE_TEMPLATES if any(folder.glob(f"{MORE_TEMPLATES}/*.jinja")) else None
