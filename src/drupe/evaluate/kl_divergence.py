"""How a model's next-token probabilities differ from another's on the same text.

Both read the same ids, row by row; what is compared are the tokens that perplexity counts: all of
a text, of pairs and conversations the answers.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from drupe.core.errors import DrupeError
from drupe.core.intervals import ratio, wilson
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data import corpus, load
from drupe.data.strategies import NO_LABEL, Row
from drupe.evaluate import accuracy
from drupe.evaluate.metrics import KLDivergence
from drupe.evaluate.runtimes import NotRunHereError, Runtime, open_runtime, write_skipped
from drupe.evaluate.sequential import in_looks, mean_interval

WHERE = "KLDivergence"
Item = tuple[float, int, int]  # of a row: nats, tokens, tokens of which the likeliest is the same


def measure(
    metric: KLDivergence, model: Model, reference: Model | None, out: Path, job: Job
) -> None:
    """Write out/score.json, and out/items.json: [[nats, tokens, same], ...] by rows."""
    if reference is None:
        raise DrupeError(WHERE, "was given no model to compare with", "Mend the plan.")
    data = metric.data_config
    chosen = load.rows(data, job.scratch)
    if metric.max_samples is not None:
        chosen = chosen.select(range(min(metric.max_samples, len(chosen))))
    try:
        runtime, other = (open_runtime(each, metric.target, job.threads)
                          for each in (model, reference))  # fmt: skip
    except NotRunHereError as fault:
        write_skipped("kl", fault, out, job)
        return
    rows = _rows(metric, chosen, runtime)
    if [row.ids for row in rows] != [row.ids for row in _rows(metric, chosen, other)]:
        raise DrupeError(
            WHERE,
            "the two models' tokenizers read the rows as other tokens, so that no token of one "
            "answers to one of the other",
            "Compare models of one tokenizer; Accuracy and Perplexity judge each by itself.",
        )
    told: dict[str, Any] = {}
    if metric.decide_at is None:
        found = dict(enumerate(row_divergences(runtime, other, rows, job)))
    else:
        found, told = in_looks(
            len(rows),
            lambda places: row_divergences(runtime, other, [rows[place] for place in places], job),
            mean_interval,
            metric.decide_at,
        )
    items = [found[place] for place in sorted(found)]
    if not any(count for _, count, _ in items):
        what = f"{data.name} has no row of two tokens or more"
        raise DrupeError(WHERE, what, "Give data to judge by.")
    numbers = numbers_of(items)
    if metric.flips:
        numbers["flips"] = _flips(metric, runtime, other, job)
    score = {
        "metric": "kl",
        **numbers["kl"],
        "count": len(items),
        "tokens": sum(count for _, count, _ in items),
        "higher_is_better": False,
        "sub_types": numbers,
        **told,
    }
    kept = [found.get(place) for place in range(len(rows))]
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    (out / "items.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")


def _rows(metric: KLDivergence, chosen: Any, runtime: Runtime) -> list[Row]:
    """Return the rows as a model's tokenizer reads them."""
    data = metric.data_config
    examples = load.examples(data, chosen, runtime.tokenizer)
    form = load.form_of(data, chosen)
    read = corpus.tokenized(examples, form, runtime.tokenizer, data.pre_process_data_config)
    return [row.cut(0, runtime.context_length) for row in read]


def row_divergences(
    runtime: Runtime, reference: Runtime, rows: Sequence[Row], job: Job
) -> list[Item]:
    """Return for each row sum(p log(p / q)) in nats over its tokens, p the reference's.

    A vocabulary that was padded to another size is cut to what both have.
    """
    items: list[Item] = [(0.0, 0, 0)] * len(rows)
    long_enough = [index for index, row in enumerate(rows) if len(row) > 1]
    inputs = [rows[index].ids[:-1] for index in long_enough]
    words = min(runtime.vocabulary, reference.vocabulary)
    done = 0
    for batch in runtime.batches(inputs):
        ids = [inputs[place] for place in batch]
        ours = runtime.logits(ids)[..., :words].log_softmax(-1)
        theirs = reference.logits(ids)[..., :words].log_softmax(-1)
        counted = torch.tensor([rows[long_enough[place]].labels[1:] for place in batch]) != NO_LABEL
        nats = (theirs.exp() * (theirs - ours)).sum(-1).double().where(counted, 0.0)
        same = (ours.argmax(-1) == theirs.argmax(-1)) & counted
        figures = zip(
            nats.sum(1).tolist(), counted.sum(1).tolist(), same.sum(1).tolist(), strict=True
        )
        for place, item in zip(batch, figures, strict=True):
            items[long_enough[place]] = item
        done += len(batch)
        job.progress("comparing", done, len(inputs), "rows")
    return items


def numbers_of(items: Sequence[Item]) -> dict[str, dict[str, float | None]]:
    """Return kl and same_top_1 with their intervals; rows are the sample."""
    kl, low, high = ratio([(nats, count) for nats, count, _ in items])
    share, least, most = ratio([(same, count) for _, count, same in items])
    return {
        "kl": {"value": kl, "low": None if low is None else max(0.0, low), "high": high},
        "same_top_1": {
            "value": share,
            "low": None if least is None else max(0.0, least),
            "high": None if most is None else min(1.0, most),
        },
    }


def _flips(
    metric: KLDivergence, runtime: Runtime, reference: Runtime, job: Job
) -> dict[str, float | None]:
    """Return the share of rows whose likeliest choice is another."""
    asked = accuracy.questions(metric.data_config, metric.max_samples, None, job)
    choices = accuracy.choices_of(metric.choices, asked.right)
    ours, theirs = (
        accuracy.choice_scores(each, asked.prompts, choices, special=asked.special, job=job).argmax(
            1
        )
        for each in (runtime, reference)
    )
    flipped, count = int((ours != theirs).sum()), len(asked.prompts)
    low, high = wilson(flipped, count)
    return {"value": flipped / count, "low": low, "high": high}
