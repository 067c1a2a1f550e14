"""What the points of a search will come to, foretold: for the sampler that measures few of them.

    point -> its export --cost.prediction--> size (exact), memory, time
                       `--rounding errors--> loss, in an order that a measurement sets right

What cannot be foretold (a training's gain) is left open: then measurements alone tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drupe.config.schema import NamedMetric, Search, Workflow
from drupe.core.errors import DrupeError
from drupe.core.goal import Number
from drupe.core.model import Model
from drupe.cost.prediction import Prediction, Predictor
from drupe.cost.rounding_errors import ERRORS
from drupe.evaluate.cost_metrics import AnswerMetric
from drupe.export.passes import ExportGenAI
from drupe.finetune.passes import DoRA, LoftQ, LoRA, MergeAdapterWeights, QLoRA
from drupe.search.calibrated import Calibrated
from drupe.search.constraints import Limit, Objective
from drupe.search.economy import MOST, points_of
from drupe.search.economy import Prediction as Known
from drupe.search.samplers import Sampler
from drupe.search.space import Point, Space

# Passes in front of an export that leave a model's tensors and their shapes as they are.
KEEP_SHAPES = (LoRA, QLoRA, DoRA, LoftQ, MergeAdapterWeights)
BITS = {"int4": 4, "int8": 8}
# Of floats of 16 bits: the square of half a step, relative.
FLOAT_ERRORS = {"fp32": 0.0, "fp16": 2e-8, "bf16": 1e-6}
# Nats a token for a relative squared error of 1: small trained models had 0.2 to 0.7.
NATS = 0.3


@dataclass(frozen=True)
class Forecasts:
    """What can be foretold of a workflow's points. note: hears what was foretold, in a line."""

    workflow: Workflow
    source: Model
    note: Callable[[str], None]

    def sampler(
        self, space: Space, limits: Sequence[Limit], baseline: Mapping[str, Number]
    ) -> Sampler:
        """Return what chooses the points of a space to measure."""
        search = self._search
        exports = {point: self._export(point) for point in points_of(space)}
        predictions = self._predicted(list({each for each in exports.values() if each}))
        known = {
            point: self._known(export, predictions.get(export), baseline) if export else Known()
            for point, export in exports.items()
        }
        strategy = search.strategy
        most = strategy.max_iter or strategy.sampler_config.max_samples or MOST
        from_baseline = {
            each.name: baseline[each.name].value if each.name in baseline else 0.0
            for each in search.objectives
            if not issubclass(type(self._metric(each).metric), AnswerMetric)
        }
        return Calibrated(space, search.objectives, limits, known.__getitem__, from_baseline, most)

    @property
    def _search(self) -> Search:
        assert self.workflow.search is not None
        return self.workflow.search

    @property
    def _base(self) -> Model:
        """The checkpoint that is exported, or whose adapter is merged: the shapes are the same."""
        base = self.source.base or self.source
        return Model("hf", base.path, "")

    @property
    def _is_base_known(self) -> bool:
        """Whether what is exported has the very tensors of the base, but for their values."""
        alternatives = [each.alternatives for each in self._search.passes[:-1]]
        return all(a.schema is MergeAdapterWeights for found in alternatives for a in found)

    def _export(self, point: Point) -> ExportGenAI | None:
        """Return the export of a point, as it is planned; None where there is none to foretell."""
        search = self._search
        try:
            passes = search.passes_at(point, len(search.passes))
        except DrupeError:
            return None  # it is told when the point is tried
        *before, last = (each.step for each in passes)
        if type(last) is not ExportGenAI or any(type(each) not in KEEP_SHAPES for each in before):
            return None
        settled, _ = last.settled(self._base)
        refused = settled.refusal("hf", settled.target) or settled.refusal_of_source(self._base)
        return None if refused else settled

    def _predicted(self, exports: Sequence[ExportGenAI]) -> dict[ExportGenAI, Prediction]:
        """Return what each export will cost; nothing where that cannot be foretold here."""
        asked = [each.metric for each in self._metrics if isinstance(each.metric, AnswerMetric)]
        lengths = {(each.prompt_length, each.new_tokens) for each in asked} or {(64, 32)}
        (prompt_length, new_tokens) = min(lengths)
        predictor = Predictor(self._base, prompt_length, new_tokens)
        try:
            found = predictor.all(exports)
        except DrupeError as fault:
            self.note(f"Nothing is foretold of size and time: {fault.where}: {fault.what}")
            return {}
        return dict(zip(exports, found, strict=True))

    @property
    def _metrics(self) -> list[NamedMetric]:
        return [self._metric(objective) for objective in self._search.objectives]

    def _metric(self, objective: Objective) -> NamedMetric:
        return next(each for each in self.workflow.metrics if each.name == objective.metric)

    def _known(
        self,
        export: ExportGenAI,
        prediction: Prediction | None,
        baseline: Mapping[str, Number],
    ) -> Known:
        found = Known()
        for objective in self._search.objectives:
            named = self._metric(objective)
            base = baseline.get(objective.name)
            value = _cost(named, objective.number, prediction) if prediction else None
            if value is None:
                value = _loss(named, objective, export, base.value if base else None)
            if value is None:
                continue
            exact = named.type == "Size" and prediction is not None and prediction.exact
            exact = exact and self._is_base_known
            kind = "exact" if exact else "rough"
            found = replace(found, **{kind: {**getattr(found, kind), objective.name: value}})
        return found


def _cost(named: NamedMetric, number: str, prediction: Prediction) -> float | None:
    """Return what is foretold of a metric of cost, in its own unit."""
    first, token = prediction.ms_first_token, prediction.ms_per_token
    if named.type == "Size":
        return float(prediction.size_bytes)
    if named.type == "PeakMemory":
        return None if prediction.memory_bytes is None else float(prediction.memory_bytes)
    if first is None or token is None:
        return None
    metric: Any = named.metric
    if named.type == "Latency":
        whole = first + (metric.new_tokens - 1) * token
        return float({"first_token": first, "per_token": token}.get(number, whole))
    if named.type == "Throughput":
        return 1000 * metric.prompt_length / first if number == "prompt" else 1000 / token
    return None


def _loss(
    named: NamedMetric, objective: Objective, export: ExportGenAI, baseline: float | None
) -> float | None:
    """Return about what a metric of quality will say, by how far weights are rounded."""
    nats = NATS * rounding_error(export)
    if named.type == "KLDivergence":
        return nats if objective.number in ("", "kl") else None
    if baseline is None or named.type not in ("Perplexity", "Accuracy", "LmEval"):
        return None
    return baseline - objective.sign * nats * (abs(baseline) or 1.0)


def rounding_error(export: ExportGenAI) -> float:
    """Return the relative squared error of weights that an export rounds."""
    if export.precision not in BITS:
        return FLOAT_ERRORS[export.precision]
    grid = (export.int4_block_size, export.int4_is_symmetric, export.rounding)
    return ERRORS[BITS[export.precision], *grid]
