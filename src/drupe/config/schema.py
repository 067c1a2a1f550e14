"""The canonical schema: what a config says, in Olive's own terms of today.

Everything is frozen, strict and closed: an unknown key is an error. Passes and metrics are not
listed here: their classes are their schema, found by name in the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
)

from drupe.config.open_passes import OpenPass
from drupe.config.packages import PackageConfig
from drupe.config.search_strategy import SearchStrategy
from drupe.config.section import Section
from drupe.config.workspace import NO_WORKSPACE, Workspace
from drupe.core.amounts import read_bytes
from drupe.core.errors import Fault
from drupe.core.goal import SubType
from drupe.core.operation import Metric, Pass
from drupe.core.resource import Remote, kind_of
from drupe.core.system import NamedSystem
from drupe.core.target import Target
from drupe.search.constraints import Objective
from drupe.search.space import Point, Space


def _a_size(text: str) -> str:
    read_bytes(text)
    return text


Size = Annotated[str, AfterValidator(_a_size)]


class LoadArguments(Section):
    """`load_kwargs` of an HfModel."""

    trust_remote_code: bool = False
    """Allow the model's own Python code, where transformers lacks its architecture."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""


class InputModel(Section):
    """The model to start from."""

    type: Literal["HfModel", "ONNXModel", "Files"]
    """HfModel: a Hugging Face checkpoint. ONNXModel: an ONNX Runtime GenAI folder, to be measured.
    Files: a folder, for passes over files."""
    model_path: Annotated[
        Annotated[str, Tag("local")] | Annotated[Remote, Tag("remote")], Discriminator(kind_of)
    ]
    """A local folder (relative to the config's), a name on the Hub, a model on AzureML, a URL."""
    adapter_path: (
        Annotated[
            Annotated[str, Tag("local")] | Annotated[Remote, Tag("remote")], Discriminator(kind_of)
        ]
        | None
    ) = None
    """Folder of a PEFT adapter of that model, on this machine or elsewhere."""
    task: Literal["text-generation", "text-generation-with-past"] = "text-generation"
    load_kwargs: LoadArguments = LoadArguments()


class EngineConfig(Section):
    """How the job is run and where its results go."""

    host: str | None = None
    """The system on which the passes run; None: this machine."""
    target: str | None = None
    """The system that the model is made for; None: this machine."""
    evaluator: str | None = None
    evaluate: Literal["every-step", "ends", "none"] = "every-step"
    """How much is measured: each stage, the first and the last, or nothing."""
    search_strategy: SearchStrategy | None = None
    """How to choose among what `passes` leaves open; None: nothing is searched."""
    cache_dir: str = Field(default=".drupe-cache", min_length=1)
    cache_quota: Size | None = None
    """How large the cache may grow, "20GB": the results least recently used go after a run."""
    output_dir: str = Field(default="drupe-output", min_length=1)
    log_severity_level: int = Field(default=1, ge=0, le=4)
    """What the terminal tells: 0 and 1 notes too, 2 warnings, 3 and 4 errors alone."""
    execution_providers: list[str] | None = None
    packaging_config: list[PackageConfig] = Field(default=[])
    """How the result is packed beside being delivered as a folder."""
    no_samples: bool = False
    """Leave prompts and answers out of all that is shown and written: the data are private."""


@dataclass(frozen=True)
class NamedPass:
    """An entry of `passes`: its name in the config, its registered type and its fields.

    host: where this pass runs; None: where all do.
    """

    name: str
    type: str
    step: Pass
    host: NamedSystem | None = None


@dataclass(frozen=True)
class NamedMetric:
    """A metric under the name that the table shows.

    sub_types: the numbers of it that rank models or have goals.
    """

    name: str
    type: str
    metric: Metric
    sub_types: tuple[SubType, ...] = ()


@dataclass(frozen=True)
class Search:
    """What is chosen among, and by what.

    passes: with all that is open. objectives: the numbers that rank or have a goal. judged: the
    kinds of model that each of their metrics measures. folder: the config's.
    """

    strategy: SearchStrategy
    passes: tuple[OpenPass, ...]
    objectives: tuple[Objective, ...]
    judged: tuple[tuple[str, ...], ...]
    folder: Path

    @property
    def space(self) -> Space:
        """Every choice of every pass."""
        return self.space_of(0, len(self.passes))

    def space_of(self, first: int, end: int) -> Space:
        """Return the choices of the passes from number `first` to before `end`."""
        return Space(tuple(axis for each in self.passes[first:end] for axis in each.space.axes))

    def passes_at(self, point: Point, count: int) -> tuple[NamedPass, ...]:
        """Return the first `count` passes as a point has them; raises Refused if one is none."""
        found = []
        for each in self.passes[:count]:
            chosen, step = each.at(point, self.folder)
            found.append(NamedPass(each.name, chosen.registered, step, chosen.host))
        return tuple(found)


@dataclass(frozen=True)
class Said:
    """One line for the user: a "note", or a "warning" of what may well be a mistake."""

    text: str
    level: str = "note"


@dataclass(frozen=True)
class Workflow:
    """A whole config, checked: what `plan` works on.

    raw: the canonical config as JSON values, for the lock file.
    notes: one line for each thing that was read otherwise than it was written.
    host: where passes and their proofs run. measures: where metrics do: the target's system.
    unready: what is sound and cannot be run as it is; a plan refuses it.
    settings: what was said in place of the file's values. strict: a warning is a fault.
    places: where each data file is named, "config.json:12: data_configs[0]. ...". lines: where
    each entry of `raw` was written, {"passes.lora": "config.json:30"}. workspace: the one of
    AzureML that is meant where none is named. search: what is chosen among; `passes` then has the
    first of each choice. None: nothing is searched.
    """

    file: str
    input_model: InputModel
    passes: tuple[NamedPass, ...]
    metrics: tuple[NamedMetric, ...]
    engine: EngineConfig
    target: Target
    raw: dict[str, Any]
    notes: tuple[Said, ...]
    host: NamedSystem
    measures: NamedSystem
    workspace: Workspace = NO_WORKSPACE
    search: Search | None = None
    unready: tuple[Fault, ...] = ()
    settings: tuple[str, ...] = ()
    strict: bool = False
    places: dict[Path, str] = field(default_factory=dict, compare=False)
    lines: dict[str, str] = field(default_factory=dict, compare=False)
