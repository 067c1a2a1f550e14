"""The metrics, declared.  Light: the runtimes are imported in the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from drupe.core.dataset import Dataset, Names
from drupe.core.declared import Declared
from drupe.core.effects import Idle
from drupe.core.errors import Refused
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
SCORING_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "datasets", "onnxruntime")
Number = Literal["accuracy_score", "f1_score", "precision", "recall", "auroc"]
NUMBERS: tuple[str, ...] = get_args(Number)
# Whether more is better of what lm-eval's tasks give.
NUMBERS_OF_TASKS = {
    **dict.fromkeys(("acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match"), True),
    **dict.fromkeys(("f1", "em", "mcc", "bleu", "chrf", "rouge1", "rouge2", "rougeL"), True),
    **dict.fromkeys(("pass@1", "pass_at_1", "likelihood_diff", "contains"), True),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity"), False),
    **dict.fromkeys(("bits_per_byte", "brier_score", "ter"), False),
}
Bounds = tuple[float | None, float | None]


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


class NumberArguments(Declared):
    """How torchmetrics counts one of Accuracy's numbers, in its words."""

    task: Literal["multiclass", "binary"] = "multiclass"
    """binary: of two choices one counts as positive."""
    average: Literal["micro", "macro", "weighted"] | None = None
    """Over the classes; None: torchmetrics' own for the number (micro, of auroc macro)."""
    num_classes: int | None = Field(default=None, ge=2)
    """How many choices there are; None: as many as the data show."""
    top_k: int = Field(default=1, ge=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Of a binary task: the probability from which the positive choice is the answer."""
    positive: str | None = None
    """Of a binary task: the choice that is looked for; None: the second one."""
    max_fpr: float | None = Field(default=None, gt=0, le=1)
    """Of auroc of a binary task: the part of the curve that counts."""


class Accuracy(RowsMetric):
    """How often the right answer is the likeliest of the choices, by log-probability.

    The prompt is the data's `text_template` up to the last column, the answer is that column.
    """

    takes = JUDGED
    version = 2
    libraries = SCORING_LIBRARIES
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.accuracy:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = dict.fromkeys(NUMBERS, True)
    bounds: ClassVar[Mapping[str, Bounds]] = dict.fromkeys(NUMBERS, (0, 1))

    label_col: str | None = None
    """The column with the answer; None: the last one that the template names."""
    choices: Names | None = None
    """The answers to choose from; None: those that the data shows."""
    max_samples: int | None = Field(default=None, ge=1)
    answer: Literal["likelihood", "generated"] = "likelihood"
    """likelihood: the likeliest of the choices. generated: what the model says, token by token,
    the first line of it; an exported model says it by ONNX Runtime GenAI."""
    max_new_tokens: int = Field(default=16, ge=1)
    """Of an answer that is generated: where it is cut."""
    metric_config: dict[Number, NumberArguments] = Field(default={})
    """The numbers beside accuracy_score that are wanted, and how torchmetrics counts them:
    {"f1_score": {"average": "macro"}}. Those that `sub_types` names are wanted too."""
    decide_at: float | None = Field(default=None, gt=0, lt=1)
    """Stop as soon as it is clear on which side of this share the model is: rows are asked in
    a drawn order, 64, then 128, ... of them, until the interval, widened for looking repeatedly,
    leaves it out, or all (or max_samples) are asked."""

    def giving(self, names: tuple[str, ...]) -> Self:
        """Return the metric as it counts these numbers; one answer that is said is no ranking."""
        wanted = {name: NumberArguments() for name in names if name not in self.metric_config}
        wanted = {name: each for name, each in wanted.items() if name != NUMBERS[0]}
        made = self.model_copy(update={"metric_config": {**self.metric_config, **wanted}})
        others = [name for name in made.metric_config if name != NUMBERS[0]]
        if others and self.answer == "generated":
            raise Refused(
                "answer",
                f'is "generated", which gives accuracy_score alone, and {others[0]} is wanted',
                'Write "likelihood", which gives each choice a probability.',
            )
        if others and self.decide_at is not None:
            raise Refused(
                "decide_at",
                f"is about accuracy_score, and {others[0]} is wanted of all rows",
                "Leave one of them out.",
            )
        return made

    def without_effect(self) -> list[Idle]:
        """Return what only one of the two ways to answer makes use of."""
        idle = super().without_effect()
        if self.answer == "generated" and self.choices is not None:
            idle.append(Idle(("choices",), "has no effect: the answer is what the model says"))
        if self.answer == "likelihood" and "max_new_tokens" in self.model_fields_set:
            idle.append(Idle(("max_new_tokens",), 'is for answer "generated"'))
        return idle

    def deciding_libraries(self) -> tuple[str, ...]:
        """Return torchmetrics too where it counts, and the runtime that speaks."""
        more: tuple[str, ...] = ("torchmetrics",) if self.metric_config else ()
        more += ("onnxruntime-genai",) if self.answer == "generated" else ()
        return (*self.libraries, *more)


class Perplexity(RowsMetric):
    """exp of the mean negative log-likelihood a token, each row of the data by itself."""

    takes = JUDGED
    version = 2
    libraries = SCORING_LIBRARIES
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.perplexity:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"perplexity": False}
    bounds: ClassVar[Mapping[str, Bounds]] = {"perplexity": (1, None)}

    max_samples: int | None = Field(default=None, ge=1)


class KLDivergence(RowsMetric):
    """How far a model's next-token probabilities are from the input model's, on the same text.

    kl: nats a token, sum(p log(p / q)), p the input model's. same_top_1: the share of tokens of
    which both hold the same one for the likeliest. flips: the share of rows whose answer (the
    likeliest choice, as in Accuracy) is another than the input model's.
    """

    takes = JUDGED
    compares = True
    libraries = SCORING_LIBRARIES
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.kl_divergence:measure"
    numbers: ClassVar[Mapping[str, bool | None]] = {"kl": False, "same_top_1": True, "flips": False}
    bounds: ClassVar[Mapping[str, Bounds]] = {
        "kl": (0, None),
        "same_top_1": (0, 1),
        "flips": (0, 1),
    }

    max_samples: int | None = Field(default=None, ge=1)
    flips: bool = False
    """Count answers that changed too; wanted where `sub_types` names it."""
    choices: Names | None = None
    """Of flips: the answers to choose from; None: those that the data shows."""
    decide_at: float | None = Field(default=None, gt=0)
    """Stop as soon as it is clear on which side of this kl the model is (see Accuracy)."""

    def giving(self, names: tuple[str, ...]) -> Self:
        """Return the metric as it counts flips where they are named."""
        return self.model_copy(update={"flips": True}) if "flips" in names else self


class LmEval(Metric):
    """Tasks of lm-evaluation-harness, asked of the model as it is deployed.

    Its numbers are named TASK.NUMBER ("arc_easy.acc_norm"), where a filter of the task's gives
    them TASK.NUMBER.FILTER. A task of the Hub fetches its rows from there, as lm-eval does.
    """

    takes = JUDGED
    libraries = (*SCORING_LIBRARIES, "lm-eval")
    extra = "eval"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.lm_eval_tasks:measure"

    tasks: Names = Field(min_length=1)
    target: Target
    include_path: Path | None = None
    """A folder of tasks of your own; paths that they name are relative to it."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples before each question; None: as the task has it."""
    limit: float | None = Field(default=None, gt=0)
    """Below 1 the fraction, from 1 on the number of questions of each task."""
    apply_chat_template: bool = False
    system_instruction: str | None = None
    max_length: int | None = Field(default=None, ge=2)
    """The longest text in tokens; None: the model's context."""
    max_gen_toks: int = Field(default=256, ge=1)
    """The longest answer, where the task does not say."""
    log_samples: bool = False
    """Keep each question with what was answered: samples.jsonl in the result."""
    confirm_run_unsafe_code: bool = False
    """Allow tasks that run what the model writes."""

    def direction(self, name: str) -> bool | None:
        """Return whether more is better, by what lm-eval's numbers are called."""
        parts = name.split(".")
        found = [NUMBERS_OF_TASKS[part] for part in parts[1:] if part in NUMBERS_OF_TASKS]
        return found[0] if found else None

    def deciding_libraries(self) -> tuple[str, ...]:
        """Return the runtime that speaks too: some tasks ask for an answer that is said."""
        return (*self.libraries, "onnxruntime-genai")

    def work_units(self, model_bytes: int) -> float:
        """Return how many questions are asked, as far as is known, times the model's bytes."""
        asked = self.limit if self.limit is not None and self.limit >= 1 else 1000
        return float(asked * len(self.tasks) * model_bytes)


class Custom(Metric):
    """Numbers by a function of your own; its code runs in the step's process alone.

    evaluate_func(model, data_dir, batch_size, device, execution_providers) judges the model itself;
    metric_func(model_output, targets) judges the answers to rows: model_output.preds, the likeliest
    choices, model_output.logits, the choices' log-probabilities. Either returns a number, or
    {name: number}, or {name: {"value", "low", "high"}}.
    """

    takes = JUDGED
    libraries = SCORING_LIBRARIES
    extra = "cpu"
    preload = SCORING_PRELOAD
    work = "drupe.evaluate.custom:measure"

    user_script: Path
    """A Python file with the function."""
    target: Target
    script_dir: Path | None = None
    """A folder from which the script imports."""
    evaluate_func: str | None = None
    evaluate_func_kwargs: dict[str, Any] = Field(default={})
    metric_func: str | None = None
    metric_func_kwargs: dict[str, Any] = Field(default={})
    data_dir: Path | None = None
    """A folder that evaluate_func is given."""
    batch_size: int = Field(default=1, ge=1)
    data_config: Dataset | None = None
    """The rows that metric_func judges, as Accuracy reads them."""
    names: Names | None = None
    """What the function's numbers are called; of one that returns a single number, its name.
    Those that `sub_types` names, unless it is written."""

    @model_validator(mode="after")
    def _has_one_function(self) -> Self:
        if (self.evaluate_func is None) == (self.metric_func is None):
            raise ValueError("evaluate_func or metric_func: one of them")
        if self.metric_func is not None and self.data_config is None:
            raise ValueError("metric_func judges the answers to rows: name data_config")
        return self

    def giving(self, names: tuple[str, ...]) -> Self:
        """Return the metric with the names of its numbers."""
        return self if self.names or not names else self.model_copy(update={"names": names})

    def without_effect(self) -> list[Idle]:
        """Return what only the other function makes use of."""
        others: tuple[str, ...]
        if self.evaluate_func is None:
            others = ("evaluate_func_kwargs", "data_dir", "batch_size")
        else:
            others = ("metric_func_kwargs", "data_config")
        written = [name for name in others if name in self.model_fields_set]
        function = "metric_func" if self.evaluate_func is None else "evaluate_func"
        return [Idle((name,), f"has no effect beside {function}") for name in written]


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
