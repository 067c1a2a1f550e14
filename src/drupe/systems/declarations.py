"""The systems that a config can name; what runs their steps is named by a string."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from drupe.core.amounts import read_bytes
from drupe.core.errors import Refused
from drupe.core.libraries import Environment, installed_version
from drupe.core.system import Setting, System
from drupe.systems.processes import Interpreter

RAY_ADDRESS = r"^(local|auto|(ray://)?[\w.\-\[\]:]+:\d+)$"


class LocalSystem(System):
    """The machine that drupe runs on."""

    executor = "drupe.systems.local:open_local"

    type: Literal["LocalSystem"] = "LocalSystem"
    environment_variables: dict[str, str] = Field(default={})
    """What the processes of the steps find in their environment, beside what is there."""

    @property
    def interpreter(self) -> Interpreter:
        """The Python that runs the steps."""
        return Interpreter(sys.executable, self.environment_variables)


class PythonEnvironment(System):
    """Another Python environment on this machine; drupe's own code goes along."""

    executor = "drupe.systems.python_environment:open_environment"

    type: Literal["PythonEnvironment"] = "PythonEnvironment"
    python_environment_path: Path | None = None
    """The environment's folder, its folder of programs, or the Python itself."""
    managed_env: bool = False
    """drupe makes the environment, with what the steps need, and locks its versions."""
    requirements_file: Path | None = None
    """What is installed in it beside that; a version that it pins is taken in place of ours."""
    environment_variables: dict[str, str] = Field(default={})
    """What the processes of the steps find in their environment, beside what is there."""
    prepend_to_path: tuple[Path, ...] = ()
    """Folders that come first in PATH."""

    @model_validator(mode="after")
    def _names_one(self) -> PythonEnvironment:
        if self.managed_env and self.python_environment_path is not None:
            raise ValueError(
                "managed_env makes an environment, and python_environment_path names one"
            )
        if not self.managed_env and self.python_environment_path is None:
            raise ValueError(
                "python_environment_path is missing: the folder of the environment (or write "
                "managed_env, and drupe makes one)"
            )
        if not self.managed_env and self.requirements_file is not None:
            raise ValueError(
                "requirements_file is for an environment that drupe makes: managed_env"
            )
        return self

    def interpreter(self, setting: Setting) -> Interpreter:
        """Return the Python that runs the steps; raises Refused where there is none."""
        if self.python_environment_path is None:
            made: Interpreter = self._managed(setting).interpreter(
                self.environment_variables, self.prepend_to_path
            )
            return made
        found: Interpreter = _load("interpreter").python_of(
            self.python_environment_path, self.environment_variables, self.prepend_to_path
        )
        return found

    def environment(self, setting: Setting) -> Environment:
        """Return what is installed there: asked of that Python once, or what will be made."""
        if self.managed_env:
            made: Environment = self._managed(setting)
            return made
        interpreter = _load("interpreter")
        environment: Environment = interpreter.InterpreterEnvironment.of(self.interpreter(setting))
        interpreter.check_own_needs(environment)
        return environment

    def prepare(self, setting: Setting) -> bool:
        """Make the environment, if it is drupe's to make and not there."""
        return bool(self.managed_env and self._managed(setting).make(setting.note))

    def keeps(self, setting: Setting) -> tuple[str, ...]:
        """Return drupe's own code, and the environment that drupe makes."""
        own = (self._managed(setting).folder.name,) if self.managed_env else ()
        return ("code", *own)

    def _managed(self, setting: Setting) -> Any:
        managed = _load("managed")
        return managed.ManagedEnvironment.asked(setting, self.providers, self.requirements_file)


def _load(name: str) -> Any:
    """Return a file beside this one that few configs need: each run pays for an import."""
    return importlib.import_module(f"drupe.systems.{name}")


class Ray(System):
    """A Ray cluster: independent steps run side by side."""

    executor = "drupe.systems.ray.executor:open_cluster"
    elsewhere = True

    type: Literal["Ray"] = "Ray"
    address: Annotated[str, Field(pattern=RAY_ADDRESS)] = "local"
    """"local": a cluster of this machine alone, as long as the run. "auto": the one that runs on
    this machine. "HOST:PORT": the one of whose nodes this machine is one. "ray://HOST:PORT":
    any, by Ray's client server."""
    num_cpus: float = Field(default=1, gt=0)
    """Cores that Ray keeps for a step, which uses as many threads."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs that Ray keeps for a step."""
    memory: int | str | None = None
    """Memory that Ray keeps for a step: bytes, or "4GB"."""
    max_parallel: Annotated[int, Field(ge=1)] | None = None
    """Steps that run at once. Without it as many as the nodes that are there hold."""
    storage: Path | None = None
    """A folder that all nodes and this machine share, through which files travel, and where an
    unfinished step leaves what it goes on from. Without it files travel through Ray's own store."""
    idle_minutes: float = Field(default=5, gt=0)
    """How long a worker whose client is gone keeps its results before it ends."""

    @field_validator("memory")
    @classmethod
    def _is_an_amount(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str):
            read_bytes(value)
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes."""
        return read_bytes(self.memory) if isinstance(self.memory, str) else self.memory

    def keeps(self, setting: Setting) -> tuple[str, ...]:
        """Return drupe's own code, and what lies in the cache for a cluster of this machine."""
        return ("code", "ray")

    def threads(self) -> int:
        """Return as many as Ray keeps cores."""
        return max(1, int(self.num_cpus))

    def refusal(self) -> Refused | None:
        """Refuse where Ray is not installed, or what its client server's addresses need."""
        remedy = 'pip install "drupe[ray]"'
        if installed_version("ray") is None:
            return Refused(self.type, "needs ray", remedy)
        if self.address.startswith("ray://") and installed_version("grpcio") is None:
            return Refused(self.type, f"needs grpcio to reach {self.address}", remedy)
        return None
