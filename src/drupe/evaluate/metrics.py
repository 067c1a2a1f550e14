"""The metrics, declared.  Light: the runtimes are imported in the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from drupe.core.dataset import Dataset, Names
from drupe.core.effects import Idle
from drupe.core.operation import Metric
from drupe.core.target import Target

SCORING_PRELOAD = (
    "torch",
    "transformers:AutoModelForCausalLM",
    "transformers:AutoTokenizer",
    "peft",
    "datasets",
    "onnxruntime",
)
CHARACTERS_A_TOKEN = 4  # of English; what else a file of rows holds evens out the rest
JUDGED = ("hf", "hf-adapter", "onnx-genai")


class RowsMetric(Metric):
    """What the metrics below share: they read rows of data, each by itself.

    reads: what of `pre_process_data_config` decides the score; blocks of tokens do not.
    """

    reads: ClassVar[tuple[str, ...]] = (
        *("text_template", "text_cols", "text_formatting_func", "user_script", "script_dir"),
        *("pair_format", "input_template", "output_template", "message_col", "chat_template"),
        *("ignore_source_in_labels", "add_special_tokens"),
    )

    data_config: Dataset
    target: Target

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form without what is about samples for training."""
        form = super().key_form(digest)
        fields = form["data_config"]["pre_process_data_config"]
        form["data_config"]["pre_process_data_config"] = {
            name: value for name, value in fields.items() if name in self.reads
        }
        return form

    def work_units(self, model_bytes: int) -> float:
        """Return about how many tokens are read, times the bytes of the model."""
        files = self.data_config.load_dataset_config.local_files
        characters = sum(file.stat().st_size for file in files if file.is_file())
        return characters / CHARACTERS_A_TOKEN * model_bytes

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what the demo's 600 rows and a model of 98M took on two cores."""
        tokens = work / max(model_bytes, 1)
        return 0.8 + tokens * (2e-5 + 2e-12 * model_bytes), 400 * 10**6 + model_bytes, 0

    def without_effect(self) -> list[Idle]:
        """Return the limit of samples, where rows are measured."""
        if self.data_config.pre_process_data_config.max_samples is None:
            return []
        name = "max_samples" if "max_samples" in type(self).model_fields else "count"
        why = f"has no effect on {type(self).__name__}, which reads rows: write {name} beside it"
        return [Idle(("data_config", "pre_process_data_config", "max_samples"), why)]


class Accuracy(RowsMetric):
    """How often the right answer is the likeliest of the choices, by log-probability.

    The prompt is the data's `text_template` up to the last column, the answer is that column.
    """

    takes = JUDGED
    libraries = ("torch", "transformers", "tokenizers", "peft", "datasets", "onnxruntime")
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.accuracy:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"accuracy_score": True}
    bounds: ClassVar[Mapping[str, tuple[float | None, float | None]]] = {"accuracy_score": (0, 1)}

    label_col: str | None = None
    """The column with the answer; None: the last one that the template names."""
    choices: Names | None = None
    """The answers to choose from; None: those that the data shows."""
    max_samples: int | None = Field(default=None, ge=1)


class Perplexity(RowsMetric):
    """exp of the mean negative log-likelihood a token, each row of the data by itself."""

    takes = JUDGED
    libraries = ("torch", "transformers", "tokenizers", "peft", "datasets", "onnxruntime")
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.perplexity:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"perplexity": False}
    bounds: ClassVar[Mapping[str, tuple[float | None, float | None]]] = {"perplexity": (1, None)}

    max_samples: int | None = Field(default=None, ge=1)


class Answers(RowsMetric):
    """Let the exported model answer the first prompts, by ONNX Runtime GenAI as it is deployed."""

    takes = ("onnx-genai",)
    libraries = ("onnxruntime-genai", "datasets")
    extra = "cpu"
    preload = ("datasets",)
    work = "drupe.evaluate.answers:answer"
    reads: ClassVar[tuple[str, ...]] = ("text_template",)

    count: int = Field(default=3, ge=1)
    """How many prompts."""
