"""A user's own functions, whose code runs in a step's process alone; one makes a row's text."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.core.dataset import TextPreprocess
from drupe.core.errors import DrupeError

MODULE = "drupe_user_script"


def formatting_function(preprocess: TextPreprocess) -> Callable[[Mapping[str, Any]], str]:
    """Return the function that the config names, its module freshly loaded.

    Raises DrupeError for a script that fails, a name that it lacks, and (when called) for a result
    that is no text.
    """
    script, name = preprocess.user_script, preprocess.text_formatting_func
    if script is None or name is None:
        raise DrupeError("user_script", "names no code", "Name user_script beside the function.")
    function = getattr(loaded(script, preprocess.script_dir), name, None)
    if not callable(function):
        what = f'has no function "{name}"'
        raise DrupeError(str(script), what, "Mend the name in text_formatting_func.")

    def text(row: Mapping[str, Any]) -> str:
        try:
            made = function(dict(row))
        except Exception as fault:
            what = f"{name} failed: {type(fault).__name__}: {fault}"
            raise DrupeError(str(script), what, "Mend the function.") from fault
        if not isinstance(made, str):
            what = f"{name} gave {type(made).__name__}, not a text"
            raise DrupeError(str(script), what, "Have it return a str.")
        return made

    return text


def loaded(script: Path, folder: Path | None) -> Any:
    """Return a script as a module, freshly loaded; raises DrupeError for one that fails."""
    spec = importlib.util.spec_from_file_location(MODULE, script)
    if spec is None or spec.loader is None:
        raise DrupeError(str(script), "is no Python file", "Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        what = f"cannot be loaded: {type(fault).__name__}: {fault}"
        raise DrupeError(str(script), what, "Mend the script.") from fault
    return module
