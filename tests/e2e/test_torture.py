"""kill -9 at random moments of the demo, over and over: never half a result, never a wrong one.

The demo trains for a shorter while here, so that as many kills meet each of its stages sooner.
DRUPE_TORTURE sets how many kills (12), DRUPE_TORTURE_SEED their moments; `make torture` does 100.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drupe.core.cache import Cache
from drupe.core.digest import file_digest, folder_digest
from drupe.core.files import files_below
from drupe.core.housekeeping import remove
from drupe.core.stock import survey
from drupe.core.verify import verify
from drupe.packaging.companions import COMPANIONS
from tests.e2e.conftest import DRUPE, Job, short_demo
from tests.e2e.test_demo import MODEL
from tests.waiting import MOST_SECONDS, until

KILLS = int(os.environ.get("DRUPE_TORTURE", "12"))
SEED = int(os.environ.get("DRUPE_TORTURE_SEED", random.SystemRandom().randrange(10**6)))
STEPS, ROWS = 80, 100
# Seconds, and the part of what a run takes that is left alone; most die soon.
SHORTEST, LONGEST = 0.2, 0.6
WHOM = ("client", "group", "worker", "server")


@dataclass
class Torture:
    """A copy of the demo that is killed, and what a run that was left alone gave, in `seconds`."""

    folder: Path
    expected: str
    seconds: float
    chance: random.Random
    told: list[str] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "models" / "phi3-emotion"

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [DRUPE, "run", "--config", "olive-config.json"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run_and_kill(self) -> None:
        """Start the run, kill a part of it after a while, and wait until all of it is gone."""
        whom = self.chance.choice(WHOM)
        seconds = SHORTEST + LONGEST * self.seconds * self.chance.random() ** 3
        client = self.start()
        with suppress(subprocess.TimeoutExpired):
            client.wait(seconds)
        if client.returncode == 0:
            self.told.append(f"done within {seconds:.2f} s")
            self.check()
            assert (self.output / "report.json").exists()
            self.lose_some()
            return
        victims = self.victims(client.pid, whom)
        self.told.append(f"{whom} {victims} after {seconds:.2f} s: {self.progress()}")
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if whom in ("client", "group") or not victims:
            client.kill()
        assert client.wait(MOST_SECONDS) != 0, "a step was killed, and the run says that it is done"

    def victims(self, client: int, whom: str) -> list[int]:
        servers = [child for child in children(client) if "fork_server" in command(child)]
        workers = [child for server in servers for child in children(server)]
        everyone = [client, *children(client), *workers]
        return {"client": [client], "group": everyone, "server": servers, "worker": workers}[whom]

    def progress(self) -> str:
        return f"{len(list(self.folder.glob('cache/steps/*')))} results"

    def lose_some(self) -> None:
        """Have some results, and at times the output, be missing, so that all stages are met."""
        entries = survey(self.cache).entries
        lost = self.chance.sample(entries, self.chance.randint(1, len(entries)))
        remove(self.cache, [entry.key for entry in lost])
        if self.chance.random() < 0.5:
            shutil.rmtree(self.folder / "models")
        self.told.append(f"lost {len(lost)} of {len(entries)} results")

    def finish(self, done: Job) -> None:
        """Take the cache of a run that was left alone, and lose some of it."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        shutil.copytree(done.folder / "cache", self.folder / "cache")
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        shutil.copytree(done.folder / "models", self.folder / "models")
        self.lose_some()

    def check(self) -> None:
        """No process is left, the output is absent or whole, the cache right to the byte."""
        # A server sees that its client is gone when its imports are done.
        until(lambda: not at_work(self.folder), lambda: at_work(self.folder))
        place = self.folder / MODEL
        if place.exists():
            assert delivered(place) == self.expected
        for name in ("report.json", "config.lock.json"):
            if (self.output / name).exists():
                assert "drupe" in json.loads((self.output / name).read_text())
        if (self.output / "report.json").exists():
            assert place.exists()
        assert verify(self.cache).damages == []


def children(pid: int) -> list[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(word) for word in words]


def command(pid: int) -> str:
    """Return the command line of a process, or nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def at_work(folder: Path) -> list[str]:
    """Return the command lines of processes that still work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((process / "cwd").readlink()) == str(folder):
                found.append((process / "cmdline").read_bytes().decode())
    return [command for command in found if "drupe" in command]


def delivered(place: Path) -> str:
    """Return the digest of a delivered model without its card and what else goes with it."""
    beside = {"README.md", *COMPANIONS}
    files = [file for file in files_below(place) if file.name not in beside]
    return folder_digest({f.relative_to(place).as_posix(): file_digest(f) for f in files})


def test_however_often_it_is_killed(tmp_path: Path) -> None:
    whole = short_demo(tmp_path / "whole", STEPS, ROWS)
    began = time.monotonic()
    whole.run()
    seconds = time.monotonic() - began
    expected = delivered(whole.folder / MODEL)
    assert expected == whole.report("models/phi3-emotion")["digest"]
    folder = short_demo(tmp_path / "torture", STEPS, ROWS).folder
    torture = Torture(folder, expected, seconds, random.Random(SEED))
    try:
        for kill in range(KILLS):
            if kill == KILLS // 2:  # the first half began with nothing, and stays in training
                torture.finish(whole)
            torture.run_and_kill()
            torture.check()
    except BaseException as fault:
        fault.add_note("\n".join([f"DRUPE_TORTURE_SEED={SEED} and these kills:", *torture.told]))
        raise
    job = Job(torture.folder, torture.folder / "olive-config.json")
    job.run()
    torture.check()
    assert delivered(torture.folder / MODEL) == torture.expected
    assert list(torture.folder.glob("models/**/.*")) == [], "no staging folder is left"
    assert job.drupe("cache", "gc", "olive-config.json").returncode == 0
    assert list((torture.folder / "cache" / "work").iterdir()) == []
    done = job.drupe("cache", "verify", "olive-config.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing damaged" in done.stdout
