"""Write a commented config and sample data to start from; overwrite nothing.

TEMPLATE is phi3-emotion (LoRA), quantize, qlora or azureml. Without one, a
terminal is asked which; of azureml it is asked what only you can know.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from importlib.resources import files
from pathlib import Path

from drupe.core.errors import Refused, nearest
from drupe.core.files import check_writable, write_together
from drupe.core.libraries import installed_version, library_version

EXAMPLES = """\
  drupe init phi3-emotion -o my-job
  drupe init quantize --model path/to/checkpoint
"""
TEMPLATES = {
    "phi3-emotion": "tune with LoRA, merge, export int4 ONNX; accuracy measured on unseen phrases",
    "quantize": "export int4 ONNX of a model as it is, without training; perplexity measured",
    "qlora": "tune on a base in 4 bits (a quarter of the memory), merge, export int4 ONNX",
    "azureml": "tune with LoRA on an AzureML compute: registry model, datastore, key vault",
}
TUNED_ON = "data/phrases.jsonl"
MEASURED_ON = "data/held-out.jsonl"
SAMPLES = {
    "phi3-emotion": (TUNED_ON, MEASURED_ON),
    "quantize": (MEASURED_ON,),
    "qlora": (TUNED_ON, MEASURED_ON),
    "azureml": (TUNED_ON, MEASURED_ON),
}
# What a person at a terminal is asked, by its placeholder in a template.
QUESTIONS = {
    "<subscription id>": "The id of the Azure subscription",
    "<resource group>": "The resource group",
    "<workspace>": "The name of the AzureML workspace",
    "<key vault>": "The key vault with the Hub's token",
    "<compute>": "The name of the compute",
    "<version of the model>": "The version of Phi-3-mini-4k-instruct in the registry azureml",
    "<path in the datastore>": "The path of the training rows in workspaceblobstore",
}
ABOUT_SAMPLES = "data/README.md"
CONFIG = "config.yaml"
CONDA = "conda.yaml"
PIN = re.compile(r"^( +- )([\w.-]+)==(\S+)( *)", re.MULTILINE)
REGISTRY_MODEL = re.compile(r"(  model_path:)\n(?:    .*\n)+")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MODEL = "microsoft/Phi-3-mini-4k-instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe init`."""
    parser.add_argument("template", nargs="?", metavar="TEMPLATE", help=", ".join(TEMPLATES))
    parser.add_argument(
        "-o", "--output", metavar="DIR", default=".", help="where to write (by default here)"
    )
    parser.add_argument(
        "--model", metavar="FOLDER|NAME", help=f"a checkpoint's folder, or in place of {MODEL}"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="print the files as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Write the files of the template; return 0, or 130 after Ctrl-C at the question."""
    if arguments.output == "":
        raise Refused("-o", "names no folder", "Write: -o DIR")
    try:
        name = arguments.template or _asked(quietly=arguments.json)
    except KeyboardInterrupt:
        print("\nNothing was written.", file=sys.stderr)
        return 130
    _check_name(name)
    folder = Path(arguments.output)
    contents = {folder / file: data for file, data in content(name).items()}
    config = folder / CONFIG
    if arguments.model is not None:
        contents[config] = with_model(contents[config], model_from(arguments.model, folder))
    _check_places(contents, force=arguments.force)
    try:
        contents[config] = _filled_in(contents[config], quietly=arguments.json)
    except KeyboardInterrupt:
        print("\nNothing was written.", file=sys.stderr)
        return 130
    write_together(contents)
    if arguments.json:
        print(json.dumps({"written": [str(path.resolve()) for path in contents]}))
        return 0
    for path in contents:
        print(f"Wrote {path}")
    left = [blank for blank in QUESTIONS if blank.encode() in contents[config]]
    if left:
        print(f"\nTo be filled in, in {config}:")
        print("\n".join(f"  {blank:<26}{QUESTIONS[blank]}" for blank in left))
    if MODEL.encode() in contents[config]:
        print(
            f"\nThe model is {MODEL}: what of its 7.6 GB is not here yet is\n"
            "downloaded by the first plan or run. Another one: --model, or in the config."
        )
    shown = f'"{config}"' if " " in str(config) else str(config)
    print(f"\nNext:  drupe plan {shown}\n       drupe run {shown}")
    return 0


def content(name: str) -> dict[str, bytes]:
    """Return {relative path: content} of a template's files, the config last."""
    folder = files("drupe") / "templates"
    wanted = {file: file for file in (*SAMPLES[name], ABOUT_SAMPLES)}
    if name == "azureml":
        wanted[CONDA] = "azureml-conda.yaml"
    wanted[CONFIG] = f"{name}.yaml"
    found = {path: folder.joinpath(*kept.split("/")).read_bytes() for path, kept in wanted.items()}
    if CONDA in found:
        found[CONDA] = PIN.sub(_as_here, found[CONDA].decode()).encode()
    return found


def with_model(config: bytes, model: str) -> bytes:
    """Return a template's config with another model in place of its own."""
    told = json.dumps(model, ensure_ascii=False)
    text = REGISTRY_MODEL.sub(lambda found: f"{found[1]} {told}\n", config.decode())
    return text.replace(MODEL, told).encode()


def _as_here(pin: re.Match[str]) -> str:
    """Return the line of a pin with the version that is installed here, if one is.

    Steps there have then the keys of steps here.
    """
    before, name, pinned, blanks = pin.groups()
    version = installed_version(name)
    if version is None and name.startswith("onnxruntime-genai"):  # all go by one number
        version = (library_version("onnxruntime-genai") or "").partition(" ")[0]
    known = (version or pinned).partition("+")[0]
    more = len(pinned) - len(known) + len(blanks)
    return f"{before}{name}=={known}{' ' * (max(more, 1) if blanks else 0)}"


def _filled_in(config: bytes, *, quietly: bool) -> bytes:
    """Return the config with what a person at a terminal answers in place of what stands in <>."""
    text = config.decode()
    blanks = [blank for blank in QUESTIONS if blank in text]
    if not blanks or quietly or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return config
    print("What is not answered stays as it is, to be filled in later.")
    for blank in blanks:
        try:
            answer = input(f"{QUESTIONS[blank]}: [{blank}] ").strip()
        except EOFError:
            print()
            break
        if answer:
            text = text.replace(blank, json.dumps(answer, ensure_ascii=False))
    return text.encode()


def model_from(written: str, folder: Path) -> str:
    """Return a model that was named here as the config in `folder` has to name it.

    Raises Refused for what is neither a folder that is there nor a name on the Hub.
    """
    place = Path(written).expanduser()
    if written and place.is_dir():
        if place.is_absolute():
            return str(place)
        try:
            return Path(os.path.relpath(place.resolve(), folder.resolve())).as_posix()
        except ValueError:  # on another drive of Windows
            return str(place.resolve())
    if not HUB_NAME.fullmatch(written) or written.startswith("."):
        raise Refused(
            f"--model {written}",
            'is no folder that is there, and no name on the Hub ("owner/name")',
            "Give the folder of a checkpoint, or a name on the Hub.",
        )
    return written


def _asked(*, quietly: bool) -> str:
    """Return the template that the person at the terminal chooses; raises Refused without one."""
    if quietly or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("drupe init", "needs a template", f"Write: drupe init TEMPLATE\n{_listed()}")
    names = list(TEMPLATES)
    print(_listed(numbered=True))
    while True:
        try:
            answer = input(f"Which one? [1, {names[0]}] ").strip()
        except EOFError:
            print()
            raise Refused(
                "drupe init",
                "was given no answer; nothing was written",
                "Write: drupe init TEMPLATE",
            ) from None
        if not answer:
            return names[0]
        if answer in names:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        print(f'"{answer}" is none of them{nearest(answer, names)} (Ctrl-C ends)')


def _listed(*, numbered: bool = False) -> str:
    width = max(map(len, TEMPLATES))
    return "\n".join(
        f"  {f'{number}  ' if numbered else ''}{name:<{width}}  {line}"
        for number, (name, line) in enumerate(TEMPLATES.items(), 1)
    )


def _check_name(name: str) -> None:
    if name not in TEMPLATES:
        what = f'"{name}" is not a template{nearest(name, TEMPLATES)}'
        raise Refused("drupe init", what, f"Known: {', '.join(TEMPLATES)}.")


def _check_places(paths: dict[Path, bytes], *, force: bool) -> None:
    """Raise Refused where a file of that name is there, or none can be written."""
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        what = "is there already" if len(there) == 1 else "are there already"
        raise Refused(
            ", ".join(map(str, there)),
            what,
            "Name another folder with -o, or replace with --force.",
        )
    for path in there:
        if path.is_dir():
            raise Refused(str(path), "is a folder, and no file", "Name another folder with -o.")
    for folder in sorted({path.parent for path in paths}):
        check_writable(folder, "-o")
