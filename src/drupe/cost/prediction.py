"""What an export will cost on this machine, before there is one.  Light.

    predict(step, source)               size, memory and time of one export
    Predictor(source).all([step, ...])  of many: what is alike is read and measured once

Size is arithmetic: the graph is built from headers (`cost.draw_up`). Memory is weights as the
runtime lays them out, caches and activations (`cost.memory`). Time is a sum over the operators of
the graph, each measured on this machine (`cost.clock`, kept in `cost.times`), corrected by what
real sessions took (`cost.correction`). What needs heavy imports is asked of programs of their own.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drupe.core.errors import DrupeError, Refused
from drupe.core.model import Model
from drupe.core.silence import SILENT
from drupe.cost.bill import Bill
from drupe.cost.correction import NONE, Correction, Session, corrected_by
from drupe.cost.memory import memory_bytes
from drupe.cost.times import (
    Measurement,
    Nodes,
    add_session,
    add_times,
    read_sessions,
    read_times,
    table_file,
)
from drupe.export.passes import ExportGenAI

LONGEST_SECONDS = 900
# Bytes that pass between two turns of the same weights matter up to a few times the processor's
# cache; they are told in powers of two, so that alike models share their measurements.
MOST_STREAMED = 2**26

Bills = Callable[[Model, Sequence[ExportGenAI]], list[Bill]]
Times = Callable[[Sequence[Measurement]], Mapping[str, float]]


@dataclass(frozen=True)
class Prediction:
    """What an export will cost.

    size_bytes: of its files, to the byte if `exact`. memory_bytes: the most that a process holds
    which answers. summed: the seconds of the operators of a prompt, and of a token after it. Both
    are None where no operator of the target can be measured here. notes: how figures came about.
    """

    size_bytes: int
    exact: bool
    memory_bytes: int | None
    summed: tuple[float, float] | None
    notes: tuple[str, ...]
    bill: Bill
    correction: Correction = NONE

    @property
    def ms_first_token(self) -> float | None:
        """Milliseconds until the first token, the prompt read."""
        return None if self.summed is None else 1000 * self.correction.first(self.summed[0])

    @property
    def ms_per_token(self) -> float | None:
        """Milliseconds of each token after the first."""
        return None if self.summed is None else 1000 * self.correction.token(self.summed[1])

    @property
    def tokens_per_second(self) -> float | None:
        """How many tokens come in a second after the first."""
        return None if self.ms_per_token is None else 1000 / self.ms_per_token

    @property
    def reasons(self) -> tuple[str, ...]:
        """How each figure came about, a line each."""
        return self.notes if self.summed is None else (*self.notes, self.correction.reason)

    def session(self, first: float, token: float) -> Session:
        """Return what a real session took beside what was summed, for a correction: seconds."""
        assert self.summed is not None
        return Session(*self.summed, first, token)


def predict(
    step: ExportGenAI, source: Model, *, prompt_length: int = 64, new_tokens: int = 32
) -> Prediction:
    """Return what an export of a checkpoint will cost on this machine.

    Raises DrupeError for a checkpoint that cannot be exported, with the words of the exporter.
    """
    return Predictor(source, prompt_length, new_tokens).all([step])[0]


@dataclass
class Predictor:
    """Predicts exports of one checkpoint, for one length of prompts and answers.

    bills: tells what exports consist of; None asks a program of its own, which imports what that
    takes. times: gives the seconds of measurements; None measures what the table of this machine
    lacks.
    sessions: what real ones took, by which the sums are corrected; None: those that were written
    down for models of this shape (`remember`).
    """

    source: Model
    prompt_length: int = 64
    new_tokens: int = 32
    bills: Bills | None = None
    times: Times | None = None
    sessions: Sequence[Session] | None = None

    def all(self, steps: Sequence[ExportGenAI]) -> list[Prediction]:
        """Return the prediction of each step, in their order."""
        bills = (self.bills or drawn_up)(self.source, steps)
        asked = [
            measurement
            for bill, step in zip(bills, steps, strict=True)
            if _is_timed(bill, step)
            for turn in self._turns(bill, step)
            for measurement, _ in turn
        ]
        known = (self.times or measured_here)(list(dict.fromkeys(asked)))
        return [self._one(*pair, known) for pair in zip(bills, steps, strict=True)]

    def remember(self, prediction: Prediction, first: float, token: float) -> None:
        """Write down what a real session of a predicted export took: seconds, on this machine."""
        session = prediction.session(first, token)
        add_session(self._shape(prediction.bill), session, table_file())

    def _one(self, bill: Bill, step: ExportGenAI, known: Mapping[str, float]) -> Prediction:
        files = ", ".join(f"{name} {size:,}" for name, size in sorted(bill.files.items()))
        told = f"size: {files} bytes"
        if not bill.exact:
            told = "size: estimated, the graph is that of ONNX Runtime GenAI's builder"
        if not _is_timed(bill, step):
            unknown = f"memory, time: not known for {step.target.provider} from here"
            return Prediction(bill.size_bytes, bill.exact, None, None, (told, unknown), bill)
        memory, reason = memory_bytes(bill, self.prompt_length, self.new_tokens)
        first, token = (
            sum(count * known[measurement.name] for measurement, count in turn)
            for turn in self._turns(bill, step)
        )
        sessions = self.sessions
        if sessions is None:
            sessions = read_sessions(self._shape(bill), table_file())
        notes = (told, reason, *self._told(bill, step, known))
        return Prediction(
            bill.size_bytes,
            bill.exact,
            memory,
            (first, token),
            notes,
            bill,
            corrected_by(sessions),
        )

    def _shape(self, bill: Bill) -> str:
        """Return what models have in common whose sessions correct each other."""
        layers = sum(bill.attentions.values())
        return (
            f"{layers} layers {bill.hidden} {bill.intermediate} {bill.vocabulary} | "
            f"prompt {self.prompt_length} new {self.new_tokens}"
        )

    def _told(self, bill: Bill, step: ExportGenAI, known: Mapping[str, float]) -> Iterator[str]:
        """Yield of what the time of a token is made."""
        _, turn = self._turns(bill, step)
        kinds: dict[str, float] = {}
        for measurement, count in turn:
            kind = type(measurement.operator).__name__
            kinds[kind] = kinds.get(kind, 0.0) + 1000 * count * known[measurement.name]
        shares = ", ".join(f"{kind.lower()} {each:.3g} ms" for kind, each in kinds.items())
        yield f"time of a token: {shares}"

    def _turns(self, bill: Bill, step: ExportGenAI) -> list[list[tuple[Measurement, int]]]:
        """Return what is computed for the prompt, and for a token in the middle of the answer."""
        middle = self.prompt_length + self.new_tokens // 2
        return [
            list(_measurements(bill, step, tokens, behind))
            for tokens, behind in ((self.prompt_length, 0), (1, middle))
        ]


def _is_timed(bill: Bill, step: ExportGenAI) -> bool:
    return bool(bill.products) and step.target.provider == "CPUExecutionProvider"


def _measurements(
    bill: Bill, step: ExportGenAI, tokens: int, behind: int
) -> Iterator[tuple[Measurement, int]]:
    threads = step.target.threads or 0
    # A prompt keeps the processor busy with each weight for so long that where it came from does
    # not show.
    streamed = 0
    if tokens == 1:
        streamed = min(MOST_STREAMED, 2 ** round(math.log2(max(bill.product_bytes, 1))))
    for product, count in bill.products.items():
        yield Measurement(product, tokens, 0, threads, streamed), count
    for attention, count in bill.attentions.items():
        yield Measurement(attention, tokens, behind, threads), count
    yield Measurement(Nodes(bill.hidden, bill.intermediate), tokens, 0, threads), bill.nodes


def drawn_up(source: Model, steps: Sequence[ExportGenAI]) -> list[Bill]:
    """Return the bill of each step, written by a program of its own."""
    fields = [json.loads(step.model_dump_json()) for step in steps]
    told = _asked("drupe.cost.draw_up", {"model": source.to_json(), "steps": fields})
    if "fault" in told:
        where, what, remedy = told["fault"]
        raise Refused(where, what, remedy)
    return [Bill.from_json(each) for each in told["bills"]]


def measured_here(asked: Sequence[Measurement]) -> dict[str, float]:
    """Return the seconds of each measurement: of this machine's table, and what it lacks anew."""
    file = table_file()
    known = read_times(file)
    missing = [each for each in asked if each.name not in known]
    if missing:
        found = _asked("drupe.cost.clock", [each.to_json() for each in missing])
        add_times(found, file)
        known |= found
    return known


def _asked(module: str, question: Any) -> Any:
    """Return what `python -m module` answers to a question, JSON in and out."""
    try:
        return _answered(module, question)
    except (subprocess.TimeoutExpired, OSError, IndexError, ValueError) as fault:
        raise _unforetold(module, str(fault)) from fault


def _unforetold(module: str, why: str) -> DrupeError:
    return DrupeError(
        module.removeprefix("drupe."),
        f"could not foretell what the export takes: {why}",
        "Export the model and time it: drupe benchmark. If it works, report this.",
    )


def _answered(module: str, question: Any) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST_SECONDS,
        env={**os.environ, **SILENT, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise _unforetold(module, last)
    return json.loads(done.stdout.splitlines()[-1])
