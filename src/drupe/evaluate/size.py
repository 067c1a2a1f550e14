"""Size: the bytes of a model's files, all of them."""

from __future__ import annotations

import json
from pathlib import Path

from drupe.core.job import Job
from drupe.core.model import Model
from drupe.evaluate.cost_metrics import Size
from drupe.evaluate.spread import Estimate


def measure(metric: Size, model: Model, out: Path, job: Job) -> None:
    """Write score.json; what is counted is exact, so the ends of the interval are the number."""
    count = sum(file.stat().st_size for file in model.path.rglob("*") if file.is_file())
    exact = Estimate(count, count, count).to_json()
    score = {
        "metric": "size",
        **exact,
        "unit": "bytes",
        "higher_is_better": False,
        "sub_types": {"bytes": exact},
    }
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
