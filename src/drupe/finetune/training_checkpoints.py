"""Checkpoints to go on from after a kill: signed when whole, dropped when torn.

The Trainer writes a checkpoint in place, file by file, and would go on from a torn one. Here a
manifest is written last; a checkpoint without one that fits is deleted.  Heavy file: the worker
imports it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import transformers

from drupe.core.files import files_below, remove_tree, sync_file, write_atomic

MANIFEST = "complete.json"
SECONDS_BETWEEN_CHECKPOINTS = 30.0


class Checkpoints(transformers.TrainerCallback):  # type: ignore[misc]
    """Ask for a checkpoint now and then, and sign it when all its files are there."""

    def __init__(self, steps: int | None) -> None:
        self._by_time = steps is None
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint when the last one is old; for none at the end.

        Going on from the end would train no step, and measure no loss that decides the best.
        """
        waited = time.monotonic() - self._last
        if state.global_step >= state.max_steps:
            control.should_save = False
        elif self._by_time and waited >= SECONDS_BETWEEN_CHECKPOINTS:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sign the checkpoint that the Trainer has just written."""
        sign(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._last = time.monotonic()


def sign(checkpoint: Path) -> None:
    """Write the manifest, the last file of a checkpoint: {file: size in bytes}."""
    for file in files_below(checkpoint):
        sync_file(file)
    write_atomic(checkpoint / MANIFEST, json.dumps(_sizes(checkpoint)).encode())


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint to go on from; delete those that a kill has left torn.

    The Trainer writes checkpoints in place, and would go on from a torn one.
    """
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if _is_whole(checkpoint):
            whole.append(checkpoint)
        else:
            remove_tree(checkpoint)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(manifest == _sizes(checkpoint))


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        file.relative_to(checkpoint).as_posix(): file.stat().st_size
        for file in files_below(checkpoint)
        if file.name != MANIFEST
    }
