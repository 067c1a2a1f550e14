"""Which releases of ONNX Runtime GenAI load a folder that drupe exported, and answer the same.

python benchmarks/genai_versions.py FOLDER [VERSION ...]

Makes a virtual environment for each version, with pip and what that version itself asks for, runs
the folder's verify.py in it, and prints the table that stands in docs/deploy.md. Uses the network.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

VERSIONS = (
    *("0.18.0", "0.17.1", "0.16.0", "0.15.2", "0.14.1", "0.13.2", "0.12.2", "0.11.4"),
    *("0.10.0", "0.9.2", "0.8.3"),
)


def run(*words: str | Path) -> tuple[int, str]:
    """Return the exit status and all that a program printed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def tried(version: str, folder: Path, place: Path) -> tuple[str, str, str]:
    """Return (ONNX Runtime's version, yes or no, what verify.py says)."""
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    status, words = run(python, "-m", "pip", "install", "-q", f"onnxruntime-genai=={version}")
    if status:
        return "", "not installed", last_line(words)
    question = "import importlib.metadata as m; print(m.version('onnxruntime'))"
    runtime = run(python, "-c", question)[1].strip()
    status, words = run(python, folder / "verify.py")
    lines = [line for line in words.splitlines() if line.startswith(("OK", "DIFFERS"))]
    if status == 0:
        return runtime, "yes", lines[0]
    told = [line.removeprefix("DIFFERS: ") for line in lines] or [last_line(words)]
    if not lines or any(line.startswith("does not run here") for line in told):
        return runtime, "no", told[-1]
    kinds = [line.split()[0] if line.startswith(("text ", "prompt ")) else "file" for line in told]
    counts = ", ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    return runtime, "it differs", f"{counts}; {told[-1]}"


def last_line(words: str) -> str:
    """Return the last line that is not empty."""
    return ([line for line in words.splitlines() if line.strip()] or [""])[-1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    arguments = parser.parse_args()
    print("| onnxruntime-genai | onnxruntime | answers the same | verify.py |\n|---|---|---|---|")
    for version in arguments.versions:
        with tempfile.TemporaryDirectory() as place:
            runtime, same, said = tried(version, arguments.folder.resolve(), Path(place))
        said = said.replace("|", "\\|").replace(str(arguments.folder.resolve()), "FOLDER")
        print(f"| {version} | {runtime} | {same} | {said} |", flush=True)


if __name__ == "__main__":
    main()
