"""What real sessions took beside the sum over their operators: a line through both.  Light.

A session does more than its operators: it fills inputs, searches the next token, goes between
Python and the runtime. That is the same for each token, whatever the weights are: `offset`. And the
operators together are slower or faster than each on its own: `factor`. One session tells one of
the two, two sessions or more tell both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Beyond, it is not a correction any more: something else is wrong with what was measured.
LEAST_FACTOR, MOST_FACTOR = 0.25, 4.0


@dataclass(frozen=True)
class Session:
    """What a session was foretold to take by its operators alone, and what it took: seconds."""

    summed_first: float
    summed_token: float
    first: float
    token: float


@dataclass(frozen=True)
class Line:
    """offset + factor * sum, in seconds."""

    offset: float = 0.0
    factor: float = 1.0

    def at(self, summed: float) -> float:
        """Return the corrected seconds."""
        return self.offset + self.factor * summed


@dataclass(frozen=True)
class Correction:
    """Lines for the prompt and for a token, and of how many sessions they are."""

    of_first: Line = Line()
    of_token: Line = Line()
    sessions: int = 0

    def first(self, summed: float) -> float:
        """Return the corrected seconds of a prompt."""
        return self.of_first.at(summed)

    def token(self, summed: float) -> float:
        """Return the corrected seconds of a token."""
        return self.of_token.at(summed)

    @property
    def reason(self) -> str:
        """How the time was corrected, in a line."""
        if not self.sessions:
            return "time: the sum over the operators; no session has been measured yet"
        counted = f"{self.sessions} session{'s' if self.sessions > 1 else ''}"
        return (
            f"time: corrected by {counted}, a token "
            f"{1000 * self.of_token.offset:.3g} ms + {self.of_token.factor:.3g} of the sum"
        )


NONE = Correction()


def corrected_by(sessions: Sequence[Session]) -> Correction:
    """Return the correction that real sessions tell."""
    return Correction(
        line_through([(each.summed_first, each.first) for each in sessions]),
        line_through([(each.summed_token, each.token) for each in sessions]),
        len(sessions),
    )


def line_through(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line of (sum, measured) with the least squares of relative errors.

    Its offset is never negative and its factor within bounds. One point alone tells the offset, or
    where it took less than the sum, the factor.
    """
    if not points:
        return Line()
    # Dividing each equation offset + factor * x = y by y weighs all errors by their size.
    rows = [(1 / y, x / y) for x, y in points]
    factor = 1.0
    if len(points) > 1:
        aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        a, b = (sum(row[i] for row in rows) for i in (0, 1))
        determinant = aa * bb - ab * ab
        if determinant > 1e-9 * aa * bb:
            factor = (aa * b - ab * a) / determinant
    factor = min(MOST_FACTOR, max(LEAST_FACTOR, factor))
    offset = _offset(rows, factor)
    if offset < 0:
        offset = 0.0
        factor = sum(row[1] for row in rows) / sum(row[1] ** 2 for row in rows)
        factor = min(MOST_FACTOR, max(LEAST_FACTOR, factor))
    return Line(offset, factor)


def _offset(rows: Sequence[tuple[float, float]], factor: float) -> float:
    """Return the best offset for a factor."""
    return sum(row[0] * (1 - factor * row[1]) for row in rows) / sum(row[0] ** 2 for row in rows)
