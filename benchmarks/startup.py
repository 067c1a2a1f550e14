"""Start-up: `drupe --help` against bare Python, and an all-cached run against Olive's.

    python benchmarks/startup.py [--olive PATH_OF_OLIVE] [--large FOLDER]

Prints medians and ratios of runs in turns. --large names a folder with a big checkpoint in base/
and an adapter in adapter/: its merge is run once, then again
with all cached; twice its size of disk is used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "phi3-emotion" / "olive-config.json"
DRUPE = str(Path(sys.executable).parent / "drupe")
ENVIRONMENT = {**os.environ, "CI": "1"}  # CI=1: Olive waits for its telemetry otherwise


def seconds(command: list[str]) -> float:
    """Return the wall time of a command; its output is thrown away, a failure is raised."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - started


def in_turns(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Return each command's median time over `runs`, one of each in turn, after a warm-up."""
    for command in commands.values():
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(seconds(command))
    return {name: statistics.median(values) for name, values in times.items()}


def merge_of_large(folder: Path) -> list[str]:
    """Return a command that merges folder/adapter into folder/base and proves it."""
    scratch = Path(tempfile.mkdtemp(prefix="drupe-startup-", dir=folder))
    config = {
        "input_model": {
            "type": "HfModel",
            "model_path": str((folder / "base").resolve()),
            "adapter_path": str((folder / "adapter").resolve()),
        },
        "passes": {"merge": {"type": "MergeAdapterWeights"}},
        "engine": {
            "evaluate": "none",
            "cache_dir": str(scratch / "cache"),
            "output_dir": str(scratch / "out"),
        },
    }
    (scratch / "config.json").write_text(json.dumps(config))
    return [DRUPE, "run", str(scratch / "config.json")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--olive", help="path of the olive command")
    parser.add_argument("--large", type=Path, help="folder with base/ and adapter/")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    helps = {"python -c pass": [sys.executable, "-c", "pass"], "drupe --help": [DRUPE, "--help"]}
    if arguments.olive:
        helps["olive --help"] = [arguments.olive, "--help"]
    report(in_turns(helps, arguments.runs))
    seconds([DRUPE, "run", str(EXAMPLE)])
    cached = {"drupe run, demo all cached": [DRUPE, "run", str(EXAMPLE)]}
    report(in_turns(cached, arguments.runs))
    if arguments.large:
        command = merge_of_large(arguments.large)
        print(f"{'the first merge of the large folder':<45} {seconds(command):7.3f} s")
        report(in_turns({"drupe run, large folder, all cached": command}, arguments.runs))


def report(medians: dict[str, float]) -> None:
    """Print each median and its ratio to the first."""
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:<45} {median:7.3f} s   x{median / first:.2f}")


if __name__ == "__main__":
    main()
