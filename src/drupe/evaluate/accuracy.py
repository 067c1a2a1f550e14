"""Accuracy: the answer is the choice to which the model gives the highest probability.

No sampling and no parsing of what the model says: each choice is put after the prompt, and the
log-probabilities of its tokens are summed.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drupe.core.dataset import Dataset, TextPreprocess
from drupe.core.errors import DrupeError
from drupe.core.intervals import wilson
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data import load, text_template
from drupe.evaluate import scoring
from drupe.evaluate.metrics import Accuracy
from drupe.evaluate.runtimes import NotRunHereError, Runtime, open_runtime, write_skipped
from drupe.evaluate.scoring import likelihoods
from drupe.evaluate.sequential import decided

WHERE = "Accuracy"
MOST_CHOICES = 100


def measure(metric: Accuracy, model: Model, out: Path, job: Job) -> None:
    """Write out/score.json, and out/items.json: [[predicted, right], ...] in the order of rows."""
    asked = questions(metric.data_config, metric.max_samples, metric.label_col, job)
    try:
        if metric.answer == "generated":
            _write_generated(metric, model, asked, out, job)
        else:
            _write_chosen(metric, model, asked, out, job)
    except NotRunHereError as fault:
        write_skipped("accuracy", fault, out, job)


@dataclass(frozen=True)
class Asked:
    """Rows as questions: the prompt of each and its right answer.

    special: whether the tokenizer's begin of text goes before a prompt, as in training.
    """

    prompts: list[str]
    right: list[str]
    special: bool

    def some(self, rows: Sequence[int]) -> Asked:
        """Return some of the questions."""
        right = [self.right[row] for row in rows]
        return Asked([self.prompts[row] for row in rows], right, self.special)


def questions(data: Dataset, most: int | None, label_col: str | None, job: Job) -> Asked:
    """Return what the rows of `data` ask, the first `most` of them."""
    rows = load.rows(data, job.scratch)
    if most is not None:
        rows = rows.select(range(min(most, len(rows))))
    pre_process = data.pre_process_data_config
    template = text_template.parse(template_text(pre_process))
    label = answer_column(label_col, template.answer_column)
    right = [text_template.value_text(row, label, number) for number, row in enumerate(rows, 1)]
    prompts = [template.prompt(row, number) for number, row in enumerate(rows, 1)]
    return Asked(prompts, right, pre_process.add_special_tokens)


def _write_chosen(metric: Accuracy, model: Model, asked: Asked, out: Path, job: Job) -> None:
    choices = choices_of(metric.choices, asked.right)
    runtime = open_runtime(model, metric.target, job.threads)

    def judge(some: Asked) -> torch.Tensor:
        return choice_scores(runtime, some.prompts, choices, special=some.special, job=job)

    def hits(some: Asked) -> list[tuple[str, str]]:
        best = judge(some).argmax(1).tolist()  # argmax: the first of equals
        return [(choices[place], truth) for place, truth in zip(best, some.right, strict=True)]

    told: dict[str, Any] = {"choices": choices}
    if metric.decide_at is not None:
        pairs, verdict = decided(asked, hits, metric.decide_at)
        _write(pairs, {}, {**told, **verdict}, out)
        return
    scores = judge(asked)
    others = {}
    if metric.metric_config:
        from drupe.evaluate.numbers import counted

        others = counted(metric.metric_config, scores, asked.right, choices, job)
    best = scores.argmax(1).tolist()
    pairs = [(choices[place], truth) for place, truth in zip(best, asked.right, strict=True)]
    _write(pairs, others, told, out)


def _write_generated(metric: Accuracy, model: Model, asked: Asked, out: Path, job: Job) -> None:
    from drupe.evaluate.generated import speaker

    speak = speaker(model, metric.target, job.threads)

    def hits(some: Asked) -> list[tuple[str, str]]:
        found = []
        for number, (prompt, truth) in enumerate(zip(some.prompts, some.right, strict=True), 1):
            said = speak.first_line(prompt, metric.max_new_tokens, special=some.special)
            found.append((said, truth.strip()))
            job.progress("answers", number, len(some.prompts), "rows")
        return found

    pairs, verdict = (
        (hits(asked), {}) if metric.decide_at is None else decided(asked, hits, metric.decide_at)
    )
    _write(pairs, {}, {"answer": "generated", **verdict}, out)


def template_text(pre_process: TextPreprocess) -> str:
    """Return the template, made of the text columns where none is given."""
    if pre_process.text_template is not None:
        return pre_process.text_template
    if pre_process.text_cols is not None:
        return " ".join("{" + column + "}" for column in pre_process.text_cols)
    raise DrupeError(
        "Accuracy",
        "needs a text_template, whose last column is the answer",
        "Write one in the data config that it measures on, or measure Perplexity.",
    )


def answer_column(wanted: str | None, last: str) -> str:
    """Return the column that holds the answer; raise DrupeError unless it ends the template."""
    if wanted not in (None, last):
        raise DrupeError(
            "Accuracy.label_col",
            f'is "{wanted}", but the last column that the text template names is "{last}"',
            "The prompt is the template up to its last column: let it end with the answer.",
        )
    return last


def choices_of(given: Sequence[str] | None, right: Sequence[str]) -> list[str]:
    """Return the answers to choose from: those given, or those that the data shows, sorted."""
    choices = list(given) if given else sorted(set(right))
    unknown = sorted(set(right) - set(choices))
    if unknown:
        raise DrupeError(
            "Accuracy.choices",
            f"lack {', '.join(map(repr, unknown[:5]))}, which the data has as a right answer",
            "Add them, or leave `choices` out.",
        )
    if not 2 <= len(choices) <= MOST_CHOICES:
        raise DrupeError(
            WHERE,
            f"the answers have {len(choices)} different values; 2 to {MOST_CHOICES} can be judged",
            "Name a column of classes at the end of the template, or measure Perplexity.",
        )
    return choices


def choice_scores(
    runtime: Runtime, prompts: Sequence[str], choices: Sequence[str], *, special: bool, job: Job
) -> torch.Tensor:
    """Return the log-probability of each choice after each prompt: (prompts, choices), float64.

    special: put the tokenizer's begin of text before the prompt, as in training.
    """
    asked = [each for prompt in prompts for each in _asked(runtime, prompt, choices, special)]

    def progress(done: int, total: int) -> None:
        job.progress("accuracy", done * len(prompts) / total, len(prompts), "rows")

    found = [each.log_probability for each in likelihoods(runtime, asked, progress)]
    return torch.tensor(found, dtype=torch.float64).view(len(prompts), len(choices))


def _asked(
    runtime: Runtime, prompt: str, choices: Sequence[str], special: bool
) -> list[scoring.Asked]:
    """Return each choice after the prompt, in tokens."""
    prompt_ids = runtime.encode(prompt, special=special)
    whole = [runtime.encode(prompt + choice, special=special) for choice in choices]
    starts = [common_prefix(prompt_ids, ids) for ids in whole]
    answers = [ids[start:] for ids, start in zip(whole, starts, strict=True)]
    if _one_begins_another(answers) and runtime.tokenizer.eos_token_id is not None:
        # "no" is never less likely than "none": let the end of the text tell them apart.
        whole = [[*ids, runtime.tokenizer.eos_token_id] for ids in whole]
    return [
        scoring.asked_within(ids, start, runtime.context_length)
        for ids, start in zip(whole, starts, strict=True)
    ]


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many ids the two begin with in common.

    A tokenizer may join the end of a prompt with the beginning of an answer, so that the prompt's
    own ids are not how the whole begins.
    """
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _one_begins_another(answers: Sequence[Sequence[int]]) -> bool:
    ordered = sorted(map(tuple, answers))
    return any(after[: len(before)] == before for before, after in itertools.pairwise(ordered))


def _write(
    pairs: Sequence[tuple[str, str] | None],
    others: Mapping[str, Mapping[str, float]],
    told: Mapping[str, Any],
    out: Path,
) -> None:
    """Write the score of (predicted, right), None where a row was not asked."""
    asked = [pair for pair in pairs if pair is not None]
    hits = sum(answer == truth for answer, truth in asked)
    low, high = wilson(hits, len(asked))
    own = {"value": hits / len(asked), "low": low, "high": high}
    score: Mapping[str, Any] = {
        "metric": "accuracy",
        **own,
        "count": len(asked),
        "higher_is_better": True,
        "paired": "answers",
        "sub_types": {"accuracy_score": own, **others},
        **told,
    }
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
    (out / "items.json").write_text(json.dumps(pairs) + "\n", encoding="utf-8")
