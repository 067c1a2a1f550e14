"""The command line: finds the verb's file and runs it; tells errors, sets the exit status.

Imports the verb that is asked for, and nothing else: `drupe --help` costs as much as Python.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

from drupe import __version__

# group -> {verb: one line for the help}. Each verb has a file here with EXAMPLES (two lines),
# add_arguments(parser) and run(arguments).
GROUPS = {
    "The job": {
        "init": "write a commented config and sample data to start from",
        "run": "do the job that a config describes",
        "plan": "show what a run would do, would take, and what is in its way",
        "optimize": "find the best model for a target that keeps limits, without a config",
        "finetune": "tune a model on rows, without a config",
        "merge": "fold an adapter into its base, likewise",
        "export": "make the ONNX model, likewise",
        "quantize": "make it of int4 or int8 weights, likewise",
        "apply": "apply any one pass, likewise",
        "evaluate": "measure a model on rows and tasks, beside another one too",
    },
    "What it gave": {
        "ls": "list what was made here",
        "compare": "compare two results: configs, and numbers item by item",
        "chat": "talk to a model that a run gave",
        "benchmark": "time the answers of a model, beside another one's",
    },
    "What there is": {
        "config": "check a config, rewrite it in today's words, print its schema",
        "cache": "list, drop, verify and explain cached results",
        "inspect": "show what a checkpoint, an adapter or an ONNX model is",
        "passes": "list the passes, or the fields of one",
        "doctor": "look whether all that is installed can work",
    },
}
VERBS = {verb: line for verbs in GROUPS.values() for verb, line in verbs.items()}
HIDDEN = ("step", "batch")


def main(arguments: list[str] | None = None) -> int:
    """Run `drupe ARGUMENTS...`; return the exit status.

    0 done, 1 a step failed, 2 refused before any work, 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help") or words == ["help"]:
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"drupe {__version__}")
        return 0
    if words[0] == "help" and words[1] in VERBS:
        words = [words[1], "--help"]
    if words[0] not in VERBS and words[0] not in HIDDEN:
        return _unknown(words[0])
    return _run(words[0], words[1:])


def _help() -> str:
    width = max(map(len, VERBS))
    groups = "\n\n".join(
        "\n".join([f"{group}:", *(f"  {verb:<{width}}  {line}" for verb, line in verbs.items())])
        for group, verbs in GROUPS.items()
    )
    return (
        "drupe: a language model, a target and one config file in, the best model that the target "
        "can\nrun out: tuned, merged, quantized, exported, measured.\n\n"
        f"drupe VERB ... (drupe VERB --help tells more)\n\n{groups}"
    )


def _dashed(word: str) -> str:
    """Return an option with dashes where Olive's users write underscores."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _unknown(verb: str) -> int:
    errors = importlib.import_module("drupe.core.errors")
    print(f'drupe: "{verb}" is not a verb{errors.nearest(verb, VERBS)}', file=sys.stderr)
    print(f"  Known: {', '.join(VERBS)}.", file=sys.stderr)
    return 2


def _run(verb: str, words: list[str]) -> int:
    """Parse the verb's arguments, run it, turn what it raises into words and a status."""
    importlib.import_module("drupe.core.silence").silence_dependencies()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack a letter of ours
    try:
        argparse = importlib.import_module("argparse")
        module = importlib.import_module(f"drupe.cli.{verb}")
        parser = argparse.ArgumentParser(
            prog=f"drupe {verb}",
            description=module.__doc__,
            epilog=f"Examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a script's short form would break when an option is added
        )
        module.add_arguments(parser)
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
        arguments, fields = parser.parse_known_args(list(map(_dashed, words)))
        if fields and not getattr(module, "TAKES_FIELDS", False):
            parser.error(f"unrecognized arguments: {' '.join(fields)}")
        arguments.fields = fields
        status: int = module.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a pipe has seen enough; what was begun is not done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words and not isinstance(error, KeyboardInterrupt):
            raise
        telling = importlib.import_module("drupe.cli.fault")
        fault = telling.fault_of(error)
        if "--json" in words and verb != "run":  # which tells where its events are, too
            print(importlib.import_module("json").dumps(telling.failure(fault)))
    secrets = importlib.import_module("drupe.core.secrets")
    told = str(fault)
    if not told.startswith(("drupe: ", "drupe ")):  # what a verb says of itself begins so
        told = f"drupe: {told}"
    print(secrets.redacted(told), file=sys.stderr)
    code: int = fault.exit_code
    return code
