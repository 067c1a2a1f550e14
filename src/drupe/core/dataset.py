"""Dataset: where rows come from and how they become text and blocks of tokens.

The words are Olive's of today (`load_dataset_config`, `pre_process_data_config`); `config` reads
its older words into them. What is declared here is done in `drupe.data`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from drupe.core.declared import Declared
from drupe.core.effects import Idle
from drupe.core.resource import Remote, kind_of


def _one_or_more(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


# Lists in a config where one name may stand alone. A tuple is made here, since strict JSON takes
# a list for a tuple only where no validator ran before.
_ONE_OR_MORE = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), _ONE_OR_MORE]
Paths = Annotated[
    tuple[Path, ...], BeforeValidator(_one_or_more), Field(min_length=1), _ONE_OR_MORE
]


def _fraction_or_count(size: float) -> float:
    if size > 1 and not size.is_integer():
        raise ValueError("a fraction below 1, or a whole number of rows")
    return size


# How many rows are held out: a fraction of them below 1, else a count.
HeldOut = Annotated[float, Field(gt=0), AfterValidator(_fraction_or_count)]


class LoadDataset(Declared):
    """Local files, read by the `datasets` library."""

    data_name: Literal["json", "csv", "parquet"] = "json"
    """Format of the files; `json` reads JSON and JSON lines."""
    data_files: Annotated[
        Annotated[Paths, Tag("local")] | Annotated[Remote, Tag("remote")], Discriminator(kind_of)
    ]
    """One path or several, relative to the config's folder; or a path on AzureML."""
    split: str = "train"
    """Which rows, in the words of `datasets`: "train", "train[:100]", "train[80%:]"."""

    @property
    def local_files(self) -> tuple[Path, ...]:
        """The files on this machine."""
        return () if isinstance(self.data_files, Remote) else self.data_files


class TextPreprocess(Declared):
    """How a row becomes text, and the texts samples of tokens."""

    text_template: str | None = None
    """Text with column names in braces: "### Text: {phrase}"; {{ and }} are literal braces."""
    text_cols: Names = ("text",)
    """Without a template: columns to join by a space."""
    strategy: Literal["line-by-line", "join"] = "join"
    """line-by-line: a sample a row. join: all rows in one line of tokens, cut in blocks."""
    max_seq_len: int = Field(default=1024, ge=2)
    """Longest sample, in tokens."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most so many samples; None: all."""
    add_special_tokens: bool = True
    """Begin of text (where the tokenizer has the habit) and end of text around each row."""
    pad_to_max_len: bool = True
    """line-by-line: pad every sample to max_seq_len, not only to the longest of its batch."""
    drop_short_sequences: bool = False
    """line-by-line: leave out samples that are shorter than max_seq_len."""
    use_attention_mask: bool = True
    """Hand the mask to the model. Blocks without padding need none."""
    joiner: str | None = "\n\n"
    """join: text between two rows."""
    processing_batch_size: int = Field(default=1024, ge=1)
    """Rows that are tokenized at a time; no influence on the result."""

    @model_validator(mode="after")
    def _fits_together(self) -> TextPreprocess:
        by_line = self.strategy == "line-by-line"
        if by_line and self.drop_short_sequences and self.pad_to_max_len:
            raise ValueError(
                "drop_short_sequences and pad_to_max_len exclude each other: set one to false"
            )
        if by_line and not self.use_attention_mask and self.pad_to_max_len:
            raise ValueError(
                "padding without an attention mask trains on padding: set use_attention_mask to "
                "true or pad_to_max_len to false"
            )
        return self

    def without_effect(self) -> list[Idle]:
        """Return what the other strategy would have honoured."""
        idle = []
        if self.strategy == "join":
            # false says what join does anyway
            idle = [
                Idle((name,), 'has no effect under the strategy "join", whose blocks are all full')
                for name in ("pad_to_max_len", "drop_short_sequences")
                if name in self.model_fields_set and getattr(self, name)
            ]
        elif self.joiner is not None and "joiner" in self.model_fields_set:
            idle = [Idle(("joiner",), 'has no effect under "line-by-line": nothing is joined')]
        return idle

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form without what changes no result."""
        form = super().key_form(digest)
        del form["processing_batch_size"]
        if self.text_template is not None:
            del form["text_cols"]
        return form


class Part(Declared):
    """One side of a split of the rows, made before anything is tokenized."""

    eval_size: HeldOut
    """Below 1 the fraction, from 1 on the number of rows that are held out."""
    seed: int = 42
    side: Literal["train", "eval"]


class Dataset(Declared):
    """One entry of `data_configs`."""

    name: str
    type: Literal["HuggingfaceContainer", "DataContainer"] = "HuggingfaceContainer"
    load_dataset_config: LoadDataset
    pre_process_data_config: TextPreprocess = TextPreprocess()
    part: Part | None = None
    """None: all rows."""

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form without the name, which changes no result."""
        form = super().key_form(digest)
        del form["name"], form["type"]
        return form
