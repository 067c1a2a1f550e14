r"""`text_template`: text with column names in braces, and nothing else.

    "### Text: {phrase}\n### The tone is:\n{tone}"      {{ and }} are literal braces

Not `str.format`: a name is only the name of a column ("{Best Answer}", "{a.b}"), so that no
template can reach into objects.  Light: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drupe.core.errors import DrupeError, nearest

WHERE = "text_template"
_PIECE = re.compile(r"(?P<doubled>\{\{|\}\})|\{(?P<column>[^{}]*)\}|(?P<text>[^{}]+)|(?P<stray>.)")


@dataclass(frozen=True)
class Text:
    """Literal text, its braces no longer doubled."""

    text: str


@dataclass(frozen=True)
class Column:
    """The place of a column's value."""

    name: str


@dataclass(frozen=True)
class Template:
    """A parsed template; `parse` makes it."""

    pieces: tuple[Text | Column, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are named, each once, in order of their first place."""
        return tuple(dict.fromkeys(p.name for p in self.pieces if isinstance(p, Column)))

    @property
    def answer_column(self) -> str:
        """The last column that is named; raises DrupeError when none is."""
        return self._answer()[1]

    def render(self, row: Mapping[str, Any], number: int | None = None) -> str:
        """Return the text of a row; `number` (from 1) is for the error's words.

        Raises DrupeError when a column is missing or has no value in this row.
        """
        return _render(self.pieces, row, number)

    def prompt(self, row: Mapping[str, Any], number: int | None = None) -> str:
        """Return the text up to the answer: what a model is shown that has to give it.

        Raises DrupeError as `render` does, and for a template without a column.
        """
        return _render(self.pieces[: self._answer()[0]], row, number)

    def _answer(self) -> tuple[int, str]:
        for place in reversed(range(len(self.pieces))):
            piece = self.pieces[place]
            if isinstance(piece, Column):
                return place, piece.name
        raise DrupeError(
            WHERE, "names no column, so it has no answer", "Name the answer's column in braces."
        )


def parse(template: str) -> Template:
    """Return the parsed template; raises DrupeError for a stray brace or an empty name."""
    pieces: list[Text | Column] = []
    literal = ""
    for match in re.finditer(_PIECE, template):
        if match["stray"]:
            raise _stray_brace(template, match.start())
        if match["column"] is None:
            literal += match["text"] or match["doubled"][0]
            continue
        if not match["column"].strip():
            raise DrupeError(
                WHERE,
                f"has braces without a name at character {match.start() + 1}",
                "Write the column's name between them, or {{}} for literal braces.",
            )
        if literal:
            pieces.append(Text(literal))
        pieces.append(Column(match["column"]))
        literal = ""
    if literal:
        pieces.append(Text(literal))
    return Template(tuple(pieces))


def _stray_brace(template: str, place: int) -> DrupeError:
    brace = template[place]
    excerpt = template[max(0, place - 15) : place + 15]
    return DrupeError(
        WHERE,
        f'has a "{brace}" without its partner at character {place + 1}: {excerpt!r}',
        f"Close the column's name, or write {brace * 2} for a literal {brace}.",
    )


def _render(pieces: tuple[Text | Column, ...], row: Mapping[str, Any], number: int | None) -> str:
    return "".join(
        piece.text if isinstance(piece, Text) else value_text(row, piece.name, number)
        for piece in pieces
    )


def value_text(row: Mapping[str, Any], column: str, number: int | None = None) -> str:
    """Return a column's value as text; raises DrupeError when there is none."""
    where = "data" if number is None else f"data, row {number}"
    if column not in row:
        raise missing_column(where, column, tuple(row))
    if row[column] is None:
        raise DrupeError(
            where,
            f'has no value in the column "{column}"; its columns are {_listed(tuple(row))}',
            "Fill in the value or leave the row out.",
        )
    return str(row[column])


def missing_column(where: str, column: str, columns: tuple[str, ...]) -> DrupeError:
    """Return the error for a column that the data do not have."""
    return DrupeError(
        where,
        f'has no column "{column}"; it has {_listed(columns)}{nearest(column, columns)}',
        "Mend the name in text_template or text_cols, or the data.",
    )


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns) or "none"
