"""The report of the demo as a browser shows it: light, dark, narrow, on paper."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.pictures import BROWSERS, browser, look, picture
from tests.e2e.conftest import Job

Demo = tuple[Job, subprocess.CompletedProcess[str]]
Rows = list[list[tuple[int, ...]]]
SHOWN = Path(__file__).parents[2] / "build" / "screenshots"
SIZE = (1280, 2400)

needs_browser = pytest.mark.skipif(
    browser() is None, reason=f"no browser is here: none of {', '.join(BROWSERS)} is on the PATH"
)


@pytest.fixture
def report(demo: Demo) -> Path:
    return demo[0].folder / "models/phi3-emotion/report.html"


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Path, str, tuple[int, int], str], Rows]:
    """Return a function that takes a picture, keeps it in build/screenshots and reads it."""

    def taken(page: Path, name: str, size: tuple[int, int], scheme: str) -> Rows:
        file = tmp_path / f"{name}.png"
        picture(page, file, size, scheme)
        SHOWN.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, SHOWN)
        rows = pixels(file.read_bytes())
        assert (len(rows[0]), len(rows)) == size
        return rows

    return taken


def pixels(png: bytes) -> Rows:
    """Return the rows of pixels of a PNG with 8 bits a channel, as the format describes it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    data, place = b"", 8
    width = channels = 0
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        chunk = png[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", chunk[:10])
            assert depth == 8
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            data += chunk
        place += 12 + length
    raw, stride = zlib.decompress(data), width * channels
    rows, above = [], bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        above = _unfiltered(
            raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above, channels
        )
        rows.append([tuple(above[at : at + 3]) for at in range(0, stride, channels)])
    return rows


def _unfiltered(kind: int, line: bytearray, above: bytearray, channels: int) -> bytearray:
    """Undo a filter of PNG: each byte was told beside those left, above and above left of it."""
    if kind == 0:
        return line
    for at in range(len(line)):
        left = line[at - channels] if at >= channels else 0
        up, corner = above[at], above[at - channels] if at >= channels else 0
        if kind == 4:
            guess = left + up - corner
            far = [(abs(guess - each), order) for order, each in enumerate((left, up, corner))]
            told = (left, up, corner)[min(far)[1]]
        else:
            told = {1: left, 2: up, 3: (left + up) // 2}[kind]
        line[at] = (line[at] + told) & 255
    return line


def brightness(pixel: tuple[int, ...]) -> float:
    return sum(pixel) / 3


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_drawn_in_light_and_dark(
    scheme: str, report: Path, keep: Callable[..., Rows]
) -> None:
    rows = keep(report, f"report-{scheme}", SIZE, scheme)
    ground = brightness(rows[2][2])
    assert ground > 240 if scheme == "light" else ground < 40
    colours = {pixel for row in rows[::7] for pixel in row[::3]}
    assert len(colours) > 50, "text, cards, curve"
    inked = [number for number, row in enumerate(rows) if len(set(row)) > 1]
    assert inked[-1] - inked[0] > 1500, "the page goes on far below its head"
    assert all(row[8] == rows[2][2] for row in rows), "the margin is free"


@needs_browser
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(
    width: int, report: Path, tmp_path: Path, keep: Callable[..., Rows]
) -> None:
    """A window is at least 500 wide, a frame in it is not: its last columns are the margin's."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0;background:#00f"><iframe src="{report.as_uri()}" width="{width}" '
        'height="1600" style="border:0"></iframe>'
    )
    rows = keep(frame, f"report-{width}", (width + 200, 1600), "light")
    ground = rows[2][2]
    assert all(row[4] == row[width - 5] == ground for row in rows)
    assert rows[2][width + 50] == (0, 0, 255)


@needs_browser
def test_the_browser_finds_what_was_written(report: Path) -> None:
    """Nothing was mended or moved, so the page is well formed; its policy let its style in."""
    found = look(report, "--dump-dom")
    written = report.read_text()
    for tag in ("section", "table", "tr", "svg", "circle", "details", "bdi"):
        assert found.count(f"<{tag}") == written.count(f"<{tag}"), tag
    assert "<script" not in found


@needs_browser
def test_it_prints(report: Path, tmp_path: Path) -> None:
    look(report, f"--print-to-pdf={tmp_path / 'report.pdf'}")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_no_samples_leaves_out_what_the_data_say(demo: Demo, tmp_path: Path) -> None:
    job, shown = demo
    samples = [
        sample
        for stage in job.report("models/phi3-emotion")["stages"]
        for score in stage["scores"].values()
        for sample in score.get("samples", ())
    ]
    assert samples
    assert samples[0]["prompt"].strip() in shown.stdout
    again = job.run("--no-samples", "-o", str(tmp_path / "private"))
    assert "drupe chat" in again.stdout
    files = [each for each in (tmp_path / "private").rglob("*") if each.suffix in (".html", ".md")]
    told = [again.stdout, *(file.read_text() for file in files)]
    told.append((tmp_path / "private" / "report.json").read_text())
    assert len(told) == 4
    for sample in samples:
        phrase = sample["prompt"].split("\n")[0].removeprefix("### Text: ")
        assert not [text for text in told if phrase in text]
    assert '"no_samples"' not in told[-1]
    assert '"samples_left_out": 3' in told[-1]
    lock = (tmp_path / "private" / "config.lock.json").read_text()
    assert "engine.no_samples=true" in lock
