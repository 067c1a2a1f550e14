"""Generations that are timed: a model in a process of its own, asked one at a time.  Light.

    client                                      python -m drupe.evaluate.timed_genai FOLDER
      | <-- {"imported": bytes} ------------------ |  when all is imported
      | <-- {"loaded": seconds, "anonymous": bytes, "context": tokens} --
      | -- {"prompt_length": 64, "new_tokens": 32} ->
      | <-- {"seconds": [0.41, 0.02, 0.02, ...]} -- |  the prompt with the first token, then each

A process a model: what one holds in memory and how its threads wait disturb no other, so several
can be asked in turns; and their memory can be measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import drupe
from drupe.core.errors import DrupeError
from drupe.core.model import Model
from drupe.core.process import anonymous_bytes, death
from drupe.core.silence import SILENT

SAMPLE_SECONDS = 0.01
PROGRAMS = {
    "onnx-genai": "drupe.evaluate.timed_genai",
    "hf": "drupe.evaluate.timed_torch",
    "hf-adapter": "drupe.evaluate.timed_torch",
}


@dataclass(frozen=True)
class Generation:
    """One answer, timed, in seconds.

    first: until the first token, the prompt read. others: of each token after it.
    """

    first: float
    others: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """How long the whole took."""
        return self.first + sum(self.others)

    @property
    def per_token(self) -> float:
        """The mean seconds a token after the first."""
        return sum(self.others) / len(self.others)

    @property
    def tokens_per_second(self) -> float:
        """How many tokens a second came after the first."""
        return len(self.others) / sum(self.others)


class Timed:
    """A model that is loaded in a process of its own and answers prompts of any length.

    A context manager. imported, loaded: its anonymous bytes before and after the model was loaded;
    peak: the most so far, sampled every 10 ms (each 0 where the system does not tell).
    """

    def __init__(self, model: Model, threads: int, environment: Mapping[str, str] = os.environ):
        self._where = str(model.path)
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        code = str(Path(drupe.__file__).parents[1])
        paths = [path for path in (environment.get("PYTHONPATH"), code) if path]
        question = json.dumps({"model": model.to_json(), "threads": threads})
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAMS[model.kind], question],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**environment, **SILENT, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.peak = 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        try:
            self.imported = int(self._told()["imported"])
            self._sampler.start()
            told = self._told()
        except BaseException:
            self._stop()
            raise
        self.loaded, self.context = int(told["anonymous"]), int(told["context"])
        self.load_seconds = float(told["loaded"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def answer(self, prompt_length: int, new_tokens: int) -> Generation:
        """Return how long an answer took. Raises DrupeError when the process ends."""
        if prompt_length + new_tokens > self.context:
            raise DrupeError(
                self._where,
                f"holds {self.context} tokens, and {prompt_length} + {new_tokens} were asked for",
                "Ask for a shorter prompt or for fewer new tokens.",
            )
        stream = self._process.stdin
        assert stream is not None
        try:
            question = {"prompt_length": prompt_length, "new_tokens": new_tokens}
            stream.write(json.dumps(question) + "\n")
            stream.flush()
        except OSError as fault:
            raise self._failed() from fault
        first, *others = self._told()["seconds"]
        return Generation(first, tuple(others))

    def _told(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        for line in stream:
            if line.startswith("{"):  # what a library prints is none of ours
                found: dict[str, Any] = json.loads(line)
                return found
        raise self._failed()

    def _failed(self) -> DrupeError:
        status = self._process.wait()
        self._words.seek(0)
        lines = self._words.read().strip().splitlines()
        why = f": {lines[-1]}" if lines else ""
        return DrupeError(
            self._where,
            f"could not be measured, its process {death(status)}{why}",
            "Give a model that runs on this machine; `drupe chat` shows whether it does.",
        )

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, anonymous_bytes(self._process.pid))

    def _stop(self) -> None:
        self._ended.set()
        self._process.kill()
        self._process.communicate()
        self._words.close()
        if self._sampler.is_alive():
            self._sampler.join()


@dataclass(frozen=True)
class Asked:
    """What is asked of each model: how long prompts and answers are, and how often.

    warm_ups: answers before those that count. pause: seconds between two. most_seconds: after
    which no further one is begun (but `FEWEST` are; of the warm-ups one, for half of that time).
    """

    prompt_length: int = 64
    new_tokens: int = 32
    repeats: int = 20
    warm_ups: int = 2
    pause: float = 0.0
    most_seconds: float = 120.0


FEWEST = 6


def in_turns(
    models: Sequence[Timed],
    asked: Asked,
    tell: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[list[Generation]]:
    """Return the generations of each model, asked in turns: what slows the machine slows all.

    The order is turned from round to round, so that none is always the one after another. tell: is
    told how many rounds are done.
    """
    found: list[list[Generation]] = [[] for _ in models]
    begun = clock()
    for done in range(asked.warm_ups):
        if done and clock() - begun > asked.most_seconds / 2:
            break
        for model in models:
            model.answer(asked.prompt_length, asked.new_tokens)
    begun = clock()
    for done in range(asked.repeats):
        if done >= FEWEST and clock() - begun > asked.most_seconds:
            break
        places = list(range(len(models)))
        for place in places if done % 2 == 0 else reversed(places):
            time.sleep(asked.pause)
            found[place].append(models[place].answer(asked.prompt_length, asked.new_tokens))
        tell(done + 1)
    return found


class Loaded(Protocol):
    """A model that answers, in its process. context: how many tokens it holds."""

    context: int

    def answer(self, prompt_length: int, new_tokens: int) -> list[float]:
        """Return the seconds of each token of an answer, the prompt's with those of the first."""


def serve(load: Callable[[Model, int], Loaded]) -> int:
    """Be the process of a model that `load` loads, with so many threads; return 0 at the end."""
    question = json.loads(sys.argv[1])
    _tell({"imported": anonymous_bytes(os.getpid())})
    begun = time.perf_counter()
    model = load(Model.from_json(question["model"]), question["threads"])
    seconds, held = time.perf_counter() - begun, anonymous_bytes(os.getpid())
    _tell({"loaded": seconds, "anonymous": held, "context": model.context})
    for line in sys.stdin:
        asked = json.loads(line)
        _tell({"seconds": model.answer(asked["prompt_length"], asked["new_tokens"])})
    return 0


def prompt_ids(length: int, vocabulary: int) -> list[int]:
    """Return a prompt of that many tokens: which ones they are does not matter to the time."""
    return [(7919 * place + 11) % vocabulary for place in range(length)]


def _tell(told: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
