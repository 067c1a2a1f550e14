"""The documentation as the tests read it: pages, tagged code blocks, commands.

A code block's words behind its language say what the tests do with it:

    json config           a whole config for the model and data of examples/phi3-emotion
    json part FILE        a part of that config, word for word
    json joined FILE      that config with this joined to it
    sh run                commands that are run in examples/phi3-emotion; "# exit status 2"
    sh job                the same, the demo having been run there
    sh parse              commands that are read, and not run
    text shown            lines that the commands of the block before print
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
CARDS = ("examples/phi3-emotion/DATA-CARD.md", "drupe-olive/README.md")
PAGES = sorted(
    [
        *(ROOT / name for name in (*TOP, *CARDS)),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"# exit status (\d+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the tag behind it, its text."""

    page: str
    language: str
    tag: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.tag}: {self.text.strip().splitlines()[0]}"


@dataclass(frozen=True)
class Command:
    """A line of a shell block: its words, and the exit status that it is said to end with."""

    page: str
    words: tuple[str, ...]
    status: int = 0

    def __str__(self) -> str:
        return " ".join(self.words)


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    found = []
    for _, words, text in FENCED.findall(page.read_text(encoding="utf-8")):
        language, _, tag = words.partition(" ")
        found.append(Block(name_of(page), language, tag.strip(), text))
    return found


def tagged(tag: str) -> list[Block]:
    """Return every block whose tag begins with `tag`."""
    return [
        block
        for page in PAGES
        for block in blocks(page)
        if block.tag == tag or block.tag.startswith(f"{tag} ")
    ]


def commands(block: Block) -> list[Command]:
    """Return the commands of a shell block."""
    found = []
    for line in block.text.splitlines():
        status = STATUS.search(line)
        if words := tuple(shlex.split(line, comments=True)):
            found.append(Command(block.page, words, int(status[1]) if status else 0))
    return found


def value_of(block: Block) -> dict[str, Any]:
    """Return the JSON of a block; members without their braces are an object."""
    text = block.text.strip()
    value: dict[str, Any] = json.loads(text if text.startswith("{") else f"{{{text}}}")
    return value


def joined(one: Any, other: Any) -> Any:
    """Return two parts of a config as one; a value that is there twice must be the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: joined(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    if one != other:
        raise ValueError(f"{one!r} and {other!r} are said of the same thing")
    return one


def contains(whole: Any, part: Any) -> bool:
    """Return whether all that `part` says stands in `whole` in the same place."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(contains(item, value) for item in whole) for value in part)
    return bool(whole == part)
