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
    kinds = dict.fromkeys(line.removeprefix("DIFFERS: ").split()[0] for line in lines)
    counts = {kind: sum(f"DIFFERS: {kind}" in line for line in lines) for kind in kinds}
    if status == 0:
        return runtime, "yes", lines[0]
    if "does" in counts or not lines:
        return runtime, "no", (lines or [last_line(words)])[0].removeprefix("DIFFERS: ")
    differing = ", ".join(f"{count} {kind}s" for kind, count in counts.items())
    return runtime, "loads", f"differing: {differing}; {lines[0].removeprefix('DIFFERS: ')}"


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
