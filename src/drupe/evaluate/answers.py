"""The first prompts of the data answered by ONNX Runtime GenAI, the way a user would ask."""

from __future__ import annotations

import json
from pathlib import Path

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data.load import rows
from drupe.data.text_template import parse
from drupe.evaluate.chat import Chat
from drupe.evaluate.metrics import Answers

LONGEST_ANSWER = 32  # tokens; a sample, not a measurement


def answer(metric: Answers, model: Model, out: Path, job: Job) -> None:
    """Write score.json with {"samples": [{"prompt", "answer", "expected"}, ...]}."""
    template = metric.data_config.pre_process_data_config.text_template
    if template is None:
        raise DrupeError(
            metric.data_config.name,
            "has no text_template, so there is no prompt to answer",
            "Leave the metric Answers out, or write a template.",
        )
    parsed = parse(template)
    samples = []
    if metric.target.provider == "CPUExecutionProvider":
        chat = Chat(model.path)
        data = rows(metric.data_config, job.scratch)
        for row in data.select(range(min(metric.count, len(data)))):
            prompt = parsed.prompt(row)
            pieces = chat.stream(prompt, max_new_tokens=LONGEST_ANSWER, raw=True, greedy=True)
            expected = str(row[parsed.answer_column])
            samples.append({"prompt": prompt, "answer": "".join(pieces), "expected": expected})
    score = {"metric": "answers", "samples": samples}
    (out / "score.json").write_text(json.dumps(score, ensure_ascii=False))
