"""How files get to a Ray worker and back: by a folder that all share, or in pieces."""

from __future__ import annotations

import collections
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray

from drupe.core.errors import Refused
from drupe.core.files import folder_in_place_of, link_or_copy
from drupe.core.model import PICKLES

PIECE_BYTES = 64 * 2**20
AT_ONCE = 3  # pieces on their way, so that no more of a model is in memory


class Storage:
    """The folder that the nodes share with this machine.

    folder: None where files travel by Ray's object store. everywhere: whether the workers see all
    of this machine's folders. mark: a file by which a worker tells whether it sees the folder.
    """

    def __init__(self, folder: str, everywhere: bool) -> None:
        self.folder = Path(folder) if folder else None
        self._everywhere = everywhere
        self.mark = ""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._marked = tempfile.NamedTemporaryFile(prefix=".seen-", dir=folder)  # noqa: SIM115
            self.mark = self._marked.name

    def check(self, where: str, seen: bool) -> None:
        """Raise Refused where a worker does not see the folder."""
        if self.folder is not None and not seen:
            raise Refused(
                f"{where}.storage",
                f"is {self.folder}, which a node of the cluster does not see",
                "Name a folder that all nodes share under this path, or leave it out.",
            )

    def take_in(self, folder: Path, place: str) -> None:
        """Copy a folder to its place in the storage."""
        assert self.folder
        with folder_in_place_of(self.folder / place) as staging:
            shutil.copytree(folder, staging, dirs_exist_ok=True)

    def model(self, path: Path, digest: str) -> Path:
        """Return where all nodes find a model: where it is, or in the storage."""
        assert self.folder
        if self._everywhere or path.resolve().is_relative_to(self.folder.resolve()):
            return path
        taken_in = self.folder / "inputs" / digest
        if not taken_in.is_dir():
            with folder_in_place_of(taken_in) as staging:
                for name, file in model_files(path).items():
                    link_or_copy(file.resolve(), staging / name)
        return taken_in

    def bring(self, results: Path, to: Path) -> None:
        """Give what a step wrote to the storage a second name at home, or copy it."""
        for name, file in model_files(results, pickles=True).items():
            link_or_copy(file, to / name)


def model_files(folder: Path, pickles: bool = False) -> dict[str, Path]:
    """Return {relative posix path: file} of a folder; what links lead to is as good as there."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (pickles or file.suffix not in PICKLES)
    }


def send_folder(worker: Any, client: str, folder: Path, to: str) -> None:
    """Send the files of a folder to a place below a worker's own folder."""
    pending: collections.deque[Any] = collections.deque()
    for name, path in model_files(folder).items():
        with path.open("rb") as file:
            offset = 0
            while True:
                data = file.read(PIECE_BYTES)
                if not data and offset:
                    break
                # The reference is the call's alone: the store drops the piece with it.
                pending.append(worker.receive.remote(client, f"{to}/{name}", offset, ray.put(data)))
                if len(pending) >= AT_ONCE:
                    ray.get(pending.popleft())
                offset += len(data)
                if len(data) < PIECE_BYTES:
                    break
    ray.get(list(pending))


def bring_folder(worker: Any, client: str, batch: str, path: str, to: Path) -> None:
    """Bring the files of a result."""
    for name in ray.get(worker.names.remote(client, batch, path)):
        bring_file(worker, client, batch, f"{path}/{name}", to / name)


def bring_file(worker: Any, client: str, batch: str, path: str, to: Path) -> None:
    """Bring a file of the results, a piece ahead of the one that is written."""
    to.parent.mkdir(parents=True, exist_ok=True)

    def ask(offset: int) -> Any:
        return worker.read.remote(client, batch, path, offset, PIECE_BYTES)

    with to.open("wb") as file:
        offset, asked = 0, ask(0)
        while True:
            ahead = ask(offset + PIECE_BYTES)
            data = ray.get(asked)
            file.write(data)
            if len(data) < PIECE_BYTES:
                break
            offset, asked = offset + PIECE_BYTES, ahead
