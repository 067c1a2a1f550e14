"""Peak memory: what a process holds at most that loads the model and answers once.

Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from pathlib import Path

from drupe.core.job import Job
from drupe.core.machine import speed_class
from drupe.core.model import Model
from drupe.evaluate.cost_metrics import PeakMemory
from drupe.evaluate.speed import not_here, write_skipped
from drupe.evaluate.spread import Estimate, median
from drupe.evaluate.timed import Timed


def measure(metric: PeakMemory, model: Model, out: Path, job: Job) -> None:
    """Write score.json: the largest peak of several processes."""
    why = not_here(model, metric.target)
    if why:
        write_skipped("peak_memory", why, out, job)
        return
    peaks, loaded = [], []
    for done in range(metric.repeats):
        with Timed(model, job.threads) as timed:
            timed.answer(metric.prompt_length, metric.new_tokens)
        peaks.append(timed.peak)
        loaded.append(timed.loaded)
        job.progress("peak memory", done + 1, metric.repeats, "processes")
    if not all(peaks):
        write_skipped("peak_memory", "this system does not tell what a process holds", out, job)
        return
    score = {
        "metric": "peak_memory",
        "value": max(peaks),
        "unit": "bytes",
        "count": len(peaks),
        "higher_is_better": False,
        "sub_types": {
            "peak_bytes": Estimate(max(peaks)).to_json(),
            "loaded_bytes": median(loaded).to_json(),
        },
        "peaks": peaks,
        "prompt_length": metric.prompt_length,
        "new_tokens": metric.new_tokens,
        "machine": speed_class(),
    }
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
