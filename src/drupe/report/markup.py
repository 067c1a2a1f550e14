"""HTML made of elements: whatever is no markup itself is escaped, so nothing can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = ("br", "meta")
# Characters that HTML forbids, drops or changes: shown as their pictures, U+2400 to U+2421.
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


class Markup(str):
    """Text that is HTML already; every other text is escaped where it is put."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element around `children`.

    attributes: `class_` is written class, `_` as -; None is left out. There is no `style`: the
    page's policy would not apply it.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(map(_escaped, children))
    return Markup(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{inner}</{name}>")


def together(parts: Iterable[str]) -> Markup:
    """Return parts one after another, each on a line of its own."""
    return Markup("\n".join(map(_escaped, parts)))


def _escaped(text: str) -> str:
    if isinstance(text, Markup):
        return text
    return escape(text, quote=True).translate(PICTURES)
