"""What a run gave: the stages of the chain with what they cost and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drupe.core.cache import Result
from drupe.core.goal import Number
from drupe.core.job import INSIDE
from drupe.core.model import Model
from drupe.core.paired import Difference, difference
from drupe.plan import Plan
from drupe.search.searched import Searched

# What a score tells in the words of the data, and how many samples it left out.
LEFT_OUT = "samples_left_out"
QUOTES = ("samples", "choices", LEFT_OUT)


@dataclass(frozen=True)
class Score:
    """What a metric or a proof says of a stage: the content of its score.json.

    value: None where it was not measured (then `skipped` says why) or is no number (samples).
    low, high: ends of the 95 % interval, where there is one. count: rows measured. samples:
    {"prompt", "answer", "expected"} each. more: what else the metric tells.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    count: int | None
    skipped: str | None
    samples: tuple[dict[str, str], ...]
    more: dict[str, Any]

    def number(self, name: str = "") -> Number | None:
        """Return what the metric gives under a name, "" its own value; None if it gave nothing."""
        told = self.more.get("sub_types", {}).get(name)
        if told is not None:
            return Number(told["value"], told.get("low"), told.get("high"))
        if self.value is None or name not in ("", self.metric):
            return None
        return Number(self.value, self.low, self.high)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Score:
        """Return the score that a score.json holds."""
        more = dict(content)
        return cls(
            metric=more.pop("metric", ""),
            value=more.pop("value", None),
            low=more.pop("low", None),
            high=more.pop("high", None),
            count=more.pop("count", None),
            skipped=more.pop("skipped", None),
            samples=tuple(more.pop("samples", ())),
            more=more,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values, what is absent left out."""
        known = {
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "skipped": self.skipped,
            "samples": list(self.samples) or None,
        }
        return {name: value for name, value in known.items() if value is not None} | self.more

    def without_samples(self) -> Score:
        """Return the score without what it quotes of the data, which is counted instead."""
        more = {name: value for name, value in self.more.items() if name not in QUOTES}
        if self.samples:
            more[LEFT_OUT] = len(self.samples)
        return replace(self, samples=(), more=more)


@dataclass(frozen=True)
class Stage:
    """One stage of the chain as it came out.

    size_bytes: of its files. seconds, peak_bytes: of the pass that made it (0 for the input).
    scores: by the metrics' names. answers: {metric's name: what it says of each row} where it
    does (see `core.paired`). proof: that the stage belongs to the one before it. goldens: how an
    export answers where it was made (see `export.goldens`), None where that was not written down.
    machine: the class of the machine that made it (see `core.machine`), empty for the input.
    within: the stage on the way to which it was made; then it lies nowhere, its size is 0 and what
        it cost is in that stage's. None for all others.
    """

    name: str
    kind: str
    model: Model
    size_bytes: int
    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    scores: dict[str, Score]
    answers: dict[str, Any]
    proof: Score | None
    goldens: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    within: str | None = None

    def rows_of(self, metric: str, number: str = "") -> tuple[str, list[Any]]:
        """Return how the rows behind a number are read (see `core.paired`), and the rows."""
        score, rows = self.scores.get(metric), self.answers.get(metric)
        how = score.more.get("paired") if score is not None else None
        if isinstance(how, dict) and isinstance(rows, dict):  # of several numbers
            number = number or next(iter(score.more.get("sub_types", how)) if score else iter(how))
            how, rows = how.get(number), rows.get(number)
        elif number:
            return "", []
        return (how, rows) if isinstance(how, str) and isinstance(rows, list) else ("", [])


@dataclass(frozen=True)
class Outcome:
    """The stages in order, the last one being the model to deploy.

    path: the folder in which that model is delivered; None where there was no pass.
    seconds: wall time of this run, found results included. searched: what was tried, where this
    is what a search chose; where nothing keeps every limit, it holds the input model alone.
    """

    plan: Plan
    stages: tuple[Stage, ...]
    path: Path | None
    seconds: float
    searched: Searched | None = None

    @property
    def final(self) -> Stage:
        """The stage at the end of the chain."""
        return self.stages[-1]

    def difference(self, stage: Stage, metric: str, number: str = "") -> Difference | None:
        """Return how much larger a metric's number is than the input model's, on the same rows.

        number: by its name, "" the metric's own. None of the input model itself, and where the
        two were not asked the same.
        """
        first = self.stages[0]
        if stage is first:
            return None
        (how, ours), (other, theirs) = (each.rows_of(metric, number) for each in (stage, first))
        return difference(how, ours, theirs) if how == other else None

    @property
    def scores(self) -> dict[str, Score]:
        """What was measured of the final model."""
        return self.final.scores


def stage_of(planned: Plan, name: str, results: Mapping[str, Result]) -> Stage:
    """Return the stage `name` with all that was measured of it."""
    about = [step for step in planned.steps if step.stage == name]
    made = next((results[step.name] for step in about if step.role == "pass"), None)
    outer = next((s for s in planned.steps if s.inside and s.inside.stage == name), None)
    proof = next((results[step.name] for step in about if step.role == "proof"), None)
    scored = {
        step.name.removeprefix(f"{name}: "): results[step.name].model.path
        for step in about
        if step.role == "metric"
    }
    scores = {metric: _score(path) for metric, path in scored.items()}
    if planned.workflow.engine.no_samples:  # here, so that nothing that tells of a run has them
        scores = {metric: score.without_samples() for metric, score in scores.items()}
    proven = _score(proof.model.path) if proof else None
    if outer is not None and outer.inside is not None:  # it was made, and lies nowhere
        kind, facts = outer.inside.operation.gives, results[outer.name].facts.get(INSIDE, {})
        nowhere = Model(kind, Path(), "")
        return Stage(name, kind, nowhere, 0, 0.0, 0, facts, {}, {}, proven, within=outer.stage)
    model = made.model if made else planned.source.model
    return Stage(
        name=name,
        kind=model.kind,
        model=model,
        size_bytes=made.size_bytes if made else planned.source.size_bytes,
        seconds=made.seconds if made else 0.0,
        peak_bytes=made.peak_bytes if made else 0,
        facts={name: fact for name, fact in made.facts.items() if name != INSIDE} if made else {},
        scores=scores,
        answers={
            metric: _read(path / "items.json")
            for metric, path in scored.items()
            if (path / "items.json").exists()
        },
        proof=proven,
        goldens=_goldens(proof.model.path) if proof else None,
        machine=made.machine if made else {},
    )


def _goldens(folder: Path) -> dict[str, Any] | None:
    file = folder / "goldens.json"
    return _read(file) if file.is_file() else None


def _score(folder: Path) -> Score:
    return Score.from_json(_read(folder / "score.json"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
