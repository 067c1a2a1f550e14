"""What is searched: axes, whose options may have axes of their own, and the points of them.

    Space
      Axis passes.quantize          what a point says of it: "Rtn" or "KQuant"
        Option "Rtn"
          Axis passes.quantize.group_size    asked only where Rtn was chosen
        Option "KQuant"
      Axis passes.builder.precision

Points are numbered: the last axis changes fastest, so that neighbours share the passes in front.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from drupe.core.digest import value_digest

WORDS = re.compile(r'[^\s,;:"]+( [^\s,;:"]+)*')


@dataclass(frozen=True)
class Point:
    """One choice for each axis that is asked: ((axis's name, value as JSON text), ...)."""

    choices: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **values: Any) -> Point:
        """Return the point of these values (for axes whose names are words)."""
        return cls(tuple((name, json.dumps(value)) for name, value in values.items()))

    @cached_property
    def values(self) -> dict[str, Any]:
        """What the point says of each axis."""
        return {name: json.loads(text) for name, text in self.choices}

    @property
    def digest(self) -> str:
        """What names the point in files: 64 hex digits."""
        return value_digest(dict(self.choices))

    @property
    def words(self) -> str:
        """The point as people read it: "lora: r 8; builder: precision int4, rounding rtn".

        Of one pass alone it is not said which.
        """
        groups: dict[str, list[str]] = {}
        for name, value in self.values.items():
            owner, _, field = name.removeprefix("passes.").partition(".")
            if not name.startswith("passes."):
                owner, field = "", name
            field = field.rpartition(".")[2]
            groups.setdefault(owner, []).append(f"{field} {told(value)}".lstrip())
        if len(groups) == 1:
            return ", ".join(*groups.values())
        return "; ".join(f"{owner}: {', '.join(each)}" for owner, each in groups.items())

    def __add__(self, other: Point) -> Point:
        return Point(self.choices + other.choices)


@dataclass(frozen=True)
class Option:
    """One value of an axis, with the axes that are asked where it was chosen."""

    value: Any
    axes: tuple[Axis, ...] = ()

    @cached_property
    def inner(self) -> Space:
        """The space of its own axes."""
        return Space(self.axes)


@dataclass(frozen=True)
class Axis:
    """A choice with its options. name: "passes.builder.int4_block_size"."""

    name: str
    options: tuple[Option, ...]

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> Axis:
        """Return an axis of values that ask for nothing else."""
        return cls(name, tuple(map(Option, values)))

    @cached_property
    def size(self) -> int:
        """How many points the axis has, those of its options' own axes counted."""
        return sum(option.inner.size for option in self.options)


@dataclass(frozen=True)
class Space:
    """Axes in the order of the passes that they are about. Its points are numbered from 0."""

    axes: tuple[Axis, ...] = ()

    @cached_property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(axis.size for axis in self.axes)

    def __iter__(self) -> Iterator[Point]:
        return map(self.point, range(self.size))

    def point(self, number: int) -> Point:
        """Return the point of that number."""
        if not 0 <= number < self.size:
            raise IndexError(number)
        found: list[Point] = []
        for axis in reversed(self.axes):
            number, within = divmod(number, axis.size)
            for option in axis.options:
                if within < option.inner.size:
                    own = Point(((axis.name, json.dumps(option.value)),))
                    found.append(own + option.inner.point(within))
                    break
                within -= option.inner.size
        return sum(reversed(found), Point())

    def number(self, point: Point) -> int:
        """Return the number of a point; raises KeyError for one of another space."""
        number, values = 0, dict(point.choices)
        for axis in self.axes:
            text, before = values[axis.name], 0
            for option in axis.options:
                if json.dumps(option.value) == text:
                    number = number * axis.size + before + option.inner.number(point)
                    break
                before += option.inner.size
            else:
                raise KeyError(text)
        return number

    def every_axis(self) -> Iterator[Axis]:
        """Yield each axis, and behind it those of its options."""
        for axis in self.axes:
            yield axis
            for option in axis.options:
                yield from option.inner.every_axis()


def short(name: str) -> str:
    """Return an axis's name as people read it: without what all of them begin with."""
    return name.removeprefix("passes.")


def told(value: Any) -> str:
    """Return a value as people read it: words without their quotes."""
    plain = isinstance(value, str) and WORDS.fullmatch(value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
