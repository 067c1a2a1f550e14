"""A planted token is nowhere in what drupe writes or prints, whether a job succeeds or fails."""

from __future__ import annotations

import os
import random
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.config.load import load
from drupe.core.errors import ConfigError
from drupe.core.secrets import (
    MARK,
    has_shape_of_secret,
    is_secret_name,
    known_secrets,
    redact_file,
    redacted,
    redacted_values,
)
from drupe.output import lock
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS

ALPHABET = string.ascii_letters + string.digits


def token() -> str:
    return "hf_" + "".join(random.SystemRandom().choices(ALPHABET, k=34))


def holding(folder: Path, secret: str) -> list[str]:
    """Return the files below `folder` that hold the secret, in name or content."""
    return [
        str(file)
        for file in folder.rglob("*")
        if secret in str(file) or (file.is_file() and secret.encode() in file.read_bytes())
    ]


def planted(workspace: Workspace, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run drupe with a token in the environment, another in the login file, a third of no shape."""
    home = workspace.folder.parent / "home"
    home.mkdir()
    variable, login, shapeless = token(), token(), "correct horse battery"
    (home / "token").write_text(login + "\n")
    workspace.write()
    done = subprocess.run(
        workspace.command(*words),
        cwd=workspace.folder,
        env={
            **os.environ, "HF_TOKEN": variable, "HF_HOME": str(home), "DB_PASSWORD": shapeless,
        },
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )  # fmt: skip
    return done, {variable, login, shapeless}


def assert_nowhere(
    workspace: Workspace, done: subprocess.CompletedProcess[str], secrets: set[str]
) -> None:
    for secret in secrets:
        assert holding(workspace.folder, secret) == []
        assert secret not in done.stdout + done.stderr


def test_a_password_that_is_a_word_of_the_protocol(workspace: Workspace) -> None:
    """The events are still understood: their names are no text that is redacted."""
    workspace.write()
    done = subprocess.run(
        workspace.command("run", "config.json"),
        cwd=workspace.folder,
        env={**os.environ, "DB_PASSWORD": "progress", "MY_TOKEN": "appended"},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stderr


def test_a_job_that_succeeds(workspace: Workspace) -> None:
    done, secrets = planted(workspace, "run", "config.json")
    assert done.returncode == 0, done.stderr
    assert_nowhere(workspace, done, secrets)


@pytest.mark.parametrize("how", ["leak", "exception", "segfault"])
def test_a_job_that_fails(how: str, workspace: Workspace) -> None:
    workspace.passes(broken={"type": "Breaks", "how": how})
    done, secrets = planted(workspace, "run", "config.json")
    assert done.returncode == 1
    assert_nowhere(workspace, done, secrets)
    assert list(workspace.cache.glob("work/*/log")), "what is searched is there"
    if how == "leak":
        assert f"ValueError: refused for {MARK} and {MARK}" in done.stderr
        assert MARK in next(workspace.cache.glob("work/*/log")).read_text()
        assert MARK in next(workspace.cache.glob("work/*/events")).read_text()


PLACES: dict[str, tuple[tuple[str, ...], str]] = {
    "a token's field": (("input_model", "load_kwargs", "token"), "no shape at all"),
    "an unknown key": (("input_model", "something"), "{token}"),
    "an address": (("input_model", "model_path"), "https://me:{token}@host/model"),
    "an address's password": (("engine", "output_dir"), "https://me:pass@host/model"),
    "a training argument": (("passes", "back", "training_args", "hub_token"), "{token}"),
    "a wrong value": (("engine", "log_severity_level"), "{token}"),
    "a list": (("engine", "execution_providers"), "{token}"),
    "a text among others": (("passes", "more", "text"), "curl -H 'Bearer {token}'"),
}


@pytest.mark.parametrize("place", PLACES)
def test_in_a_config_it_is_refused_and_not_echoed(place: str, workspace: Workspace) -> None:
    path, value = PLACES[place]
    secret = token()
    inner: Any = workspace.config
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    written = value.format(token=secret)
    inner[path[-1]] = [written] if place == "a list" else written
    done = workspace.drupe("run", "config.json")
    assert done.returncode == 2
    assert f"{'.'.join(path)}" in done.stderr
    assert "holds what looks like a secret" in done.stderr
    assert "HF_TOKEN for the Hub" in done.stderr
    for text in (secret, written):
        assert text not in done.stdout + done.stderr
    assert not workspace.cache.exists()
    assert not workspace.output.exists()


def test_a_key_that_is_a_secret_is_not_echoed(workspace: Workspace) -> None:
    secret = token()
    workspace.config[secret] = 1
    with pytest.raises(ConfigError, match=f"{MARK} holds what looks like a secret") as fault:
        load(workspace.write())
    assert secret not in str(fault.value)


def test_the_environments_own_token_in_a_config_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "shapeless but long")
    workspace.passes(more={"type": "Append", "text": "x shapeless but long x"})
    with pytest.raises(ConfigError, match=r"passes\.more\.text holds what looks like a secret"):
        load(workspace.write())


def test_olives_switch_hf_token_is_no_secret(workspace: Workspace) -> None:
    workspace.config["systems"] = {"here": {"type": "LocalSystem", "hf_token": True}}
    assert load(workspace.write()).input_model.type == "Files"


def test_the_lock_is_redacted_whatever_came_before(workspace: Workspace) -> None:
    planned = workspace.plan()
    secret = token()
    planned.workflow.raw["note"] = f"https://me:{secret}@host"
    assert secret not in str(lock(planned))
    assert lock(planned)["config"]["note"] == f"https://{MARK}@host"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "token", "hub_token", "AZURE_CLIENT_SECRET", "api_key", "password"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["eos_token", "max_new_tokens", "tokenizer", "key", "token_type_ids", "secretary"]
)
def test_names_that_are_ordinary(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    ["https://huggingface.co/a/b", "hf_model", "### Text: {phrase}", "a:b@c", "sk-learn", "<eos>"],
)
def test_texts_that_are_ordinary(text: str) -> None:
    assert not has_shape_of_secret(text)
    assert redacted(text, ()) == text


@given(st.text(ALPHABET, min_size=16, max_size=60), st.text(max_size=20))
def test_no_token_survives_in_any_text(letters: str, around: str) -> None:
    secret = f"hf_{letters}"
    assert secret not in redacted(f"{around} {secret} {around}", ())
    assert letters not in redacted(f"{around}{letters}{around}", (letters,))


def test_a_short_value_is_not_looked_for(tmp_path: Path) -> None:
    known = known_secrets({"A_TOKEN": "true", "B_TOKEN": "12345678", "HF_HOME": str(tmp_path)})
    assert known == ("12345678",)


def test_a_secret_that_is_a_word_of_the_protocol_breaks_nothing() -> None:
    event = {"event": "progress", "facts": {"appended": ["appended", 1, None]}}
    told = redacted_values(event, ("appended",))
    assert told == {"event": "progress", "facts": {"appended": [MARK, 1, None]}}


def test_a_log_of_any_bytes_keeps_all_else(tmp_path: Path) -> None:
    log = tmp_path / "log"
    secret = token().encode()
    log.write_bytes(b"\xff\x00a\r\n" + secret + b"\xfe")
    redact_file(log)
    assert log.read_bytes() == b"\xff\x00a\r\n" + MARK.encode() + b"\xfe"
    redact_file(tmp_path / "absent")


def test_where_a_shell_is_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("OLDPWD", str(tmp_path.parent / "elsewhere"))
    assert not {str(tmp_path), str(tmp_path.parent / "elsewhere")} & set(known_secrets())
    assert redacted(f"{tmp_path}/log") == f"{tmp_path}/log"
