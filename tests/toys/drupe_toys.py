"""Toy passes over folders of text files, as a third party would write them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from drupe import DrupeError, Job, Metric, Model, Pass
from drupe.core.dataset import Dataset
from drupe.core.errors import Refused


class Reverse(Pass):
    """Write each text file backwards."""

    takes, gives = ("files",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None:
        for file in sorted(model.path.glob("*.txt")):
            (out / file.name).write_text(file.read_text()[::-1])


class Append(Pass):
    """Append a text, and the content of a file if one is named."""

    takes, gives = ("files",), "files"
    text: str = ""
    source: Path | None = None

    def run(self, model: Model, out: Path, job: Job) -> None:
        more = self.source.read_text() if self.source else ""
        job.note(f"appending {len(self.text) + len(more)} characters")
        for file in sorted(model.path.glob("*.txt")):
            (out / file.name).write_text(file.read_text() + self.text + more)
        job.facts["appended"] = len(self.text) + len(more)


class Weigh(Pass):
    """Write the sizes of a checkpoint's files."""

    takes, gives = ("hf",), "files"

    def run(self, model: Model, out: Path, job: Job) -> None:
        sizes = {file.name: file.stat().st_size for file in sorted(model.path.iterdir())}
        (out / "sizes.txt").write_text(json.dumps(sizes))


class Count(Pass):
    """Write how many lines each file of its data has, in their order."""

    takes, gives = ("files",), "files"
    data_config: Dataset

    def run(self, model: Model, out: Path, job: Job) -> None:
        files = self.data_config.load_dataset_config.local_files
        counts = [len(file.read_text().splitlines()) for file in files]
        (out / "counts.txt").write_text(json.dumps(counts))


class Slow(Pass):
    """Count in the scratch folder, a tick at a time, and go on where a killed run stopped.

    It counts beyond the middle once the file `gate` is there, if one is named.
    """

    takes, gives = ("files",), "files"
    ticks: int = 5
    seconds: float = 0.1
    gate: str = ""

    def run(self, model: Model, out: Path, job: Job) -> None:
        counter = job.scratch / "counter"
        done = int(counter.read_text()) if counter.exists() else 0
        started_from = done
        while done < self.ticks:
            time.sleep(self.seconds)
            if done >= self.ticks // 2 and self.gate and not Path(self.gate).exists():
                continue
            done += 1
            whole = job.scratch / "counter.new"  # whoever kills it leaves no half of a number
            whole.write_text(str(done))
            whole.replace(counter)
            job.progress("counting", done, self.ticks, "ticks")
        (out / "count.txt").write_text(f"{started_from} {done}")


class Busy(Pass):
    """Keep one core busy for some rounds."""

    takes, gives = ("files",), "files"
    rounds: int = 10

    def run(self, model: Model, out: Path, job: Job) -> None:
        digest = b"busy"
        for done in range(self.rounds):
            for _ in range(50_000):
                digest = hashlib.sha256(digest).digest()
            job.progress("hashing", done + 1, self.rounds, "rounds")
        (out / "digest.txt").write_text(digest.hex())


class Breaks(Pass):
    """End in every way in which a step can end that is not the right one."""

    takes, gives = ("files",), "files"
    how: Literal[
        "exception",
        "error",
        "segfault",
        "killed",
        "exit",
        "memory",
        "nothing",
        "input",
        "sleep",
        "leak",
        "refusal",
    ]

    def run(self, model: Model, out: Path, job: Job) -> None:
        (out / "half.txt").write_text("half")
        getattr(self, f"_{self.how}")(model, out)

    def _exception(self, model: Model, out: Path) -> None:
        raise ValueError("a value that was wrong")

    def _error(self, model: Model, out: Path) -> None:
        raise DrupeError("Breaks.how", "is error", "Choose another.")

    def _refusal(self, model: Model, out: Path) -> None:
        raise Refused("Breaks.how", "is refusal, which nothing can be made of", "Choose another.")

    def _segfault(self, model: Model, out: Path) -> None:
        ctypes.string_at(0)

    def _killed(self, model: Model, out: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _exit(self, model: Model, out: Path) -> None:
        os._exit(0)  # a clean exit status, and yet nothing was said to be done

    def _memory(self, model: Model, out: Path) -> None:
        raise MemoryError("too much was asked for")

    def _nothing(self, model: Model, out: Path) -> None:
        (out / "half.txt").unlink()

    def _input(self, model: Model, out: Path) -> None:
        file = next(model.path.glob("*.txt"))
        file.chmod(0o644)
        file.write_text("changed")

    def _leak(self, model: Model, out: Path) -> None:
        sys.stdout.write(repr(dict(os.environ)))
        login = Path(os.environ["HF_HOME"]) / "token"
        raise ValueError(f"refused for {os.environ['HF_TOKEN']} and {login.read_text()}")

    def _sleep(self, model: Model, out: Path) -> None:
        time.sleep(60)


class Length(Metric):
    """Count the characters of all text files."""

    takes = ("files",)

    def run(self, model: Model, out: Path, job: Job) -> None:
        count = sum(len(file.read_text()) for file in model.path.glob("*.txt"))
        score = {"metric": "length", "value": count, "low": count, "high": count, "count": 1}
        (out / "score.json").write_text(json.dumps(score))


class SlowLength(Length):
    """Count the characters of all text files slowly: for `seconds`, or until a file appears.

    begun: the file that it makes when it begins.
    """

    seconds: float = 0.1
    gate: str = ""
    begun: str = ""

    def run(self, model: Model, out: Path, job: Job) -> None:
        if self.begun:
            Path(self.begun).touch()
        began = time.time()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not (self.gate and Path(self.gate).exists()):
            job.progress("counting", end - time.monotonic(), self.seconds, "seconds")
            time.sleep(0.05)
        super().run(model, out, job)
        score = json.loads((out / "score.json").read_text())
        score |= {"began": began, "ended": time.time()}
        (out / "score.json").write_text(json.dumps(score))


class NoLength(Length):
    """Give no number."""

    def run(self, model: Model, out: Path, job: Job) -> None:
        score = {"metric": "length", "skipped": "no ruler"}
        (out / "score.json").write_text(json.dumps(score))


class PairedLength(Length):
    """Count the characters when another one has begun beside it.

    The first that begins waits for the second, the third for the fourth; `place` is the folder in
    which they take their numbers. number: makes it another one.
    """

    place: str
    number: int

    def run(self, model: Model, out: Path, job: Job) -> None:
        began, mine, end = time.time(), 1, time.monotonic() + 120
        while not self._taken(mine):
            mine += 1
        while mine % 2 and not (Path(self.place) / str(mine + 1)).exists():
            assert time.monotonic() < end, "nobody has begun beside it"
            time.sleep(0.01)
        super().run(model, out, job)
        score = json.loads((out / "score.json").read_text())
        score |= {"began": began, "ended": time.time()}
        (out / "score.json").write_text(json.dumps(score))

    def _taken(self, number: int) -> bool:
        with suppress(FileExistsError):
            (Path(self.place) / str(number)).touch(exist_ok=False)
            return True
        return False


class BrokenLength(Length):
    """Fail, once the file `after` is there if one is named."""

    after: str = ""

    def run(self, model: Model, out: Path, job: Job) -> None:
        while self.after and not Path(self.after).exists():
            time.sleep(0.01)
        raise ValueError("no ruler")


class Where(Pass):
    """Write down in which Python it runs, and a variable of its environment."""

    takes, gives = ("files",), "files"
    variable: str = ""

    def run(self, model: Model, out: Path, job: Job) -> None:
        import drupe

        told = {
            "prefix": sys.prefix,
            "drupe": drupe.__file__,
            "value": os.environ.get(self.variable),
            "path": os.environ["PATH"].split(os.pathsep),
        }
        (out / "where.json").write_text(json.dumps(told))


class NeedsToyLibrary(Reverse):
    """Turn the text, as a library decides that is in one environment of the tests."""

    libraries = ("toy-library",)


class NeedsAbsentLibrary(Reverse):
    """Turn the text, if only a library were there."""

    libraries = ("no-such-library",)
