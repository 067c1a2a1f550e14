"""The model card: the README.md that travels with the model."""

from __future__ import annotations

import json

import drupe
from drupe.core.dataset import Dataset
from drupe.core.libraries import library_version
from drupe.outcome import Outcome
from drupe.plan import Plan
from drupe.report.table import markdown
from drupe.report.verdict import verdict

LOADING = """```python
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it sends usage events otherwise
import onnxruntime_genai as og

model = og.Model("FOLDER")
tokenizer = og.Tokenizer(model)
tokenizer.update_options(add_special_tokens="true")  # as in training
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=256, do_sample=False)
generator = og.Generator(model, parameters)
generator.append_tokens(tokenizer.encode("PROMPT"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
```"""

CHECKING = (
    "`python verify.py`, beside this file, needs the runtime alone, and tells whether the model "
    "answers here as it did where it was made."
)


def model_card(outcome: Outcome) -> str:
    """Return the card: base, data, recipe, figures, where it ran, how to load it."""
    planned = outcome.plan
    source = planned.source
    base = source.name + (f" (revision {source.revision})" if source.revision else "")
    parts = [
        f"# {source.name.split('/')[-1]}: {', '.join(planned.stages[1:])}",
        verdict(outcome),
        f"- **Base model:** {base}, content digest `{source.model.digest[:16]}`",
        *(f"- **Data:** {line}" for line in _data(planned, "pass")),
        *(f"- **Text:** `{template}`" for template in _templates(planned)),
        *(f"- **Measured on:** {line}" for line in _data(planned, "metric")),
        f"- **Made with:** drupe {drupe.__version__}",
        "## Recipe",
        "```json\n"
        + json.dumps(planned.workflow.raw.get("passes", {}), indent=2, ensure_ascii=False)
        + "\n```",
        "## Measured",
        markdown(outcome),
        f"**Verified on:** {_verified(outcome)}",
        f"**Not run:** {_not_run(outcome)}",
    ]
    if outcome.final.kind == "onnx-genai":
        parts += ["## Load it", LOADING, CHECKING]
    return "\n\n".join(parts) + "\n"


def _templates(planned: Plan) -> list[str]:
    """Return the text templates of the data that the passes name, as JSON strings."""
    found: dict[str | None, None] = {}
    for step in planned.steps:
        for name in type(step.operation).model_fields:
            data = getattr(step.operation, name)
            if step.role == "pass" and isinstance(data, Dataset):
                found[data.pre_process_data_config.text_template] = None
    return [json.dumps(template, ensure_ascii=False) for template in found if template]


def _data(planned: Plan, role: str) -> list[str]:
    """Return a line for each data file that the steps name: its name and content digest."""
    lines: dict[str, None] = {}
    for step in planned.steps:
        if step.role == role:
            for path in step.operation.input_paths():
                if path.is_file():
                    digest = planned.cache.digests.digest(path)
                    lines[f"{path.name}, content digest `{digest[:16]}`"] = None
    return list(lines)


def _verified(outcome: Outcome) -> str:
    if not outcome.final.scores:
        return "nothing was measured."
    measured = ", ".join(name for name, score in outcome.scores.items() if score.value is not None)
    runtime = "onnxruntime" if outcome.final.kind == "onnx-genai" else "torch"
    if not measured:
        return "nothing: the target's provider is not on the machine that built it."
    version = library_version(runtime)
    return f"{outcome.plan.workflow.target.provider} ({runtime} {version}): {measured}."


def _not_run(outcome: Outcome) -> str:
    skipped = [
        f"{name} ({score.skipped})"
        for name, score in outcome.scores.items()
        if score.skipped is not None
    ]
    others = "any other execution provider, device or machine"
    return "; ".join([*skipped, others]) + "."
