"""A config file read, upgraded and checked: every fault at once, or a `Workflow`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from drupe.config.dialects import Note, upgrade
from drupe.config.document import Document
from drupe.config.overrides import lay_over, overlay
from drupe.config.reader import Reader
from drupe.config.schema import Said, Workflow
from drupe.config.secrets import refuse_secrets
from drupe.config.source import Map, read
from drupe.core.errors import ConfigError, Fault


def load(
    file: Path,
    system: str | None = None,
    target: str | None = None,
    output: str | None = None,
    settings: Iterable[str] = (),
    *,
    strict: bool = False,
    text: str | None = None,
    typed: Mapping[str, str] | None = None,
) -> Workflow:
    """Return the workflow that `file` describes.

    system: "local" has every step run here, whatever the file says.
    target: a provider (cpu, cuda, dml, webgpu or its long name) in place of the file's target.
    output: the folder for the result (relative to the current one) in place of the file's.
    settings: "passes.lora.r=16", in place of what the file says there; the value is JSON or text.
    strict: what would be a warning is a fault. text: what the file would say, if there is none.
    typed: by which option a path in `settings` was set, where it was not --set.
    Raises ConfigError with all faults, Refused for a file that cannot be read.
    """
    settings = tuple(settings)
    root, notes, faults = canonical(file, settings, text, typed)
    document = Document(root, file.resolve().parent)
    document.faults += faults
    workflow = Reader(document).workflow(file, system, target, output)
    told = [*_told(notes), *document.notes]
    if strict:
        document.faults += [_as_fault(said) for said in told if said.level == "warning"]
        document.faults += workflow.unready if workflow else ()
    if document.faults:
        # What the plan would find later is told with the rest: one round of mending.
        raise ConfigError(str(file), dict.fromkeys([*document.faults, *document.absent_files()]))
    assert workflow is not None
    return dataclasses.replace(
        workflow,
        notes=tuple(told),
        settings=settings,
        strict=strict,
        places=dict(document.places),
    )


def canonical(
    file: Path,
    settings: Iterable[str] = (),
    text: str | None = None,
    typed: Mapping[str, str] | None = None,
) -> tuple[Map, list[Note], list[Fault]]:
    """Return the config in our own words, what was read otherwise, and what cannot be read."""
    root = read(file, text)
    laid_over, faults = overlay(settings, typed)
    refuse_secrets(file, root, laid_over)
    notes = upgrade(root, laid_over, lambda: faults.extend(lay_over(root, laid_over)))
    faults += [Fault(note.where, note.text, note.remedy) for note in notes if note.level == "fault"]
    return root, notes, faults


def _as_fault(said: Said) -> Fault:
    where, _, what = said.text.partition(": ")
    return Fault(where, what, "Mend it, or run without --strict.")


def _told(notes: list[Note]) -> list[Said]:
    """Return one line a rule that fired, warnings first and each by itself."""
    said = [
        Said(f"{note.where}: {note.text}", "warning") for note in notes if note.level == "warning"
    ]
    rules: dict[str, list[Note]] = {}
    for note in notes:
        if note.level == "note":
            rules.setdefault(note.rule, []).append(note)
    for fired in rules.values():
        more = f" (and {len(fired) - 1} more like it)" if len(fired) > 1 else ""
        said.append(Said(f"{fired[0].where}: {fired[0].text}{more}"))
    return said
