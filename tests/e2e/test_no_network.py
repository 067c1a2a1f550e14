"""No network unasked: the whole chain in a namespace without any, each attempt written down.

Two witnesses: an audit hook in every Python process (client, fork server, steps), and strace,
where it is there, for what native libraries do by themselves. The same runs carry planted tokens.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import DRUPE, Job, short_demo

# Every Python process writes down what it asks the network for, and goes on.
HOOK = """
import os, sys
def written(event, arguments):
    if event == "socket.getaddrinfo":
        told = repr(arguments[:2])
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        told = repr(arguments[1])
    else:
        return
    with open(os.environ["ATTEMPTS"], "a") as file:
        file.write(f"{event} {told}\\n")
sys.addaudithook(written)
"""
NATIVE = re.compile(r"sa_family=AF_INET6?\b.*")


def without_network() -> list[str]:
    """Return the words that start a program in a namespace of its own, or skip the test."""
    for words in (["unshare", "-rn"], ["unshare", "-n"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"]).returncode == 0:
            return words
    pytest.skip("no network namespace can be made here (unshare -rn)")


class Cut:
    """A place without network, and the attempts that were made in it."""

    def __init__(self, folder: Path) -> None:
        self._attempts, self._calls = folder / "attempts", folder / "calls"
        (folder / "hook").mkdir(parents=True)
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        home = folder / "home"
        home.mkdir()
        self.secrets = [
            "hf_" + "".join(random.SystemRandom().choices(string.ascii_letters, k=34))
            for _ in range(2)
        ]
        (home / "token").write_text(self.secrets[1])
        self._words = without_network()
        if shutil.which("strace"):
            self._words += ["strace", "-f", "--seccomp-bpf", "-o", str(self._calls)]
            self._words += ["-e", "trace=connect,sendto,sendmsg"]
        asked = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self._environment = {
            **asked,
            "ATTEMPTS": str(self._attempts),
            "PYTHONPATH": str(folder / "hook"),
            "HF_HOME": str(home),
            "HF_TOKEN": self.secrets[0],
        }

    def run(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command without network."""
        return subprocess.run(
            [*self._words, *command],
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
        )

    def attempts(self) -> list[str]:
        """Return the attempts since the last question."""
        told = self._attempts.read_text().splitlines() if self._attempts.exists() else []
        self._attempts.unlink(missing_ok=True)
        if self._calls.exists():
            told += NATIVE.findall(self._calls.read_text(errors="replace"))
            self._calls.unlink()
        return told


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    return Cut(tmp_path / "cut")


@pytest.fixture
def short(tmp_path: Path) -> Job:
    """Return the demo's job with two training steps and forty phrases to measure on."""
    return short_demo(tmp_path / "job", 2, 40, output_dir="output", evaluate="ends")


def holding(folder: Path, secret: str) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if secret.encode() in file.read_bytes()]


def test_the_witnesses_see_an_attempt(cut: Cut, tmp_path: Path) -> None:
    ask = "import socket\ntry: socket.create_connection(('192.0.2.1', 9))\nexcept OSError: pass"
    cut.run([sys.executable, "-c", ask], tmp_path)
    seen = cut.attempts()
    assert [line for line in seen if line.startswith("socket.connect ('192.0.2.1', 9)")]
    if shutil.which("strace"):
        assert [line for line in seen if 'inet_addr("192.0.2.1")' in line]


def test_the_chain_asks_nobody_and_keeps_tokens_to_itself(cut: Cut, short: Job) -> None:
    done = cut.run([DRUPE, "run", "olive-config.json"], short.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cut.attempts() == []
    told = cut.run([DRUPE, "chat", "output", "--prompt", "A spider!"], short.folder)
    assert told.returncode == 0, told.stderr
    assert cut.run([DRUPE, "doctor"], short.folder).returncode == 0
    assert cut.attempts() == []
    for secret in cut.secrets:
        assert holding(short.folder, secret) == []
        assert secret not in done.stdout + done.stderr + told.stdout + told.stderr


def test_a_failed_training_keeps_tokens_to_itself(cut: Cut, short: Job) -> None:
    """A field of config.json is of a wrong type: a step fails with transformers' own words."""
    described = short.folder / "model" / "config.json"
    config = json.loads(described.read_text())
    config["rms_norm_eps"] = "wrong"
    described.write_text(json.dumps(config))
    done = cut.run([DRUPE, "run", "olive-config.json"], short.folder)
    assert done.returncode in (1, 2), done.stdout
    assert done.stderr.startswith("drupe: ")
    assert cut.attempts() == []
    for secret in cut.secrets:
        assert holding(short.folder, secret) == []
        assert secret not in done.stdout + done.stderr
