"""Why one key is not another: the parts that they were made of, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "(none)"
SHORT = 12
Parts = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One part in which two keys differ, in words; `inner` says why two parents do."""

    part: str
    before: Any
    after: Any
    inner: tuple[Difference, ...] = ()

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield the difference as people read it, each parent's own below it."""
        yield f"{indent}{self.part}: {_shown(self.before)} -> {_shown(self.after)}"
        for difference in self.inner:
            yield from difference.lines(indent + "  ")

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain JSON values."""
        inner = [difference.to_json() for difference in self.inner]
        return {"part": self.part, "before": self.before, "after": self.after, "inner": inner}


def differences(before: Parts, after: Parts, known: Mapping[str, Parts]) -> list[Difference]:
    """Return the parts in which two keys differ.

    before, after: as `Operation.key_parts` gives them. known: {key: its parts}, in which the
    parents of both are looked up, so that a difference is followed to where it began.
    """
    one, other = _named(before), _named(after)
    names = [*one, *(name for name in other if name not in one)]
    found = []
    for name in names:
        old, new = one.get(name, ABSENT), other.get(name, ABSENT)
        if old != new:
            inner: list[Difference] = []
            part = name
            if name.startswith("parent ") and old in known and new in known:
                inner = differences(known[old], known[new], known)
            elif name.startswith("parent "):
                part = f"{name} (the input model, or no result here)"
            found.append(Difference(part, old, new, tuple(inner)))
    return found


def nearest(parts: Parts, candidates: Iterable[tuple[str, Parts]]) -> str | None:
    """Return the key among `candidates`, the latest first, that differs least from `parts`.

    Only keys of the same operation count: of another nothing is to be learnt.
    """
    alike = [(key, each) for key, each in candidates if _operation(each) == _operation(parts)]
    count = {key: len(differences(each, parts, {})) for key, each in alike}
    return min(count, key=lambda key: count[key], default=None)


def _operation(parts: Parts) -> Any:
    return parts.get("operation")


def _named(parts: Parts) -> dict[str, Any]:
    """Return {part in words: value} of a key's parts, fields down to their leaves."""
    named: dict[str, Any] = {}
    for part, value in parts.items():
        if part == "version":
            named["code version"] = value
        elif part == "libraries":
            named |= {f"library {name}": version for name, version in value.items()}
        elif part == "parents":
            named |= {f"parent {place}": key for place, key in enumerate(value, start=1)}
        elif part == "fields":
            named |= dict(_leaves(value, "field "))
        else:
            named["form of the key" if part == "format" else part] = value
    return named


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and set(value) == {"content"}:
        yield f"content of {name}", value["content"]
    elif isinstance(value, dict) and value:
        joint = "" if name.endswith(" ") else "."
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}{joint}{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{name}[{place}]")
    else:
        yield name, value


def _shown(value: Any) -> str:
    """Return a value in one line; of a digest its first digits."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    if is_digest:
        return text[:SHORT]
    return text if len(text) <= 60 else text[:57] + "..."
