"""Every built-in name and where it lives, in the order of the job.

The only place that names the packages below; plug-ins add to it by entry points in the groups
drupe.passes, drupe.metrics and drupe.systems.
"""

from __future__ import annotations

from typing import Any

from drupe.core.registry import Registry

PASSES = Registry(
    "passes",
    {
        "LoRA": "drupe.finetune.passes:LoRA",
        "DoRA": "drupe.finetune.passes:DoRA",
        "QLoRA": "drupe.finetune.passes:QLoRA",
        "LoftQ": "drupe.finetune.passes:LoftQ",
        "MergeAdapterWeights": "drupe.finetune.passes:MergeAdapterWeights",
        "ModelBuilder": "drupe.export.passes:ExportGenAI",
        "GivenCheckpoint": "drupe.evaluate.passes:GivenCheckpoint",
        "GivenAdapter": "drupe.evaluate.passes:GivenAdapter",
        "GivenExport": "drupe.evaluate.passes:GivenExport",
    },
)
METRICS = Registry(
    "metrics",
    {
        "Accuracy": "drupe.evaluate.metrics:Accuracy",
        "Perplexity": "drupe.evaluate.metrics:Perplexity",
        "KLDivergence": "drupe.evaluate.metrics:KLDivergence",
        "LmEval": "drupe.evaluate.metrics:LmEval",
        "Custom": "drupe.evaluate.metrics:Custom",
        "Answers": "drupe.evaluate.metrics:Answers",
        "Latency": "drupe.evaluate.cost_metrics:Latency",
        "Throughput": "drupe.evaluate.cost_metrics:Throughput",
        "Size": "drupe.evaluate.cost_metrics:Size",
        "PeakMemory": "drupe.evaluate.cost_metrics:PeakMemory",
        "MergeProof": "drupe.finetune.passes:MergeProof",
        "ExportProof": "drupe.export.passes:ExportProof",
    },
)
SYSTEMS = Registry(
    "systems",
    {
        "LocalSystem": "drupe.systems.declarations:LocalSystem",
        "PythonEnvironment": "drupe.systems.declarations:PythonEnvironment",
        "AzureML": "drupe.systems.azureml.declaration:AzureML",
        "Ray": "drupe.systems.declarations:Ray",
    },
)

_GROUPS = {registry.group: registry for registry in (PASSES, METRICS, SYSTEMS)}


def find(group: str, name: str) -> type[Any]:
    """Return the class that is registered as `name` in `group`; raises Refused if none is."""
    return _GROUPS[group].find(name)
