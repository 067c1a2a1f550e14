"""Perplexity: exp of the mean negative log-likelihood a token, each row by itself.

The tokens are those of training: begin of text where the tokenizer has the habit, the row's text,
end of text; of pairs and conversations the answers count.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from drupe.core.errors import DrupeError
from drupe.core.intervals import exponential
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data import corpus, load
from drupe.data.strategies import NO_LABEL, Row
from drupe.evaluate.metrics import Perplexity
from drupe.evaluate.runtimes import NotRunHereError, Runtime, open_runtime, write_skipped

WHERE = "Perplexity"


def measure(metric: Perplexity, model: Model, out: Path, job: Job) -> None:
    """Write out/score.json, and out/items.json: [[nats, tokens], ...] in the order of rows."""
    data = metric.data_config
    chosen = load.rows(data, job.scratch)
    if metric.max_samples is not None:
        chosen = chosen.select(range(min(metric.max_samples, len(chosen))))
    try:
        runtime = open_runtime(model, metric.target, job.threads)
    except NotRunHereError as fault:
        write_skipped("perplexity", fault, out, job)
        return
    examples = load.examples(data, chosen, runtime.tokenizer)
    read = corpus.tokenized(
        examples, load.form_of(data, chosen), runtime.tokenizer, data.pre_process_data_config
    )
    rows = [row.cut(0, runtime.context_length) for row in read]
    items = row_losses(runtime, rows, job)
    if not any(count for _, count in items):
        raise DrupeError(
            WHERE, f"{data.name} has no row of two tokens or more", "Give data to judge by."
        )
    value, low, high = exponential(items)
    score = {
        "metric": "perplexity",
        "value": value,
        "low": low,
        "high": high,
        "count": len(items),
        "tokens": sum(count for _, count in items),
        "higher_is_better": False,
        "paired": "exp_mean",
        "sub_types": {"perplexity": {"value": value, "low": low, "high": high}},
    }
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    (out / "items.json").write_text(json.dumps(items) + "\n", encoding="utf-8")


def row_losses(runtime: Runtime, rows: Sequence[Row], job: Job) -> list[tuple[float, int]]:
    """Return for each row its negative log-likelihood in nats and how many tokens it is of.

    A row's first token has nothing before it and is not counted, nor is what has no label (of a
    pair or a conversation, all but the answers).
    """
    losses = [(0.0, 0)] * len(rows)
    long_enough = [index for index, row in enumerate(rows) if len(row) > 1]
    inputs = [rows[index].ids[:-1] for index in long_enough]
    done = 0
    for batch in runtime.batches(inputs):
        logits = runtime.logits([inputs[place] for place in batch])
        targets = torch.tensor([rows[long_enough[place]].labels[1:] for place in batch])
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_LABEL
        )
        sums = nats.view(targets.shape).double().sum(1).tolist()
        counts = (targets != NO_LABEL).sum(1).tolist()
        for place, total, count in zip(batch, sums, counts, strict=True):
            losses[long_enough[place]] = (total, count)
        done += len(batch)
        job.progress("perplexity", done, len(inputs), "rows")
    return losses
