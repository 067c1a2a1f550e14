"""The output folder: the model as its users load it, and what the run has to say of it.

OUTPUT/PASS-PASS-PASS/cpu-cpu_model/   the model, with README.md, its card, and its companions
OUTPUT/report.html                     what a person looks at
OUTPUT/report.json                     stages, scores, versions
OUTPUT/config.lock.json                the config as it was read, and what pins it
OUTPUT/items.json                      what the metrics say of each row, for comparisons
OUTPUT/ranked/2/cpu-cpu_model/         what a search ranks second, if more than the best is wanted
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import drupe
from drupe.core.digest import file_digest, value_digest
from drupe.core.errors import Refused
from drupe.core.files import (
    check_writable,
    files_below,
    folder_in_place_of,
    link_if_large,
    remove_tree,
    write_atomic,
)
from drupe.core.secrets import redacted_values
from drupe.outcome import QUOTES, Outcome
from drupe.packaging.companions import write_companions
from drupe.packaging.packages import refuse_packages
from drupe.plan import Plan
from drupe.report.card import model_card
from drupe.report.page import GENERATOR, page
from drupe.report.verdict import verdict

FORMAT = 1
EDITABLE = (".json", ".jinja", ".md", ".txt", ".yaml")
REPORT, LOCK, PAGE, ITEMS = "report.json", "config.lock.json", "report.html", "items.json"
RANKED, MARK = "ranked", "point.json"  # models that a search ranks behind its best


def output_folder(planned: Plan) -> Path:
    """Return the folder of the run's results."""
    folder = Path(planned.workflow.file).resolve().parent
    return (folder / planned.workflow.engine.output_dir).resolve()


def model_folder(planned: Plan) -> Path:
    """Return where the final model is delivered: Olive's names for the same place."""
    chain = "-".join(planned.stages[1:]) or "input_model"
    return output_folder(planned) / chain / f"{planned.workflow.target.label}_model"


def refuse_foreign(planned: Plan) -> None:
    """Refuse an output folder that cannot be written, and to replace what drupe has not written."""
    place, folder = model_folder(planned), output_folder(planned)
    check_writable(folder, "engine.output_dir")
    refuse_packages(planned, folder, place)
    for name in (LOCK, REPORT, PAGE, ITEMS):
        if (folder / name).exists() and not _is_ours(folder / name):
            raise Refused(
                str(folder / name),
                "is there, and was not written by drupe",
                "Move it away, or name another folder with -o.",
            )
    if place.is_dir() and not any(place.iterdir()):
        return
    # The lock is written before the model, the report behind it: a kill leaves one of them.
    if place.exists() and not any(_report(folder / name) for name in (LOCK, REPORT)):
        raise Refused(
            str(place),
            f"is not empty, and was not written by drupe (there is no {REPORT} of its)",
            "Move it away, or name another folder with -o.",
        )


def write_output(outcome: Outcome, warn: Callable[[str], None]) -> None:
    """Deliver the final model and write report and lock; what is there already is left alone."""
    planned = outcome.plan
    folder = output_folder(planned)
    _write(folder / LOCK, lock(planned))
    if outcome.path is not None and _is_delivered(outcome):
        repair(outcome.final.model.path, outcome.path, warn)
        write_companions(outcome.final, outcome.path, _name(planned))
    elif outcome.path is not None:
        with folder_in_place_of(outcome.path) as staging:
            deliver(outcome.final.model.path, staging)
            write_companions(outcome.final, staging, _name(planned))
            write_atomic(staging / "README.md", model_card(outcome).encode())
    _write_items(folder / ITEMS, outcome)
    written = _write(folder / REPORT, report(outcome))
    _write_page(folder / PAGE, page(outcome, written))


def ranked_folder(planned: Plan, place: int) -> Path:
    """Return where the model that a search ranks second, third, ... is delivered."""
    return output_folder(planned) / RANKED / f"{place}" / f"{planned.workflow.target.label}_model"


def write_ranked(outcomes: Sequence[Outcome], warn: Callable[[str], None]) -> None:
    """Deliver what a search ranks behind its best; what else lies there is an earlier search's."""
    planned = outcomes[0].plan
    wanted = {ranked_folder(planned, place).parent for place in range(2, len(outcomes) + 1)}
    above = output_folder(planned) / RANKED
    for old in above.iterdir() if above.is_dir() else ():
        if old not in wanted and old.name.isdigit() and (old / MARK).is_file():
            remove_tree(old)
    for place, outcome in enumerate(outcomes[1:], 2):
        folder = ranked_folder(planned, place)
        final = outcome.final
        assert outcome.searched is not None
        point = outcome.searched.chosen[place - 1].point.values
        told = {"drupe": drupe.__version__, "digest": final.model.digest, "point": point}
        written = _report(folder.parent / MARK)
        if folder.is_dir() and written is not None and written.get("digest") == told["digest"]:
            repair(final.model.path, folder, warn)
            continue
        if folder.exists() and any(folder.iterdir()) and written is None:
            what = "is not empty, and was not written by drupe"
            raise Refused(str(folder), what, "Move it away, or name another folder with -o.")
        _write(folder.parent / MARK, told)
        with folder_in_place_of(folder) as staging:
            deliver(final.model.path, staging)
            write_companions(final, staging, _name(outcome.plan))


def _name(planned: Plan) -> str:
    """Return what the model is called where it stands beside others: phi-3-mini-lora-builder."""
    return "-".join([planned.source.name.split("/")[-1], *planned.stages[1:]])


def deliver(source: Path, destination: Path) -> None:
    """Copy a result's files below `destination`; large ones are linked and stay read-only.

    Small files (configs, tokenizers) are what people edit: those are copies of their own.
    """
    for file in files_below(source):
        link_if_large(file, destination / file.relative_to(source))


def repair(source: Path, delivered: Path, warn: Callable[[str], None]) -> None:
    """Deliver again what is damaged in a folder that was delivered; people's edits are kept.

    Weights that differ are damaged; a text that differs was edited, most likely on purpose.
    """
    for file in files_below(source):
        target = delivered / file.relative_to(source)
        if target.exists() and (target.samefile(file) or _same(file, target)):
            continue
        if target.exists() and target.suffix in EDITABLE:
            warn(f"{target} differs from what was delivered, and is left as it is.")
        else:
            warn(f"{target} was lost or damaged, and is delivered again.")
            link_if_large(file, target)


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)


def _is_delivered(outcome: Outcome) -> bool:
    """Return whether the folder holds this very outcome (damaged or not)."""
    written = _report(output_folder(outcome.plan) / REPORT)
    return (
        written is not None
        and written.get("digest") == outcome.final.model.digest
        and _lasting(written.get("stages")) == _lasting(_stages(outcome))
        and outcome.path is not None
        and (outcome.path / "README.md").is_file()
    )


def _lasting(stages: Any) -> Any:
    """Return what a report says of the stages but for samples: asking for none delivers nothing."""
    if isinstance(stages, dict):
        return {name: _lasting(each) for name, each in stages.items() if name not in QUOTES}
    return [_lasting(each) for each in stages] if isinstance(stages, list) else stages


def report(outcome: Outcome) -> dict[str, Any]:
    """Return the run's report as JSON values; no path of this machine is in it."""
    planned = outcome.plan
    return {
        "format": FORMAT,
        "drupe": drupe.__version__,
        "config": Path(planned.workflow.file).name,
        "input_model": {"name": planned.source.name, "revision": planned.source.revision},
        "target": planned.workflow.target.model_dump(),
        "model": outcome.path.relative_to(output_folder(planned)).as_posix()
        if outcome.path
        else None,
        "digest": outcome.final.model.digest,
        "verdict": verdict(outcome),
        "stages": _stages(outcome),
        "libraries": _libraries(planned),
        **({"search": outcome.searched.to_json()} if outcome.searched else {}),
    }


def _stages(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "name": stage.name,
            "kind": stage.kind,
            "digest": stage.model.digest or None,
            "within": stage.within,
            "size_bytes": stage.size_bytes,
            "seconds": stage.seconds,
            "peak_bytes": stage.peak_bytes,
            "scores": {name: score.to_json() for name, score in stage.scores.items()},
            "differences": {
                name: asdict(found)
                for name in stage.scores
                if (found := outcome.difference(stage, name)) is not None
            },
            "proof": stage.proof.to_json() if stage.proof else None,
            "facts": stage.facts,
            "machine": stage.machine,
        }
        for stage in outcome.stages
    ]


def _libraries(planned: Plan) -> dict[str, str | None]:
    """Return the libraries that decided the results, as they are where the steps ran."""
    found: dict[str, str | None] = {}
    for step in planned.steps:
        found |= step.parts["libraries"]
    return dict(sorted(found.items()))


def lock(planned: Plan) -> dict[str, Any]:
    """Return what pins the run: the config as read, the input's content, each step's key."""
    return {
        "format": FORMAT,
        "drupe": drupe.__version__,
        "config": redacted_values(planned.workflow.raw),
        "set": redacted_values(list(planned.workflow.settings)),
        "target": planned.workflow.target.model_dump(),
        "input_model": {
            "name": planned.source.name,
            "revision": planned.source.revision,
            "digest": planned.source.model.digest,
        },
        "steps": {step.name: step.key for step in planned.steps},
        "libraries": _libraries(planned),
    }


def _write(file: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write `value` with the time it was first written, unless the file says the same already.

    Returns what the file holds.
    """
    written = _report(file)
    if written is not None and {**written, "written": None} == {**value, "written": None}:
        return written
    value = {**value, "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_atomic(file, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
    return value


def items(outcome: Outcome) -> dict[str, Any]:
    """Return {metric: its rows} of the final model, how they are read, and which they are.

    rows: a digest of all that the metric was told; the same digest means the same rows.
    """
    stage, found = outcome.final, {}
    for step in outcome.plan.steps:
        name = step.name.removeprefix(f"{stage.name}: ")
        score = stage.scores.get(name)
        if step.role != "metric" or step.stage != stage.name or name not in stage.answers:
            continue
        how = score.more.get("paired") if score is not None else None
        if how:
            asked = {**step.parts["fields"], "operation": step.registered}
            asked.pop("target", None)
            rows = value_digest(asked)
            found[name] = {"how": how, "rows": rows, "items": stage.answers[name]}
    return found


def _write_items(file: Path, outcome: Outcome) -> None:
    """Write what each row gave, unless nothing is known of rows or the data are private."""
    found = {} if outcome.plan.workflow.engine.no_samples else items(outcome)
    if not found:
        file.unlink(missing_ok=True)
        return
    told = {"format": FORMAT, "drupe": drupe.__version__, "items": found}
    data = json.dumps(told, ensure_ascii=False).encode() + b"\n"
    if not (file.is_file() and file.read_bytes() == data):
        write_atomic(file, data)


def _write_page(file: Path, text: str) -> None:
    """Write the page unless it is there: it tells the report's time, so that it stays the same."""
    data = text.encode(errors="replace")  # a name may hold what is no character
    if not (file.is_file() and file.read_bytes() == data):
        write_atomic(file, data)


def _is_ours(file: Path) -> bool:
    """Return whether drupe wrote a report, lock or page."""
    if file.name != PAGE:
        return _report(file) is not None
    try:
        return GENERATOR in file.read_text(errors="replace")
    except OSError:
        return False


def _report(file: Path) -> dict[str, Any] | None:
    """Return a report or lock that drupe wrote, or None."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and "drupe" in value else None
