"""What the times of answers say: latency, throughput, and one model beside another.  Light."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.evaluate.spread import Estimate, median, numbers
from drupe.evaluate.timed import Generation

MILLISECONDS = 1000.0


def latency_numbers(answers: Sequence[Generation]) -> dict[str, Estimate]:
    """Return the numbers of Latency, in milliseconds."""
    return {
        **numbers([MILLISECONDS * each.seconds for each in answers]),
        "first_token": median([MILLISECONDS * each.first for each in answers]),
        "per_token": median([MILLISECONDS * each.per_token for each in answers]),
    }


def throughput_numbers(answers: Sequence[Generation], prompt_length: int) -> dict[str, Estimate]:
    """Return the numbers of Throughput, in tokens a second."""
    return {
        **numbers([each.tokens_per_second for each in answers]),
        "prompt": median([prompt_length / each.first for each in answers]),
    }


def ratios(answers: Sequence[Generation], baseline: Sequence[Generation]) -> dict[str, Estimate]:
    """Return latencies over those of a baseline that was asked in turns with the model.

    The ratio of each round, so that a machine that slows down slows both; then their median.
    """
    pairs = list(zip(answers, baseline, strict=True))
    return {
        "latency": median([ours.seconds / theirs.seconds for ours, theirs in pairs]),
        "first_token": median([ours.first / theirs.first for ours, theirs in pairs]),
        "per_token": median([ours.per_token / theirs.per_token for ours, theirs in pairs]),
    }
