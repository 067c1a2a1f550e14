"""The model of lm-evaluation-harness that asks drupe's runtimes: what is judged is deployed.

Tokens are made as lm-eval's own `hf` model makes them, so that the same question is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.evaluate.generated import Speaker
from drupe.evaluate.runtimes import Runtime
from drupe.evaluate.scoring import asked_within, likelihoods


class JudgedModel(TemplateLM):  # type: ignore[misc]
    """A runtime as lm-eval asks it.

    open_speaker: gives what speaks for it, once a task asks for an answer that is said.
    """

    def __init__(
        self,
        runtime: Runtime,
        open_speaker: Callable[[], Speaker],
        job: Job,
        max_length: int | None = None,
        max_gen_toks: int = 256,
    ) -> None:
        super().__init__()
        self.tokenizer = runtime.tokenizer
        self._runtime = runtime
        self._open_speaker = open_speaker
        self._job = job
        self.max_length = min(max_length or runtime.context_length, runtime.context_length)
        self.max_gen_toks = max_gen_toks

    @cached_property
    def _speaker(self) -> Speaker:
        return self._open_speaker()

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context: begin of text, or its end."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache of requests calls the tokenizer; nothing is kept there."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **also: Any
    ) -> list[int]:
        """Return the ids of a text, with what the tokenizer adds unless the text begins so."""
        special = True if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and has_bos_prefix(
            string, self.tokenizer.decode([self.prefix_token_id])
        ):
            special = False
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=special)
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the model reads it."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **also: Any
    ) -> list[tuple[float, bool]]:
        """Return (log-probability, would it be said) of each (_, context, continuation)."""
        asked = [
            asked_within([*context, *continuation], len(context), self.max_length)
            for _, context, continuation in requests
        ]
        found = likelihoods(self._runtime, asked, self._progress)
        return [(each.log_probability, each.greedy) for each in found]

    def _progress(self, done: int, total: int) -> None:
        self._job.progress("tasks", done, total, "questions")

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of whole texts, in windows as long as the context."""
        windows: list[tuple[Any, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            rolled = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, rolled):
                windows.append((None, context, continuation))
                owners.append(number)
        found = [0.0] * len(requests)
        for owner, (nats, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            found[owner] += nats
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what is said after each prompt, up to the first of its stop sequences."""
        found = []
        end = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        for number, request in enumerate(requests, 1):
            context, arguments = request.args
            options = normalize_gen_kwargs(arguments, self.max_gen_toks)
            if options.get("do_sample"):
                raise DrupeError(
                    f"LmEval.{request.task_name}",
                    "draws its answers (do_sample), which is another each time",
                    "Choose a task whose generation_kwargs ask for the likeliest answer.",
                )
            until = handle_stop_sequences(options.pop("until", None), eos=end)
            most = int(options["max_gen_toks"])
            ids = self.tok_encode(context)[-(self.max_length - most) :]
            found.append(self._said(ids, most, until))
            self._job.progress("answers", number, len(requests), "questions")
        return found

    def _said(self, ids: Sequence[int], most: int, until: list[str]) -> str:
        said = ""
        for said in self._speaker.texts(ids, most):
            if any(stop and stop in said for stop in until):
                break
        text: str = postprocess_generated_text(said, stop=until, think_end_token=None)
        return text
