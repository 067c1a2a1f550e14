"""Talk to a model that a run gave, one answer after the other; --prompt asks once.

OUTPUT is a run's output folder, or the folder of an ONNX Runtime GenAI model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from drupe.core.errors import Refused

REMEDY = "Give the output folder of a run that ends with ModelBuilder"
EXAMPLES = """\
  drupe chat models/phi3-emotion
  drupe chat models/phi3-emotion --prompt "A spider!" --choices joy,fear,anger
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe chat`."""
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a run's output folder")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and end")
    parser.add_argument("--choices", metavar="A,B,...", help="choose the likeliest of these")
    parser.add_argument("--raw", action="store_true", help="leave the chat template out")
    parser.add_argument(
        "--max-length", metavar="N", type=int, default=512,
        help="tokens, prompt included (512, unless said)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Answer the prompt, or one line after the other; return 0."""
    choices = _choices(arguments.choices)
    if choices and arguments.prompt is None:
        raise Refused("--choices", "needs a --prompt", 'Write: --prompt "..." --choices a,b')
    if arguments.max_length < 1:
        raise Refused("--max-length", f"is {arguments.max_length}", "Give a number of tokens.")
    chat = _chat(model_below(arguments.output))
    if arguments.prompt is not None:
        _answer(chat, arguments.prompt, arguments)
        return 0
    if sys.stdin.isatty():
        print("An empty line or Ctrl-D ends.")
    while True:
        try:
            prompt = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return 0
        if not prompt:
            return 0
        _answer(chat, prompt, arguments)


def _chat(folder: Path) -> Any:
    """Return the model in `folder`, loaded; the runtime is imported only here."""
    try:
        return importlib.import_module("drupe.evaluate.chat").Chat(folder)
    except ImportError as fault:
        remedy = 'pip install "drupe[cpu]"'
        raise Refused("drupe chat", f"needs {fault.name}, which is not here", remedy) from fault


def _choices(written: str | None) -> list[str]:
    """Return the choices of --choices; raises Refused for fewer than two."""
    if written is None:
        return []
    found = list(dict.fromkeys(filter(None, map(str.strip, written.split(",")))))
    if len(found) < 2:
        raise Refused("--choices", f'"{written}" names {len(found)}', "Give two or more: a,b")
    return found


def _answer(chat: Any, prompt: str, arguments: argparse.Namespace) -> None:
    if arguments.choices is not None:
        for choice, probability in chat.choose(
            prompt, _choices(arguments.choices), raw=arguments.raw
        ):
            print(f"{choice}\t{probability:.3f}")
        return
    for piece in chat.stream(prompt, max_length=arguments.max_length, raw=arguments.raw):
        print(piece, end="", flush=True)
    print()


def model_below(output: Path) -> Path:
    """Return the folder of the GenAI model that `output` is or holds.

    Raises Refused when there is none.
    """
    if (output / "genai_config.json").is_file():
        return output
    if not output.is_dir():
        raise Refused(str(output), "is no folder that is there", f"{REMEDY}.")
    what = "holds no model that can be talked to (no genai_config.json, no report.json naming one)"
    remedy = f"{REMEDY}."
    with suppress(OSError, ValueError, KeyError, TypeError):  # a report, and of ours
        folder: Path = output / json.loads((output / "report.json").read_text())["model"]
        if (folder / "genai_config.json").is_file():
            return folder
        if folder.is_dir():
            what = "holds what a run made, and no model that can be talked to (no ONNX)"
            remedy = f"Export it: drupe export {output} --precision int4 -o DIR"
    raise Refused(str(output), what, remedy)
