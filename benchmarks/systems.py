"""What a step costs beside its work on each system, warm; eight steps side by side on Ray.

    python benchmarks/systems.py [--runs 20]     (with the tests' toys installed: tests/toys)

The step turns a text of three letters; the first one of each system is not counted. Then eight
steps of one busy thread each, on a Ray cluster of this machine with two workers, against one after
the other on the local system. Prints medians, and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from drupe.core.executor import Executor
from drupe.core.model import Model
from drupe.core.step import StepSpec
from drupe.core.system import Setting, System
from drupe.systems.declarations import LocalSystem, PythonEnvironment, Ray
from drupe.systems.follow import run

GOALS = {"local": 0.3, "python environment": 0.3, "ray": 0.5}


def systems() -> dict[str, System]:
    """Return what is measured."""
    return {
        "local": LocalSystem(),
        "python environment": PythonEnvironment(python_environment_path=Path(sys.prefix)),
        "ray": Ray(),
    }


def spec(operation: str, key: str, model: Path, fields: dict[str, object]) -> StepSpec:
    """Return a step on the folder `model`."""
    return StepSpec(key, "passes", operation, fields, (Model("files", model, "m"),), 1)


def timed(executor: Executor, step: StepSpec, folder: Path) -> tuple[float, float]:
    """Do a step; return the seconds that it took in all, and those of its work."""
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    done = run(executor, step, folder, lambda event: None)
    return time.perf_counter() - begun, done.seconds


def overheads(scratch: Path, model: Path, runs: int) -> None:
    """Print what a step costs on each system."""
    for name, system in systems().items():
        folder = scratch / name.replace(" ", "-")
        with system.open(Setting(name, scratch, scratch / "cache")) as executor:
            executor.warm_up()
            begun = time.perf_counter()
            timed(executor, spec("Reverse", f"{name}-first", model, {}), folder / "first")
            cold = time.perf_counter() - begun
            beside = []
            for number in range(runs):
                step = spec("Reverse", f"{name}-{number}", model, {})
                whole, work = timed(executor, step, folder / str(number))
                beside.append(whole - work)
        worst = max(beside)
        print(
            f"{name:20} {statistics.median(beside):.3f} s beside the work, warm (at most "
            f"{worst:.3f}; goal {GOALS[name]}); the first step {cold:.1f} s"
        )


def fan_out(scratch: Path, model: Path, workers: int) -> None:
    """Print how much sooner eight steps are done side by side."""
    fields: dict[str, object] = {"rounds": 60}

    def each(executor: Executor, where: str) -> Callable[[int], object]:
        return lambda number: timed(
            executor,
            spec("Busy", f"{where}-{number}", model, fields),
            scratch / where / str(number),
        )

    times = {}
    with LocalSystem().open(Setting("local", scratch, scratch / "cache")) as executor:
        timed(executor, spec("Busy", "warm", model, {"rounds": 1}), scratch / "warm-local")
        begun = time.perf_counter()
        for number in range(8):
            each(executor, "one-by-one")(number)
        times["one by one"] = time.perf_counter() - begun
    ray = Ray(max_parallel=workers)
    with (
        ray.open(Setting("ray", scratch, scratch / "cache")) as executor,
        ThreadPoolExecutor(workers) as pool,
    ):
        executor.warm_up()
        list(
            pool.map(
                lambda number: timed(
                    executor,
                    spec("Busy", f"warm-{number}", model, {"rounds": 1}),
                    scratch / f"warm-{number}",
                ),
                range(workers),
            )
        )
        begun = time.perf_counter()
        list(pool.map(each(executor, "side-by-side"), range(8)))
        times["side by side"] = time.perf_counter() - begun
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items()))
    print(f"ratio {times['one by one'] / times['side by side']:.2f} (goal 1.3, {workers} workers)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="drupe-systems-") as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        (model / "a.txt").write_text("abc")
        overheads(Path(scratch), model, runs)
        fan_out(Path(scratch), model, 2)


if __name__ == "__main__":
    main()
