"""The same wrong inputs and damaged caches for drupe and for Olive, side by side, as a table.

    python benchmarks/faults.py [--olive PATH_OF_OLIVE] [--only WORDS] [--table FILE]

One config in Olive's words of today, which both read, is run by both first: it has to work. Each
case then spoils one thing. Olive 0.13 lives in an environment of its own (see chain.py). A case
counts as told in place when the end of what was printed names what is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent.parent / "examples" / "phi3-emotion"
DRUPE = str(Path(sys.executable).parent / "drupe")
ROWS = 40
TAIL_LINES = 12
LIMIT_SECONDS = 300
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
Config = dict[str, Any]
Spoil = Callable[[Config, Path], object]


def valid(folder: Path) -> Config:
    """Return the job that works, in words that both programs read."""
    return {
        "input_model": {"type": "HfModel", "model_path": str(folder / "model")},
        "systems": {
            "here": {
                "type": "LocalSystem",
                "accelerators": [
                    {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
                ],
            }
        },
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "data_name": "json", "data_files": str(folder / "train.json"),
                    "split": "train",
                },
                "pre_process_data_config": {
                    "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
                    "text_cols": ["phrase", "tone"], "strategy": "join", "max_seq_len": 64,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA", "r": 8, "alpha": 8, "torch_dtype": "float32",
                "target_modules": ["o_proj", "qkv_proj"], "train_data_config": "train",
                "training_args": {
                    "seed": 0, "max_steps": 2, "logging_steps": 1, "learning_rate": 1e-4,
                    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1,
                    "gradient_checkpointing": False, "optim": "adamw_torch",
                },
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "host": "here",
        "target": "here",
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "output"),
    }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One thing that is wrong. names: what a sentence that tells it in place matches.

    works: whether nothing is wrong after all, and a result has to come out. text: what is done
    to the config's own text.
    """

    title: str
    spoil: Spoil
    names: str
    works: bool = False
    text: Callable[[str], str] = str


def at(path: str, value: Any) -> Spoil:
    """Return what sets one value of the config, at a dotted path."""

    def spoil(config: Config, folder: Path) -> None:
        *above, last = path.split(".")
        place: Any = config
        for name in above:
            place = place[int(name) if isinstance(place, list) else name]
        place[last] = value

    return spoil


def data(text: str) -> Spoil:
    """Return what writes the data file."""
    return lambda config, folder: (folder / "train.json").write_text(text)


def rows(change: Callable[[list[dict[str, Any]]], object]) -> Spoil:
    """Return what changes the rows of the data, written one a line."""

    def spoil(config: Config, folder: Path) -> None:
        found = [json.loads(line) for line in (folder / "train.json").read_text().splitlines()]
        change(found)
        (folder / "train.json").write_text("\n".join(map(json.dumps, found)))

    return spoil


def order(*names: str) -> Spoil:
    """Return what puts the passes into another order."""

    def spoil(config: Config, folder: Path) -> None:
        config["passes"] = {name: config["passes"][name] for name in names}

    return spoil


def moved(name: str) -> Spoil:
    """Return what moves the model and its data into a folder of this name."""

    def spoil(config: Config, folder: Path) -> None:
        (folder / name).mkdir()
        for part in ("model", "train.json"):
            (folder / part).rename(folder / name / part)
        config["input_model"]["model_path"] = str(folder / name / "model")
        source = config["data_configs"][0]["load_dataset_config"]
        source["data_files"] = str(folder / name / "train.json")

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """Return what does one after the other."""
    return lambda config, folder: [spoil(config, folder) for spoil in spoils]


def in_model(name: str, change: Callable[[Path], object]) -> Spoil:
    """Return what changes a file of the input model."""
    return lambda config, folder: change(folder / "model" / name)


def halve(path: Path) -> None:
    """Cut a file to half its length; one that is read-only too."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change the byte in the middle of a file."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def written(text: str) -> Callable[[Path], object]:
    """Return what replaces a file's content."""
    return lambda path: (path.chmod(0o644), path.write_text(text))


def without_tokenizer(config: Config, folder: Path) -> None:
    for found in (folder / "model").glob("tokenizer*"):
        found.unlink()


def pickle_only(config: Config, folder: Path) -> None:
    (folder / "model" / "model.safetensors").unlink()
    (folder / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def foreign_output(config: Config, folder: Path) -> None:
    """Put somebody's own file where the result goes; main() looks whether it is still there."""
    (folder / "output" / "model").mkdir(parents=True)
    (folder / "output" / "model" / "thesis.txt").write_text("mine")
    (folder / "output" / "report.json").write_text('{"mine": true}')


def nothing(config: Config, folder: Path) -> None:
    """Leave all as it is."""


TRAINING = "passes.lora.training_args."
SOURCE = "data_configs.0.load_dataset_config."
TEXT = "data_configs.0.pre_process_data_config."
CASES = (
    Case("nothing is wrong", nothing, "", works=True),
    Case("unknown pass", at("passes.merge.type", "MergeAdapterWeight"), "MergeAdapterWeight\\b"),
    Case("misspelt field", at("passes.lora.lora_dropuot", 0.1), "lora_dropuot"),
    Case("misspelt training argument", at(TRAINING + "learning_rat", 1e-3), "learning_rat\\b"),
    Case("wrong type", at("passes.lora.r", "eight"), "\\br\\b"),
    Case("missing data file", at(SOURCE + "data_files", "absent.json"), "absent\\.json"),
    Case("column that the data lack", at(TEXT + "text_cols", ["phrase", "mood"]), "mood"),
    Case("misspelt placeholder", at(TEXT + "text_template", "{phrase} {tnoe}"), "tnoe"),
    Case("empty data", data(""), "rows|empty|train\\.json"),
    Case("data without rows", data("[]"), "rows|empty|train\\.json"),
    Case("one broken line of data", data('{"phrase": "a", "tone": "b"}\n{"phrase": \n'), "train"),
    Case("a row lacks the column", rows(lambda found: found[3].pop("tone")), "row 4|tone"),
    Case("a null", rows(lambda found: found[3].update(tone=None)), "row 4|tone"),
    Case("model folder is not there", at("input_model.model_path", "/absent/model"), "absent"),
    Case("spaces and non-ASCII in paths", moved("Ordner mit ä 猫"), "", works=True),
    Case("byte order mark", nothing, "", True, lambda text: "\ufeff" + text),
    Case("malformed JSON", nothing, "(?:line 2|:2:)", text=lambda text: '{\n  "passes": }\n'),
    Case(
        "duplicate key",
        nothing,
        "precision",
        text=lambda text: text.replace('"int4"', '"int4",\n "precision": "fp32"'),
    ),
    Case(
        "two passes of one name",
        nothing,
        "merge",
        text=lambda text: text.replace('"builder":', '"merge":'),
    ),
    Case("config is a list", nothing, "list|object|array", text=lambda text: "[]"),
    Case("config is empty", nothing, "empty|line 1|:1", text=lambda text: ""),
    Case("output folder below a file", at("output_dir", "/dev/null/out"), "/dev/null"),
    Case("output folder is somebody's", foreign_output, "report\\.json|not written by"),
    Case("cache folder is a file", at("cache_dir", "/dev/null"), "/dev/null"),
    Case("gated model, no token", at("input_model.model_path", "owner/gated"), "gated|token"),
    Case("model that the Hub lacks", at("input_model.model_path", "owner/absent"), "owner/absent"),
    Case("ModelBuilder before merge", order("lora", "builder", "merge"), "builder|ModelBuilder"),
    Case("merge without adapter", order("merge", "builder"), "merge|Merge"),
    Case("negative learning rate", at(TRAINING + "learning_rate", -1.0), "learning_rate|lr"),
    Case("rank 0", at("passes.lora.r", 0), "\\br\\b"),
    Case("target_modules match nothing", at("passes.lora.target_modules", ["no_prj"]), "no_prj"),
    Case(
        "NaN in training", at(TRAINING + "learning_rate", 1e30), "nan|finite|diverge|not a number"
    ),
    Case("eval_dataset_size 1.5", at("passes.lora.eval_dataset_size", 1.5), "eval_dataset_size"),
    Case("block longer than all data", at(TEXT + "max_seq_len", 100_000), "max_seq_len|block"),
    Case("halved safetensors", in_model("model.safetensors", halve), "safetensors"),
    Case("pickle only checkpoint", pickle_only, "pickle|safetensors"),
    Case("tokenizer missing", without_tokenizer, "okenizer"),
    Case("unknown precision", at("passes.builder.precision", "int5"), "int5|precision"),
    Case("unknown target", at("systems.here.accelerators.0.device", "tpu9"), "tpu9"),
)


@dataclass(frozen=True)
class Damage:
    """Something happens to the cache (or its inputs) between two runs.

    first: the passes of the first run, so that the second reads what was damaged.
    """

    title: str
    first: tuple[str, ...]
    pattern: str
    change: Callable[[Path], object]


def damages() -> list[Damage]:
    """Return each file of a chain's results flipped, halved and deleted, and a few more."""
    whole = ("lora", "merge", "builder")
    places = {
        "adapter": (("lora",), "cache/**/adapter_model.safetensors"),
        "merged weights": (("lora", "merge"), "cache/**/model*.safetensors"),
        "ONNX weights": (whole, "cache/**/*.onnx.data"),
        "ONNX tokenizer": (whole, "cache/**/tokenizer.json"),
    }
    ways = {"one byte flipped": flip, "cut to half": halve, "deleted": Path.unlink}
    found = [
        Damage(f"cached {place}: {way}", first, pattern, change)
        for place, (first, pattern) in places.items()
        for way, change in ways.items()
    ]
    notes = written("{")
    rotten = "cache/**/manifest", "cache/**/*.json"
    return [
        *found,
        *(Damage(f"cache's own notes spoilt ({each})", whole, each, notes) for each in rotten),
        Damage("data edited in place", whole, "train.json", edit_rows),
        Damage("delivered weights: one byte flipped", whole, "output/**/*.onnx.data", flip),
        Damage("delivered weights deleted", whole, "output/**/*.onnx.data", Path.unlink),
    ]


def edit_rows(path: Path) -> None:
    """Give each row another phrase."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    turned = [{**row, "phrase": row["phrase"][::-1]} for row in found]
    path.write_text("\n".join(map(json.dumps, turned)))


@dataclass(frozen=True)
class Answer:
    """What a program did: exit code, the end of what it printed, its warnings, a model or none."""

    code: int
    said: str
    warned: str
    delivered: bool


def run(program: str, folder: Path, hub: str) -> Answer:
    """Run the folder's config by one of the two programs."""
    name = Path(program).name
    environment = {
        **os.environ, "CI": "1", "HF_ENDPOINT": hub, "HF_HOME": str(folder / "hf"),
        "PYTHONWARNINGS": "ignore", "GOMP_SPINCOUNT": "0",
    }  # fmt: skip
    done = subprocess.run(
        command(program), cwd=folder, env=environment, timeout=LIMIT_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    said = done.stdout.strip()
    warnings = [line for line in said.splitlines() if re.search(r"^! |WARN", line)]
    if name == "drupe":
        said = said[max(0, said.find("drupe: ")) :]
    said = "\n".join(said.splitlines()[-TAIL_LINES:]).replace(str(folder) + "/", "")
    delivered = any((folder / "output").rglob("*.onnx")) if (folder / "output").is_dir() else False
    return Answer(done.returncode, said, "\n".join(warnings), delivered)


def command(program: str) -> list[str]:
    """Return how the folder's config is run; drupe leaves out the measuring, as Olive does."""
    words = ["run", "--config", "config.json"]
    quick = ["--set", "engine.evaluate=none"] if Path(program).name == "drupe" else []
    return [program, *words, *quick]


def prepare(folder: Path) -> Config:
    """Make the folder anew, with model and data; return the valid config."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE / "model", folder / "model")
    lines = (EXAMPLE / "dataset" / "dataset-classification.json").read_text().splitlines()[:ROWS]
    (folder / "train.json").write_text("\n".join(lines))
    return valid(folder)


def row_of(case: Case, program: str, folder: Path, hub: str) -> str:
    """Return what `program` does of a case: two cells of the table."""
    config = prepare(folder)
    case.spoil(config, folder)
    (folder / "config.json").write_text(case.text(json.dumps(config, indent=1)))
    mine = sum(1 for _ in (folder / "output").rglob("thesis.txt"))
    answer = run(program, folder, hub)
    lost = mine > sum(1 for _ in (folder / "output").rglob("thesis.txt"))
    return cells(judged(case, answer) + (" **a file was lost**" if lost else ""), answer)


def judged(case: Case, answer: Answer) -> str:
    """Return in words what a program made of a case."""
    if case.works:
        return "works" if answer.code == 0 and answer.delivered else "**fails**"
    if answer.code == 0 and answer.delivered:
        warned = re.search(case.names, answer.warned, re.IGNORECASE)
        return "delivers a model, and warns" if warned else "**delivers a model**"
    if answer.code == 0:
        return "**reports success**"
    kept = " (a model lies there)" if answer.delivered else ""
    named = re.search(case.names, answer.said, re.IGNORECASE)
    return ("told in place" if named else "fails, place not named") + kept


def cells(judgement: str, answer: Answer) -> str:
    """Return judgement, exit code and the first line of what was said, fit for a table."""
    lines = answer.said.splitlines() or [""]
    faults = [line for line in lines if re.search(r"\b\w*(Error|Exception|Refused)\b", line)]
    told = lines[0] if lines[0].startswith("drupe: ") else (faults or lines)[-1]
    if told.endswith((" faults", " fault")):
        told = lines[1]  # the first of a config's faults
    told = "" if answer.code == 0 else re.sub(r"[|`\s]+", " ", told)[:160]
    return f"{judgement} | {answer.code} | {told}"


def result(folder: Path) -> dict[str, str]:
    """Return {file: digest} of the delivered model's weights and tokenizer."""
    wanted = ("*.onnx", "*.onnx.data", "tokenizer.json")
    return {
        found.name: hashlib.sha256(found.read_bytes()).hexdigest()
        for pattern in wanted
        for found in (folder / "output").rglob(pattern)
    }


def snapshots(program: str, folder: Path, hub: str) -> dict[tuple[str, ...], Path]:
    """Run each first chain once; keep its folder aside, to be put back for each damage."""
    kept = {}
    for first in {damage.first: None for damage in damages()}:
        config = prepare(folder)
        whole = json.dumps(config, indent=1)
        order(*first)(config, folder)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        if run(program, folder, hub).code:
            raise SystemExit(f"{program} cannot run {first}")
        (folder / "config.json").write_text(whole)
        kept[first] = folder.with_name(f"kept-{'-'.join(first)}")
        shutil.rmtree(kept[first], ignore_errors=True)
        subprocess.run(["cp", "-a", folder, kept[first]], check=True)
    return kept


def damage_row(
    damage: Damage, kept: Path, expected: dict[str, str], program: str, folder: Path, hub: str
) -> str:
    """Return what `program` makes of a damage: cells of the table."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", kept, folder], check=True)
    found = [place for place in folder.glob(damage.pattern) if place.is_file()]
    if not found:
        return "no such file | - | "
    for place in found:
        damage.change(place)
    if not damage.pattern.startswith("output"):
        shutil.rmtree(folder / "output", ignore_errors=True)
    answer = run(program, folder, hub)
    if answer.code:
        return cells("fails", answer)
    same = result(folder) == expected
    if damage.pattern == "train.json":
        return cells("**delivers the old model**" if same else "trains again", answer)
    return cells("delivers the right model" if same else "**delivers another model**", answer)


def happened(program: str, folder: Path, hub: str, expected: dict[str, str]) -> dict[str, str]:
    """Return what comes of a kill, of two runs at once, and of the same job done again."""
    told = {}
    config = prepare(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    started = time.monotonic()
    answer = run(program, folder, hub)
    seconds = time.monotonic() - started
    same = "the same bytes" if result(folder) == expected else "**other bytes**"
    told["the same job in a new folder"] = cells(same if not answer.code else "fails", answer)
    for part in (0.5, 0.8):
        prepare(folder)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        killed = subprocess.Popen(command(program), cwd=folder, start_new_session=True, **SILENT)
        time.sleep(part * seconds)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        told[f"killed after {part:.0%} of the time, run again"] = _ends(
            run(program, folder, hub), folder, expected
        )
    prepare(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    other = subprocess.Popen(command(program), cwd=folder, **SILENT)
    answer = run(program, folder, hub)
    told["two runs at once"] = _ends(answer, folder, expected)
    if other.wait():
        told["two runs at once"] = cells("**one of them fails**", answer)
    return told


def _ends(answer: Answer, folder: Path, expected: dict[str, str]) -> str:
    if answer.code:
        return cells("fails", answer)
    right = result(folder) == expected
    return cells("delivers the right model" if right else "**delivers another model**", answer)


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for a gated model without a token, and for one that is not there."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(401 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815  the protocol's name

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--olive", type=Path, help="the program `olive` of another environment")
    parser.add_argument("--only", default="", help="cases whose title holds this")
    parser.add_argument("--table", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    programs = [*([str(arguments.olive)] if arguments.olive else []), DRUPE]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = f"http://127.0.0.1:{server.server_port}"
    columns = [f"{Path(program).name} | exit | it says" for program in programs]
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)
        if arguments.table:
            arguments.table.write_text("\n".join(lines) + "\n")

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "job"
        tell("| wrong input | " + " | ".join(columns) + " |")
        tell("|---" * (1 + 3 * len(programs)) + "|")
        for case in CASES:
            if arguments.only in case.title:
                told = [row_of(case, program, folder, hub) for program in programs]
                tell(f"| {case.title} | " + " | ".join(told) + " |")
        tell("\n| damage | " + " | ".join(columns) + " |")
        tell("|---" * (1 + 3 * len(programs)) + "|")
        told_of = [damaged(program, folder, hub, arguments.only) for program in programs]
        for title in told_of[0]:
            tell(f"| {title} | " + " | ".join(told[title] for told in told_of) + " |")


def damaged(program: str, folder: Path, hub: str, only: str) -> dict[str, str]:
    """Return what `program` makes of each damage, by its title."""
    wanted = [damage for damage in damages() if only in damage.title]
    if not wanted:
        return {}
    kept = snapshots(program, folder, hub)
    expected = result(kept["lora", "merge", "builder"])
    told = {
        damage.title: damage_row(damage, kept[damage.first], expected, program, folder, hub)
        for damage in wanted
    }
    return told if only else told | happened(program, folder, hub, expected)


if __name__ == "__main__":
    main()
