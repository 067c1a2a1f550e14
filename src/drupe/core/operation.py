"""Pass and Metric: small frozen classes whose fields are their configuration and their key.

    class Reverse(Pass):
        takes, gives = ("files",), "files"
        def run(self, model: Model, out: Path, job: Job) -> None: ...

A built-in names its work by a string, `work = "drupe.finetune.merge:merge"`, so that declaring
is light and the heavy imports happen in the worker alone. What a pass declares is checked here:
the kind of its input before the run, the kind of its output and the unharmed input after it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from drupe.core.dataset import Dataset
from drupe.core.declared import Declared
from drupe.core.digest import identity, value_digest
from drupe.core.errors import ContractError, Refused
from drupe.core.job import Job
from drupe.core.libraries import HERE, Environment
from drupe.core.model import KINDS, Model, missing_files
from drupe.core.target import Target


class Operation(Declared):
    """What passes and metrics share: declared input kinds, a version, deciding libraries.

    takes: the kinds of model that it works on.
    version: goes up when the result for the same fields and input changes.
    libraries: distributions whose versions decide the result; they are part of the key.
    extra: the extra of drupe that installs them, for the error that says they are missing.
    preload: what the fork server imports before it forks a step of this operation: "module", or
        "package:Name" for a package that loads its parts when they are asked for.
    work: "module:function", imported in the worker; a plug-in may define `run` instead.
    of_machine: whether the result is about the machine too (time, memory): then the machine's
        class is part of the key, so that what was measured on one is never told of another.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[str] = ""
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    preload: ClassVar[tuple[str, ...]] = ()
    work: ClassVar[str] = ""
    of_machine: ClassVar[bool] = False

    def key(self, name: str, parents: tuple[str, ...], digest: Callable[[Path], str]) -> str:
        """Return the step's cache key (64 hex digits) under its registered `name`."""
        return value_digest(self.key_parts(name, parents, digest))

    def key_parts(
        self,
        name: str,
        parents: tuple[str, ...],
        digest: Callable[[Path], str],
        environment: Environment = HERE,
    ) -> dict[str, Any]:
        """Return what the key is the hash of: no path, no secret, no time.

        environment: what is installed where the step is to run.
        """
        return {
            "format": 1,
            "operation": name,
            "version": self.version,
            "fields": self.key_form(digest),
            "libraries": {
                library: environment.version(library) for library in self.deciding_libraries()
            },
            "parents": list(parents),
        }

    def deciding_libraries(self) -> tuple[str, ...]:
        """Return the libraries whose versions decide the result, for the fields as they are."""
        return self.libraries

    def refusal_elsewhere(self) -> Refused | None:
        """Return why the step cannot run on another machine, or None."""
        return None

    def refusal_in(self, environment: Environment) -> Refused | None:
        """Return which of the deciding libraries do not fit where the step is to run, or None."""
        libraries = self.deciding_libraries()
        missing = [name for name in libraries if environment.version(name) is None]
        told = [f"needs {', '.join(missing)}"] if missing else []
        for name in libraries:
            unfit = environment.unfit(name, self.extra)
            told += [unfit] if unfit else []
        if not told:
            return None
        extra = f'pip install "drupe[{self.extra}]"' if self.extra else "Install them."
        return Refused(type(self).__name__, "; ".join(told), environment.remedy or extra)

    def refusal(self, kind: str, target: Target) -> Refused | None:
        """Return why this operation cannot work on a model of `kind` for `target`, or None.

        Subclasses extend it with what their fields rule out; it is asked at plan time.
        """
        if not self.accepts(kind):
            return Refused(
                type(self).__name__,
                f"works on {' or '.join(self.takes)}, but what comes before gives {kind}",
                "Mend the order of the passes.",
            )
        return None

    def accepts(self, kind: str) -> bool:
        """Return whether it works on models of `kind`, with its fields as they are."""
        return kind in self.takes

    def settled(self, source: Model) -> tuple[Self, str]:
        """Return the operation with what it leaves to the input model chosen, and a line on that.

        It is asked at plan time, when `source` is there and before there is a key; "" where
        nothing was left open.
        """
        return self, ""

    def refusal_of_source(self, source: Model) -> Refused | None:
        """Return why this operation cannot work on what comes of the input model, or None.

        It is asked at plan time, when `source` is there and what lies between is not yet.
        """
        return None

    def refusal_behind(self, before: Operation, source: Model) -> Refused | None:
        """Return why this operation cannot work on what `before` makes of the input model.

        It is asked at plan time, beside `refusal_of_source`.
        """
        return None

    def variant(self) -> str:
        """Return which of its kinds of work the fields choose ("-int4"), for the journal."""
        return ""

    def work_units(self, model_bytes: int) -> float:
        """Return how much there is to do, in a unit of its own to which time is proportional."""
        return float(model_bytes)

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return (seconds, peak bytes, output bytes) as far as is known; None is not known.

        For a machine on which nothing was measured yet.
        """
        return None, None, None

    def function(self) -> Callable[..., None]:
        """Return the work itself, importing it: the worker's business."""
        if self.work:
            module, _, name = self.work.partition(":")
            function = getattr(importlib.import_module(module), name)
            return lambda *arguments: function(self, *arguments)
        run: Callable[..., None] | None = getattr(self, "run", None)
        if run is None:
            raise ContractError(
                type(self).__name__,
                "declares neither `work` nor `run`",
                "Developer of this pass: name a function, or define run(self, model, out, job).",
            )
        return run


AnyOperation = TypeVar("AnyOperation", bound=Operation)


class Pass(Operation):
    """A model in, a model out.

    proof: the registered name of a metric that compares the result with the input and raises
        when they do not belong together; the engine runs it as a step of its own.
    preview: a module that shows samples of what it trains on (see `finetune.preview`).
    delivers: whether what it gives is written into the output folder, when it is the last one.
    """

    proof: ClassVar[str] = ""
    preview: ClassVar[str] = ""
    delivers: ClassVar[bool] = True

    def proof_fields(self) -> dict[str, Any]:
        """Return the fields of the proof, where it has to know some of this pass's."""
        return {}

    def with_inside(self, before: Operation) -> Self | None:
        """Return this pass as it does the work of `before` inside, or None where it cannot.

        Then nothing is written in between, and the result is the same, byte for byte; the proof of
        `before` is given its input in place of its result. It is asked at plan time of the pass
        behind `before`, where nobody else wants what `before` makes.
        """
        return None

    def training_rows(self) -> Dataset | None:
        """Return the rows that it trains on, to be looked at before; None: it does not train."""
        return None

    def evaluation_rows(self) -> Dataset | None:
        """Return the rows that it measures on while it trains; None: it measures on none."""
        return None

    def apply(self, model: Model, out: Path, job: Job) -> None:
        """Do the work of this pass into the empty folder `out`, and check the declaration."""
        name = type(self).__name__
        if not self.accepts(model.kind):
            raise ContractError(
                name, f"was given {model.kind}, takes {', '.join(self.takes)}", "Mend the plan."
            )
        before = _marks(model.path)
        self.function()(model, out, job)
        missing = missing_files(self.gives, out)
        if missing:
            raise ContractError(
                name,
                f"declares that it gives {KINDS[self.gives].meaning}, but its output lacks "
                f"{', '.join(missing)}",
                "Developer of this pass: write these files, or declare another kind in `gives`.",
            )
        if _marks(model.path) != before:
            raise ContractError(
                name,
                f"changed its input {model.path}",
                "Developer of this pass: write below `out` only.",
            )


class Metric(Operation):
    """A model in (and a reference model, if `compares`), a score out: `score.json`.

    compares: it is given the stage before (a proof) or, named in an evaluator, the input model.
    numbers: what it can give beside each other, each with whether higher is better (None: nobody
        knows but the user); the first is the score's own value, the others stand in score.json as
        {"sub_types": {name: {"value", "low", "high"}}}. Empty: its numbers are the user's to name.
    bounds: of numbers that lie in a range its ends, None where there is none.
    """

    gives: ClassVar[str] = "score"
    compares: ClassVar[bool] = False
    numbers: ClassVar[Mapping[str, bool | None]] = {}
    bounds: ClassVar[Mapping[str, tuple[float | None, float | None]]] = {}

    @classmethod
    def is_proof(cls) -> bool:
        """Return whether it belongs to a pass, and is not for a config to name."""
        return cls.compares and not cls.numbers

    def direction(self, name: str) -> bool | None:
        """Return whether more of the number `name` is better; None: nobody knows but the user."""
        return self.numbers.get(name)

    def giving(self, names: tuple[str, ...]) -> Self:
        """Return the metric as it gives these of its numbers, which a config asks for."""
        return self

    def apply(self, model: Model, reference: Model | None, out: Path, job: Job) -> None:
        """Measure `model` (against `reference`) and write score.json below `out`."""
        name = type(self).__name__
        given = (model, reference) if self.compares else (model,)
        before = _marks(model.path)
        self.function()(*given, out, job)
        if missing_files("score", out):
            raise ContractError(name, "wrote no score.json", "Developer of this metric: write one.")
        if _marks(model.path) != before:
            raise ContractError(
                name,
                f"changed the model {model.path} that it measures",
                "Developer of this metric: write below `out` only.",
            )


def _marks(folder: Path) -> dict[str, str]:
    """Return what tells that a step's input was left alone.

    Links are followed wherever they lead: a checkpoint of the Hub consists of them.
    """
    return {
        file.relative_to(folder).as_posix(): identity(file.stat())
        for file in folder.rglob("*")
        if file.is_file()
    }
