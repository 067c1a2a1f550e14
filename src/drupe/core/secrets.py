"""Tokens and passwords: how they are known, and how a text is told without them.

A secret belongs into the environment. What drupe writes or prints (errors, events, logs, locks)
goes through `redacted`: values of variables that are named like a secret, the Hub's login file,
and whatever has the shape of a token. Imports nothing of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "<redacted>"
SHORTEST = 8  # a shorter value is a word like "true", and would be found everywhere
NAME = re.compile(
    r"(^|[_-])(token|tokens|password|passwd|pwd|secret|credentials?|(api|access|account|secret|"
    r"storage|private)[_-]?key|connection[_-]?string|sas)$",
    re.IGNORECASE,
)
# Fields of tokenizers and of generation, which hold text that is no secret.
ORDINARY = re.compile(
    r"(^|_)((bos|eos|pad|unk|sep|cls|mask|image|audio|stop|special|new|max|min|num)_?)tokens?$",
    re.IGNORECASE,
)
_UNTOLD: set[str] = set()  # what this process was given, and is in no environment
FOLDERS = ("PWD", "OLDPWD")  # a shell's words for where it is, no passwords
SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bsk-[\w-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # a signed JSON token
    r"|(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)"  # user:password in an address
    r"|(?<=[?&;])sig=[^\s&\"']{8,}"  # a shared access signature
    r"|\b(?:AccountKey|SharedAccessKey)=[^\s;\"']{8,}"
)


def is_secret_name(name: str) -> bool:
    """Return whether a field or variable of this name holds a secret, if it holds a text."""
    return bool(NAME.search(name)) and not ORDINARY.search(name)


def has_shape_of_secret(text: str) -> bool:
    """Return whether something in `text` is built like a token, or an address with a password."""
    return bool(SHAPES.search(text))


def keep_untold(secret: str) -> str:
    """Return a secret that this process was given, having seen to it that it is not told."""
    if len(secret) >= SHORTEST:
        _UNTOLD.add(secret)
    return secret


def known_secrets(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return what is not to be told: of the environment, of the Hub's login, what was given."""
    named = (name for name in environment if is_secret_name(name) and name not in FOLDERS)
    found = {environment[name].strip() for name in named} | _UNTOLD
    home = Path(environment.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    with suppress(OSError, ValueError):
        found.add(Path(environment.get("HF_TOKEN_PATH", home / "token")).read_text().strip())
    return tuple(sorted((each for each in found if len(each) >= SHORTEST), key=len, reverse=True))


def redacted(text: str, known: Iterable[str] | None = None) -> str:
    """Return `text` without secrets. known: those to look for; None: `known_secrets()`."""
    for secret in known_secrets() if known is None else known:
        text = text.replace(secret, MARK)
    return SHAPES.sub(MARK, text)


def redacted_values(value: Any, known: Iterable[str] | None = None) -> Any:
    """Return a JSON value with its texts redacted; names of fields stay, for programs read them."""
    known = tuple(known_secrets() if known is None else known)
    if isinstance(value, str):
        return redacted(value, known)
    if isinstance(value, dict):
        return {key: redacted_values(inner, known) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(inner, known) for inner in value]
    return value


def redact_file(file: Path) -> None:
    """Take the secrets out of a text file that is there; leave one without any alone."""
    try:
        text = file.read_bytes().decode(errors="surrogateescape")
    except OSError:
        return
    clean = redacted(text)
    if clean != text:
        file.write_bytes(clean.encode(errors="surrogateescape"))
