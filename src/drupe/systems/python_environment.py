"""Steps in another Python environment of this machine: the local executor with its interpreter."""

from __future__ import annotations

from dataclasses import replace

from drupe.core.system import Setting
from drupe.systems.code import put_on_path
from drupe.systems.declarations import PythonEnvironment
from drupe.systems.local import LocalExecutor


def open_environment(system: PythonEnvironment, setting: Setting) -> LocalExecutor:
    """Return the executor, as `System.open` asks for it.

    The steps run this drupe's own code, whatever the environment holds of it.
    """
    interpreter = system.interpreter(setting)
    code = put_on_path(setting.cache / "code")
    variables = {**interpreter.variables, "PYTHONPATH": str(code)}
    return LocalExecutor(
        setting.preload, interpreter=replace(interpreter, variables=variables), name=setting.name
    )
