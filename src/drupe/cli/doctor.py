"""Look at what is installed and at the machine: what is broken, what mends it.

Ends with 1 when something that is installed cannot work. Changes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from drupe import __version__
from drupe.doctor.examine import examine
from drupe.doctor.finding import Finding

EXAMPLES = """\
  drupe doctor
  drupe doctor --json
"""
MARKS = {"fine": "✓", "note": "·", "broken": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        type=Path,
        default=Path(".drupe-cache"),
        help="the cache to look at",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; return 1 when something is broken."""
    findings = examine(arguments.cache_dir)
    broken = sum(finding.state == "broken" for finding in findings)
    if arguments.json:
        lines = [finding.to_json() for finding in findings]
        print(json.dumps({"drupe": __version__, "broken": broken, "findings": lines}, indent=2))
    else:
        print("\n".join(table(findings)))
        print(f"\n{broken or 'Nothing'} {'are' if broken > 1 else 'is'} broken.")
    return 1 if broken else 0


def table(findings: list[Finding]) -> list[str]:
    """Return a line a finding, and under it what mends it."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.state]} {finding.subject:<{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':<{width}}  -> {finding.remedy}")
    return lines
