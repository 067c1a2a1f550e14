"""The metrics of what a model costs, declared: time, memory, size.  Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from drupe.core.operation import Metric
from drupe.core.target import Target
from drupe.evaluate.metrics import JUDGED
from drupe.evaluate.spread import QUANTILES
from drupe.evaluate.timed import Asked

OF_TIMES = ("p50", "avg", "min", "max", *(name for name in QUANTILES if name != "p50"))


class AnswerMetric(Metric):
    """What the metrics of answers share: a model that runs here, and what it is asked.

    What is measured is the machine's too, so that no result is taken from another one.
    """

    takes = JUDGED
    version = 1
    of_machine = True
    libraries = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "peft")
    extra = "cpu"
    preload = ("onnxruntime",)

    target: Target
    prompt_length: int = Field(default=64, ge=1)
    """Tokens of the prompt."""
    new_tokens: int = Field(default=32, ge=2)
    """Tokens of the answer."""


class RepeatedMetric(AnswerMetric):
    """What the metrics of time share: how often the same is asked, in Olive's words."""

    warmup_num: int = Field(default=10, ge=0)
    """Answers before those that count."""
    repeat_test_num: int = Field(default=20, ge=1)
    """Answers that count; from six on the median has an interval."""
    sleep_num: float = Field(default=0.0, ge=0)
    """Seconds between two answers."""
    max_seconds: float = Field(default=120.0, gt=0)
    """After so many no further answer is begun, but six there are; half of them for warming up."""

    def asked(self) -> Asked:
        """Return what is asked of the model."""
        return Asked(
            prompt_length=self.prompt_length,
            new_tokens=self.new_tokens,
            repeats=self.repeat_test_num,
            warm_ups=self.warmup_num,
            pause=self.sleep_num,
            most_seconds=self.max_seconds,
        )

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what weights that pass through the memory once a token take at 12 GB/s."""
        answers = self.warmup_num + self.repeat_test_num
        tokens = self.new_tokens + self.prompt_length / 8
        seconds = min(answers * tokens * model_bytes / 12e9, self.max_seconds)
        return 2.0 + seconds, 200 * 10**6 + int(1.2 * model_bytes), 0


class Latency(RepeatedMetric):
    """How long an answer takes, in milliseconds: the model alone on the machine, one user.

    An exported model answers by ONNX Runtime GenAI, a checkpoint by torch, in a process of its own.
    """

    work = "drupe.evaluate.speed:latency"
    numbers: ClassVar[Mapping[str, bool | None]] = {
        **dict.fromkeys(OF_TIMES, False),
        "first_token": False,
        "per_token": False,
    }


class Throughput(RepeatedMetric):
    """How many tokens a second an answer brings, the first one (which waits for the prompt) aside.

    `prompt`: how many tokens of the prompt are read in a second.
    """

    work = "drupe.evaluate.speed:throughput"
    numbers: ClassVar[Mapping[str, bool | None]] = {**dict.fromkeys(OF_TIMES, True), "prompt": True}


class Size(Metric):
    """How many bytes the model's files have, all of them."""

    takes = JUDGED
    work = "drupe.evaluate.size:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"bytes": False}

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return next to nothing."""
        return 0.1, 10**7, 0


class PeakMemory(AnswerMetric):
    """The most memory that a process holds which loads the model and answers once.

    Memory that nobody can take back: weights that lie mapped to their file are not in it.
    """

    work = "drupe.evaluate.peak_memory:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"peak_bytes": False, "loaded_bytes": False}

    repeats: int = Field(default=3, ge=1)
    """Processes that load it, one after the other; the largest peak counts."""

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what loading takes at 0.5 GB/s."""
        return 1.0 + self.repeats * model_bytes / 0.5e9, 200 * 10**6 + int(1.2 * model_bytes), 0
