"""All that preflight looks at, in one list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drupe.core.errors import DrupeError, Refused
from drupe.output import refuse_foreign
from drupe.plan import Plan, placed
from drupe.preflight.estimates import Estimate
from drupe.preflight.finding import Finding
from drupe.preflight.machine import machine
from drupe.preflight.providers import providers
from drupe.preflight.texts import texts


def examine(planned: Plan, estimates: Mapping[str, Estimate]) -> list[Finding]:
    """Return what is in the way of `planned`, or may be, beside what planning itself found."""
    findings = []
    if planned.source.found:
        try:
            refuse_foreign(planned)
        except DrupeError as fault:
            findings.append(Finding.blocker(placed(fault, planned.workflow)))
    findings += machine(planned, estimates)
    findings += providers(planned)
    if not planned.blockers:
        findings += texts(planned)
    if planned.workflow.strict:
        findings = [_strictly(finding) for finding in findings]
    return findings


def blockers_of(findings: Iterable[Finding]) -> list[DrupeError]:
    """Return the findings that are in the way, as errors."""
    return [
        Refused(finding.where, finding.what, finding.remedy)
        for finding in findings
        if finding.level == "blocker"
    ]


def _strictly(finding: Finding) -> Finding:
    if finding.level != "warning":
        return finding
    remedy = f"{finding.remedy} Or run without --strict."
    return Finding("blocker", finding.where, finding.what, remedy)
