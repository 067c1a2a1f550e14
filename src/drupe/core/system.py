"""System: a place where steps run, as a config describes it; its executor does the running."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from drupe.core.declared import Declared
from drupe.core.digest import value_digest
from drupe.core.errors import Refused
from drupe.core.executor import Executor
from drupe.core.libraries import HERE, Environment
from drupe.core.machine import speed_class
from drupe.core.operation import Operation
from drupe.core.process import usable_cores
from drupe.core.resource import AzureMLClient, Remote


class Accelerator(Declared):
    """A device and the execution providers to use on it."""

    device: Literal["cpu", "gpu", "npu"] | None = None
    execution_providers: Annotated[list[str], Field(min_length=1)] | None = None


@dataclass(frozen=True)
class Setting:
    """What a system is told of the run, beside what the config says of it.

    name: the system's, in the config. folder: the config's. cache: where what it keeps on this
    machine may lie. operations: all that are planned there, what the cache holds included.
    preload: what workers import before the first step, see `Operation.preload`.
    note: tells the user a line. force: work again what a job elsewhere has done before.
    """

    name: str
    folder: Path
    cache: Path
    operations: tuple[Operation, ...] = ()
    preload: tuple[str, ...] = ()
    note: Callable[[str], None] = lambda text: None
    force: bool = False


@dataclass(frozen=True)
class Unfit:
    """What keeps steps from running on a system as it is described.

    place: in the system, as the config has it. line: of another file that says it, "file:12".
    """

    place: tuple[str, ...]
    what: str
    remedy: str
    line: str = ""


class System(Declared):
    """What all systems share.

    executor: "module:Class", imported when steps are to run; called with the system and a
    `Setting`. elsewhere: whether its steps run on other machines, to which files have to travel.
    reaches_hub: whether a model of the Hub is fetched there, not here.
    """

    executor: ClassVar[str] = ""
    elsewhere: ClassVar[bool] = False
    reaches_hub: ClassVar[bool] = False

    type: str
    accelerators: list[Accelerator] = Field(default=[])
    hf_token: bool = False
    """Steps may read what needs a token of the Hugging Face Hub."""

    @property
    def providers(self) -> list[str]:
        """The execution providers of the accelerators, in their order."""
        return [name for each in self.accelerators for name in each.execution_providers or ()]

    def open(self, setting: Setting) -> Executor:
        """Return the executor of this system, to be used as a context manager."""
        module, _, name = self.executor.partition(":")
        made: Executor = getattr(importlib.import_module(module), name)(self, setting)
        return made

    def refusal(self) -> Refused | None:
        """Return why no step can run on this system, as far as can be said here, or None."""
        return None

    def environment(self, setting: Setting) -> Environment:
        """Return what is installed where the steps run; raises Refused where none can.

        It may start a process, once; it installs nothing.
        """
        return HERE

    def prepare(self, setting: Setting) -> bool:
        """Make what steps need before they are sent; return whether the environment is new.

        Called before a run, never for a plan: a new environment may know versions, and so keys,
        that the plan did not.
        """
        return False

    def keeps(self, setting: Setting) -> tuple[str, ...]:
        """Return what its steps use of `core.provisions`, in the words of `Cache.using`."""
        return ()

    def machine(self) -> dict[str, Any]:
        """Return what tells the machines on which its steps run from others, as JSON values.

        Of a machine elsewhere nothing is known before a step runs there: it is what is declared.
        """
        if self.elsewhere:
            return {"declared": value_digest(self.model_dump(mode="json"))}
        return speed_class()

    def threads(self) -> int:
        """Return how many threads a step may use; 0: the cores of the machine on which it runs.

        They may decide the bytes of what is trained, and are recorded beside each result.
        """
        return usable_cores()

    def reads(self, remote: Remote) -> bool:
        """Return whether its steps are given that address, so that no byte of it is needed here."""
        return False

    def client(self) -> AzureMLClient | None:
        """Return the AzureML workspace that this system is in, if it is in one."""
        return None

    def in_workspace(self, client: AzureMLClient | None) -> Self:
        """Return this system in the workspace of the config, where it names none itself."""
        return self

    def lints(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what may not be meant: its place in the system, and the words."""
        yield from ()

    def faults(self) -> Iterator[Unfit]:
        """Yield what keeps steps from running there; asked where steps are to run there."""
        yield from ()


HERE_NAME = "here"  # this machine, where the config names no system


@dataclass(frozen=True)
class NamedSystem:
    """A system under its name in the config."""

    name: str
    system: System

    @property
    def words(self) -> str:
        """Where it is, with its type: "on aml (AzureML)", "here (LocalSystem)"."""
        return f"{'' if self.name == HERE_NAME else 'on '}{self.name} ({self.system.type})"
