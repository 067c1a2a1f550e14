"""The metrics, declared.  Light: the runtimes are imported in the worker."""

from __future__ import annotations

from drupe.core.dataset import Dataset, Names
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
JUDGED = ("hf", "hf-adapter", "onnx-genai")


class Accuracy(Metric):
    """How often the right answer is the likeliest of the choices, by log-probability.

    The prompt is the data's `text_template` up to the last column, the answer is that column.
    """

    takes = JUDGED
    libraries = ("torch", "transformers", "peft", "onnxruntime")
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.accuracy:measure"

    data_config: Dataset
    target: Target
    label_col: str | None = None
    """The column with the answer; None: the last one that the template names."""
    choices: Names | None = None
    """The answers to choose from; None: those that the data shows."""
    max_samples: int | None = None


class Perplexity(Metric):
    """exp of the mean negative log-likelihood a token, each row of the data by itself."""

    takes = JUDGED
    libraries = ("torch", "transformers", "peft", "onnxruntime")
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.perplexity:measure"

    data_config: Dataset
    target: Target
    max_samples: int | None = None


class Answers(Metric):
    """Let the exported model answer the first prompts, by ONNX Runtime GenAI as it is deployed."""

    takes = ("onnx-genai",)
    libraries = ("onnxruntime-genai", "datasets")
    extra = "cpu"
    preload = ("datasets",)
    work = "drupe.evaluate.answers:answer"

    data_config: Dataset
    target: Target
    count: int = 3
    """How many prompts."""
