"""Dataset: where rows come from and how they become text and blocks of tokens.

The words are Olive's of today (`load_dataset_config`, `pre_process_data_config`); `config` reads
its older words into them. What is declared here is done in `drupe.data`.
"""

from __future__ import annotations

import re
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
from drupe.core.resource import Remote, is_address, kind_of


def _one_or_more(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _local_paths(value: Any) -> Any:
    values = _one_or_more(value)
    for each in values if isinstance(values, tuple) else ():
        if isinstance(each, str) and is_address(each):
            raise ValueError("an address stands alone, of one file or of a folder of files")
    return values


# Lists in a config where one name may stand alone. A tuple is made here, since strict JSON takes
# a list for a tuple only where no validator ran before.
_ONE_OR_MORE = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), _ONE_OR_MORE]
Paths = Annotated[
    tuple[Path, ...], BeforeValidator(_local_paths), Field(min_length=1), _ONE_OR_MORE
]


def _fraction_or_count(size: float) -> float:
    if size > 1 and not size.is_integer():
        raise ValueError("a fraction below 1, or a whole number of rows")
    return size


# How many rows are held out: a fraction of them below 1, else a count.
HeldOut = Annotated[float, Field(gt=0), AfterValidator(_fraction_or_count)]


Strategy = Literal[
    "line-by-line", "line-by-line-random", "join", "join-random", "join-sliding-window"
]


FORMATS = ("json", "csv", "parquet")
HUB_NAME = r"[\w.-]+/[\w.-]+"


def _format_or_hub_name(name: str) -> str:
    if name not in FORMATS and not re.fullmatch(HUB_NAME, name):
        raise ValueError(f"{', '.join(FORMATS)}, or a data set of the Hub: owner/name")
    return name


DataName = Annotated[
    str,
    AfterValidator(_format_or_hub_name),
    WithJsonSchema({"anyOf": [{"enum": list(FORMATS)}, {"type": "string", "pattern": HUB_NAME}]}),
]


class LoadDataset(Declared):
    """Local files, or a data set of the Hub, read by the `datasets` library."""

    data_name: DataName = "json"
    """Format of the files (`json` reads JSON and JSON lines), or a name on the Hub."""
    data_files: (
        Annotated[
            Annotated[Paths, Tag("local")] | Annotated[Remote, Tag("remote")],
            Discriminator(kind_of),
        ]
        | None
    ) = None
    """One path or several, relative to the config's folder; or a path on AzureML, or a URL."""
    fetched: Path | None = None
    """Of data_files that lie elsewhere: the file, or the folder of files, here. The plan fills it
    in."""
    subset: str | None = None
    """Of a data set of the Hub: which of its configurations."""
    revision: str | None = None
    """Of a data set of the Hub: branch, tag or commit."""
    snapshot: Path | None = None
    """Of a data set of the Hub: its files here. The plan fills it in."""
    split: str = "train"
    """Which rows, in the words of `datasets`: "train", "train[:100]", "train[80%:]"."""

    @property
    def local_files(self) -> tuple[Path, ...]:
        """The files on this machine."""
        found = self.data_files
        if isinstance(found, Remote):
            if self.fetched is None:
                return ()
            below = sorted(file for file in self.fetched.rglob("*") if file.is_file())
            return tuple(below) if self.fetched.is_dir() else (self.fetched,)
        return () if found is None else found

    @property
    def of_hub(self) -> bool:
        """Whether the rows lie on the Hub."""
        return self.data_name not in FORMATS

    @model_validator(mode="after")
    def _names_rows_once(self) -> LoadDataset:
        if self.of_hub and self.data_files is not None:
            raise ValueError("data_files are local files: leave them out beside a name on the Hub")
        if not self.of_hub and self.data_files is None:
            raise ValueError(f"data_files is missing: the {self.data_name} files with the rows")
        return self

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form; the Hub's rows are named by their commit, which pins them.

        What lies elsewhere is named by its identity, wherever its bytes are read.
        """
        local = self.model_copy(update={"snapshot": None, "revision": None, "fetched": None})
        form = super(LoadDataset, local).key_form(digest)
        del form["fetched"]
        return form | {"snapshot": self.snapshot.name if self.snapshot else None}

    def without_effect(self) -> list[Idle]:
        """Return what is about data sets of the Hub alone."""
        given = [name for name in ("subset", "revision") if getattr(self, name) is not None]
        why = "has no effect on local files"
        return [] if self.of_hub else [Idle((name,), why) for name in given]


class TextPreprocess(Declared):
    """How a row becomes text, and the texts samples of tokens.

    What a row is (a text, a pair, a conversation) is said by one of the first fields; where none
    is written, the columns' names tell (`data.row_form`).
    """

    text_template: str | None = None
    """Text with column names in braces: "### Text: {phrase}"; {{ and }} are literal braces."""
    text_cols: Names | None = None
    """Without a template: columns to join by a space."""
    text_formatting_func: str | None = None
    """A function of user_script that is given a row and returns its text."""
    user_script: Path | None = None
    """Python file with that function. It runs in the step's process alone."""
    script_dir: Path | None = None
    """Folder with what user_script imports."""
    pair_format: Literal["default", "alpaca", "chip2", "self_instruct", "custom"] | None = None
    """Rows of a question and its answer; custom: by the two templates below."""
    input_template: str | None = None
    """What is asked in a pair."""
    output_template: str | None = None
    """What is answered."""
    target_max_len: int | None = Field(default=None, ge=1)
    """Longest answer of a pair, in tokens, its end not counted; None: max_seq_len."""
    message_col: str | None = None
    """Column with a list of messages: [{"role": "user", "content": "..."}, ...]."""
    chat_template: str | None = None
    """Jinja template of messages; None: the model's own."""
    ignore_source_in_labels: bool = True
    """Of pairs and messages: learn the answers only."""
    strategy: Strategy = "join"
    """line-by-line: a sample a row. join: all rows in one line of tokens, cut in blocks.
    line-by-line-random: max_samples rows drawn, with replacement. join-random: max_samples blocks,
    each from a row that is drawn. join-sliding-window: blocks that overlap, stride apart."""
    stride: int | None = Field(default=None, ge=1)
    """join-sliding-window: tokens from one block to the next; what is shared is learnt once."""
    random_seed: int | None = None
    """The random strategies: the seed."""
    random_retries: int = Field(default=10, ge=0)
    """The random strategies: draws more where one gives too few tokens."""
    max_seq_len: int = Field(default=1024, ge=2)
    """Longest sample, in tokens; of a pair, longest question."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most so many samples; None: all."""
    add_special_tokens: bool = True
    """Begin of text (where the tokenizer has the habit) and end of text around each row. Messages
    have those of the chat template."""
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

    @property
    def joins(self) -> bool:
        """Whether samples are blocks of joined rows."""
        return self.strategy.startswith("join")

    @property
    def draws(self) -> bool:
        """Whether samples are drawn."""
        return self.strategy.endswith("random")

    @model_validator(mode="after")
    def _fits_together(self) -> TextPreprocess:
        if not self.joins and self.drop_short_sequences and self.pad_to_max_len:
            raise ValueError(
                "drop_short_sequences and pad_to_max_len exclude each other: set one to false"
            )
        if not self.joins and not self.use_attention_mask and self.pad_to_max_len:
            raise ValueError(
                "padding without an attention mask trains on padding: set use_attention_mask to "
                "true or pad_to_max_len to false"
            )
        if self.draws and (self.max_samples is None or self.random_seed is None):
            raise ValueError(f"{self.strategy} needs max_samples and random_seed")
        if self.strategy == "join-sliding-window" and not (
            self.stride is not None and self.stride <= self.max_seq_len
        ):
            raise ValueError("join-sliding-window needs a stride of at most max_seq_len")
        self._says_one_form()
        return self

    def _says_one_form(self) -> None:
        forms = ("text_template", "text_formatting_func", "pair_format", "message_col")
        said = [name for name in forms if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)} exclude each other: a row is one of them")
        if (self.text_formatting_func is None) != (self.user_script is None):
            raise ValueError("text_formatting_func and user_script belong together: write both")
        both = self.input_template is not None and self.output_template is not None
        either = self.input_template is not None or self.output_template is not None
        if self.pair_format == "custom" and not both:
            raise ValueError('pair_format "custom" needs input_template and output_template')
        if either and self.pair_format != "custom":
            raise ValueError('input_template and output_template need pair_format "custom"')

    def without_effect(self) -> list[Idle]:
        """Return what the other strategies and forms would have honoured."""
        idle = []
        if self.joins:
            # false says what join does anyway
            why = f'has no effect under the strategy "{self.strategy}", whose blocks are all full'
            idle = [
                Idle((name,), why)
                for name in ("pad_to_max_len", "drop_short_sequences")
                if name in self.model_fields_set and getattr(self, name)
            ]
        elif self.joiner is not None and "joiner" in self.model_fields_set:
            why = f'has no effect under "{self.strategy}": nothing is joined'
            idle = [Idle(("joiner",), why)]
        if self.stride is not None and self.strategy != "join-sliding-window":
            idle.append(Idle(("stride",), "is for join-sliding-window"))
        if not self.draws:
            idle += [
                Idle((name,), "is for the random strategies")
                for name in ("random_seed", "random_retries")
                if name in self.model_fields_set and getattr(self, name) is not None
            ]
        if self.script_dir is not None and self.user_script is None:
            idle.append(Idle(("script_dir",), "has no effect without user_script"))
        if self.chat_template is not None and self.message_col is None and self._says_text():
            idle.append(Idle(("chat_template",), "has no effect: the rows are no messages"))
        if self.target_max_len is not None and (self._says_text() or self.message_col is not None):
            idle.append(Idle(("target_max_len",), "has no effect: the rows are no pairs"))
        return idle

    def _says_text(self) -> bool:
        said = (self.text_template, self.text_cols, self.text_formatting_func)
        return any(each is not None for each in said)

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
