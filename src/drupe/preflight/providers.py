"""Whether the execution provider that the model is made for can be there at all on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.chain import INPUT
from drupe.core.libraries import installed_version
from drupe.core.model import KINDS
from drupe.plan import Plan
from drupe.preflight.finding import Finding

# The distributions of ONNX Runtime that hold a provider; all of them hold the CPU's.
HOLDERS = {
    "CUDAExecutionProvider": ("onnxruntime-gpu",),
    "DmlExecutionProvider": ("onnxruntime-directml",),
    "WebGpuExecutionProvider": ("onnxruntime-webgpu",),
}
EXTRAS = {"CUDAExecutionProvider": "gpu", "DmlExecutionProvider": "directml"}


def providers(planned: Plan) -> Iterator[Finding]:
    """Yield the stages that are to be measured here, on a provider that nothing here holds."""
    target = planned.workflow.target
    if planned.workflow.measures.system.type != "LocalSystem":
        return
    holders = HOLDERS.get(target.provider, ())
    if not holders or any(installed_version(name) for name in holders):
        return
    kinds = {INPUT: planned.source.model.kind}
    kinds |= {step.stage: step.operation.gives for step in planned.steps if step.role == "pass"}
    stages = dict.fromkeys(
        step.stage
        for step in planned.steps
        if step.role == "metric" and KINDS[kinds[step.stage]].on_target
    )
    for stage in stages:
        extra = EXTRAS.get(target.provider)
        there = f' pip install "drupe[{extra}]" on such a machine.' if extra else ""
        what = f"is made for {target.provider}, which is not here: it is built, and not measured"
        yield Finding("warning", stage, what, f"Measure it on its target.{there}")
