#!/usr/bin/env python3
"""Render the README's pictures of a report, the demo's where none is named.

scripts/pictures.py [OUTPUT/report.html] writes docs/pictures/report-light.png and report-dark.png
by a headless Chromium; the page needs no network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "examples" / "phi3-emotion" / "models" / "phi3-emotion" / "report.html"
PICTURES = ROOT / "docs" / "pictures"
SIZE = (1200, 1345)  # the chain, the scores and the curve
MOST_BYTES = 200_000  # of a picture in the repository
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}  # what Blink calls them


def browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def look(page: Path, *words: str, scheme: str = "light") -> str:
    """Open a page in a headless Chromium of an empty profile; return what it prints."""
    program = browser()
    if program is None:
        raise FileNotFoundError(f"no Chromium on the PATH: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program,
            *QUIET,
            f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            *words,
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def picture(page: Path, file: Path, size: tuple[int, int], scheme: str = "light") -> None:
    """Write a picture (PNG) of the upper `size` (width, height) pixels of a page."""
    width, height = size
    look(page, f"--window-size={width},{height}", f"--screenshot={file}", scheme=scheme)


def main() -> int:
    """Write both pictures; return 1 where one is too large for the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("page", nargs="?", type=Path, default=DEMO, help="a report.html")
    page = parser.parse_args().page
    if not page.is_file():
        parser.error(f"{page} is not there: run make demo first, or name a report.html")
    PICTURES.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for scheme in SCHEMES:
        file = PICTURES / f"report-{scheme}.png"
        picture(page, file, SIZE, scheme)
        sizes[file] = file.stat().st_size
        sys.stdout.write(f"{file.relative_to(ROOT)}: {sizes[file] / 1000:.0f} kB\n")
    return int(max(sizes.values()) > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
