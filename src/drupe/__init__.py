"""drupe: from a model, a target and one config to the best model that the target can run.

The public names are loaded when they are first used, so that `import drupe` is light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "drupe.engine:run",
    "Listener": "drupe.listener:Listener",
    "Outcome": "drupe.outcome:Outcome",
    "Stage": "drupe.outcome:Stage",
    "Score": "drupe.outcome:Score",
    "Model": "drupe.core.model:Model",
    "Pass": "drupe.core.operation:Pass",
    "Metric": "drupe.core.operation:Metric",
    "Job": "drupe.core.job:Job",
    "Target": "drupe.core.target:Target",
    "DrupeError": "drupe.core.errors:DrupeError",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'drupe' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
