"""What each system is told of the run, beside what the config says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.catalog import METRICS
from drupe.config.schema import NamedMetric, Workflow
from drupe.core.operation import Operation
from drupe.core.system import Setting


def settings_of(
    workflow: Workflow, metrics: Sequence[NamedMetric], cache: Path
) -> dict[str, Setting]:
    """Return what each system is told of the run: the operations that are planned there."""
    planned: dict[str, list[Operation]] = {workflow.host.name: [], workflow.measures.name: []}
    for named in workflow.passes:
        host = named.host or workflow.host
        proof = METRICS.find(named.step.proof) if named.step.proof else None
        proofs = [proof(**named.step.proof_fields())] if proof else []
        planned.setdefault(host.name, []).extend([named.step, *proofs])
    planned[workflow.measures.name] += [named.metric for named in metrics]
    folder = Path(workflow.file).resolve().parent
    return {name: Setting(name, folder, cache, tuple(each)) for name, each in planned.items()}
