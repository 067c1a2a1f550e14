"""Steps on a Ray cluster: the client's end, which speaks to Ray through a process of its own.

    client (drupe run)             driver (driver.py)              nodes of the cluster
      | -- {"id", "call", ...} ------> | -- actor calls, files -----> worker.py: a slot each,
      | <-- {"id", "value" | "fault"}- |                                with a fork server

Ray ends the process that is connected to a cluster when the cluster's head is lost, sets signal
handlers and limits, and may be in use by the caller: so it is never loaded in the client.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from drupe.core.errors import DrupeError, Refused, StepError
from drupe.core.executor import Batch, Polled, Transient
from drupe.core.files import remove_tree
from drupe.core.model import Model
from drupe.core.process import kill_group
from drupe.core.system import Setting
from drupe.systems.bundle import pack
from drupe.systems.code import put_on_path
from drupe.systems.declarations import Ray
from drupe.systems.processes import Interpreter

CLOSE_SECONDS = 20.0
LONGEST_FOLDER = 45  # a socket's path has 107 characters at most
FAULTS = {kind.__name__: kind for kind in (DrupeError, Refused, StepError, Transient)}
# A cluster that we start listens on the loopback alone, as Ray does by itself where it expects no
# other machine (macOS, Windows), and knows its clients by a token. Its workers are as important as
# other processes: by themselves they give way to all of them (a niceness of 15).
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
}

# Ray tries 20 times to join a cluster that does not answer, 35 s each.
PATIENCE = {"RAY_NUM_REDIS_GET_RETRIES": "2"}


class RayExecutor:
    """Runs batches on a Ray cluster, from several threads at once."""

    joins, here = False, False

    def __init__(self, system: Ray, setting: Setting) -> None:
        self._system = system
        self._setting = setting
        self._packed = tempfile.TemporaryDirectory(prefix="drupe-ray-", ignore_cleanup_errors=True)
        self._driver: _Driver | None = None
        self._opened: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        self._packed.cleanup()

    @property
    def slots(self) -> int:
        """How many batches may run at once; 1 while nothing is to run there."""
        return int(self._connected().wait(self._opened)["slots"]) if self._opened else 1

    def warm_up(self) -> None:
        """Connect, or start a cluster, and begin with the workers' imports; return at once."""
        if self._driver is not None:
            return
        system, setting = self._system, self._setting
        alone = system.address == "local"
        code = str(put_on_path(setting.cache / "code"))
        self._driver = _Driver(setting.name, {**ALONE, "PYTHONPATH": code} if alone else PATIENCE)
        storage = setting.cache / "ray" if alone else system.storage
        self._opened = self._driver.begin(
            "open",
            name=setting.name,
            address=system.address,
            code=code,
            session=self._session(),
            num_cpus=system.num_cpus,
            num_gpus=system.num_gpus,
            memory=system.memory_bytes,
            max_parallel=system.max_parallel,
            storage=str(storage or ""),
            preload=list(setting.preload),
            idle_seconds=system.idle_minutes * 60,
        )

    def submit(self, batch: Batch) -> None:
        """Have a worker start the batch, or attach to the one of its name."""
        driver = self._connected()
        driver.wait(self._opened)
        folder = Path(self._packed.name) / batch.name
        remove_tree(folder)
        folder.mkdir()
        bundle = pack(batch, folder, self._setting.preload, code=False)
        digests = {model.path: model.digest for spec in batch.steps for model in _all(spec.models)}
        inputs = {
            name: [str(path), digests[path]]
            for name, path in bundle.inputs.items()
            if isinstance(path, Path)  # addresses are for systems that read them
        }
        driver.ask("submit", batch=batch.name, bundle=str(folder), inputs=inputs)

    def poll(self, batch: Batch, seconds: float) -> Polled:
        """Return what its worker tells."""
        told = self._connected().ask("poll", batch=batch.name, seconds=seconds)
        events = tuple(told.get("events", ()))
        return Polled(told["state"], events, told.get("ending", ""), told.get("status", 0))

    def cancel(self, batch: Batch) -> None:
        """Stop the batch; a worker that is not there runs nothing."""
        with suppress(DrupeError):
            self._connected().ask("cancel", batch=batch.name)

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring a step's result by the shared storage, or in pieces by Ray's store."""
        remove_tree(folder / "out")
        (folder / "out").mkdir(parents=True)
        last = key == batch.steps[-1].key
        self._connected().ask(
            "fetch", batch=batch.name, path=key, to=str(folder / "out"), last=last
        )

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring a step's log."""
        self._connected().ask("log", batch=batch.name, path=f"{key}.log", to=str(folder / "log"))

    def _session(self) -> str | None:
        """Return where our own cluster keeps its sockets and logs: a folder that is ours alone.

        Ray's own choice where its names get too long for sockets.
        """
        folder = self._packed.name
        return folder if len(folder) < LONGEST_FOLDER else None

    def _connected(self) -> _Driver:
        self.warm_up()
        assert self._driver
        return self._driver


def _all(models: tuple[Model, ...]) -> list[Model]:
    """Return models with those that they are based on."""
    bases = tuple(model.base for model in models if model.base)
    return [*models, *(_all(bases) if bases else ())]


class _Driver:
    """The process that is connected to the cluster, and the requests that it works on."""

    def __init__(self, name: str, variables: dict[str, str]) -> None:
        self._where = f"systems.{name}"
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = Interpreter(variables=variables).start(
            "drupe.systems.ray.driver",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._last_words,
        )
        self._waiting: dict[int, Future[Any]] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._dead = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self, call: str, **arguments: Any) -> Future[Any]:
        """Ask for something; return what will hold the answer."""
        future: Future[Any] = Future()
        with self._lock:
            self._count += 1
            if self._dead:
                future.set_exception(self._gone())
                return future
            self._waiting[self._count] = future
            request = {"id": self._count, "call": call, "arguments": arguments}
            assert self._process.stdin
            with suppress(BrokenPipeError):  # the reader sees its end, and tells
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
        return future

    def wait(self, future: Future[Any] | None) -> Any:
        """Return an answer, or raise what the driver tells."""
        assert future
        return future.result()

    def ask(self, call: str, **arguments: Any) -> Any:
        """Return the answer to a request."""
        return self.wait(self.begin(call, **arguments))

    def close(self) -> None:
        """Have our workers end, and the cluster too if it is ours, also while it connects."""
        with suppress(DrupeError, TimeoutError):
            self.begin("close").result(CLOSE_SECONDS)
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(self._process.pid)
            self._process.wait()
        kill_group(self._process.pid)  # what of Ray a driver that died by itself has left
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        self._last_words.close()

    def _read(self) -> None:
        """Hand each answer to who waits for it; at the driver's end tell all of them."""
        assert self._process.stdout
        for line in self._process.stdout:
            told = json.loads(line)
            with self._lock:
                future = self._waiting.pop(told["id"])
            if "fault" in told:
                kind, *words = told["fault"]
                future.set_exception(FAULTS[kind](*words))
            else:
                future.set_result(told["value"])
        with self._lock:
            self._dead = True
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(self._gone())

    def _gone(self) -> StepError:
        self._last_words.seek(0)
        lines = self._last_words.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1].strip()}" if lines else ""
        return StepError(
            self._where,
            f"the connection to the Ray cluster has ended{said}",
            "Run again when its head is up: what was finished is kept.",
        )


def open_cluster(system: Ray, setting: Setting) -> RayExecutor:
    """Return the executor of a Ray cluster, as `System.open` asks for it."""
    return RayExecutor(system, setting)
