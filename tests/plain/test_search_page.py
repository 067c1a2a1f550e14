"""The report's section of a search: what it draws, that its data are escaped, that it reacts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from drupe.core.goal import Goal, Number
from drupe.report.scatter import scatters
from drupe.report.search import rows, summary
from drupe.report.search_section import script, search_section
from drupe.search.constraints import Limit, Objective
from drupe.search.searched import Searched
from drupe.search.space import Point
from drupe.search.trial import Trial
from scripts.pictures import BROWSERS, browser, look, picture
from tests.plain.conftest import Workspace

SHOWN = Path(__file__).parents[2] / "build" / "screenshots"
NASTY = "</script><script>alert(1)</script><b title='"
LOSS = Objective("loss", "loss", "", False, 1)
SIZE = Objective("size", "size", "", False, None, (Goal(value=1000),), "bytes")

needs_browser = pytest.mark.skipif(
    browser() is None, reason=f"no browser is here: none of {', '.join(BROWSERS)} is on the PATH"
)


def searched() -> Searched:
    """Return a search of four points, one of which breaks its limit and one was refused."""
    values = [(10.0, 900), (10.4, 500), (11.0, 450), (9.8, 1500)]
    trials = [
        Trial(
            number,
            Point.of(bits=number, text=NASTY),
            1,
            "measured",
            {"loss": Number(loss, loss - 0.1, loss + 0.1), "size": Number(size)},
            size_bytes=size,
            seconds=1.5,
        )
        for number, (loss, size) in enumerate(values, 1)
    ]
    refused = Trial(5, Point.of(bits=5), 1, "infeasible", reason=f"no <kernel> for {NASTY}")
    limit = Limit(SIZE, 1000, Goal(value=1000))
    whole = (*trials, refused)
    return Searched(whole, (LOSS, SIZE), (limit,), {}, 5, 5, 1, why="every point was tried")


def test_each_point_is_drawn_with_the_front_and_the_limit() -> None:
    [chart] = scatters(searched())
    points = re.findall(r'<circle [^>]*class="([^"]*)" data-trial="(\d)"', chart)
    assert points == [
        ("point keeps best", "2"),
        ("point keeps best", "3"),
        ("point breaks best", "4"),
        ("point keeps best chosen", "1"),
    ]
    assert chart.count('class="limit"') == 1
    assert "limit: size at most 1 kB" in chart
    [front] = re.findall(r'<polyline points="([^"]*)"', chart)
    assert len(front.split()) == 4
    assert "1.5 kB" in chart or "1 kB" in chart


def test_what_no_number_was_measured_of_is_in_the_table_alone() -> None:
    section = search_section(searched())
    assert section.count("<circle") == 4
    assert section.count("<tr") == 6
    assert "infeasible" in section
    assert rows(searched())[0] == [
        "1*",
        f"bits 1, text {NASTY}",
        "10 (9.9 to 10.1)",
        "900 B",
        "900 B",
        "1.5 s",
        "keeps",
    ]
    assert summary(searched()).startswith("Best of 5 points: bits 1")


def test_nothing_of_the_data_is_markup_and_none_of_it_in_the_script() -> None:
    section = search_section(searched())
    assert "<script" not in section
    assert "&lt;/script&gt;&lt;script&gt;" in section
    assert "<b title" not in section
    for word in ("innerHTML", "eval", "fetch", "import", "http"):
        assert word not in script()


@pytest.fixture
def page(workspace: Workspace) -> Path:
    """Return the page of a real search."""
    metric = {"name": "length", "type": "Length"}
    metric["sub_types"] = [{"name": "length", "higher_is_better": False, "priority": 1}]  # type: ignore[assignment]
    goal = {"name": "length", "higher_is_better": True, "goal": {"value": 12}}
    limited = {"name": "enough", "type": "Length", "sub_types": [goal]}
    workspace.config["evaluators"]["all"]["metrics"] = [metric, limited]
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    workspace.passes(more={"type": "Append", "text": ["", "!!", "yyyy", NASTY]})
    workspace.run()
    return workspace.output / "report.html"


def test_the_policy_lets_the_script_in_and_nothing_else(page: Path) -> None:
    text = page.read_text()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src &#x27;none&#x27;" in policy
    assert policy.count("script-src") == 1
    assert "unsafe" not in policy
    assert text.count("<script>") == 1
    assert "http" not in text.replace("http-equiv", "").replace("http_equiv", "")


@needs_browser
def test_a_browser_runs_the_script_and_shows_the_point_that_is_asked_for(page: Path) -> None:
    found = look(page, "--dump-dom")
    told = re.findall(r'<div class="told( on)?" data-trial="(\d)"( hidden="[^"]*")?', found)
    assert [number for shown, number, hidden in told if shown and not hidden] == ["2"]
    assert len([hidden for _, _, hidden in told if hidden]) == 3
    assert found.count("alert(1)") == page.read_text().count("alert(1)")
    linked = page.with_name("linked.html")
    # A point is asked for by the address: a frame that has it, for --dump-dom takes no fragment.
    linked.write_text(page.read_text().replace("location.hash", '"#trial-3"'))
    assert re.search(r'class="told" data-trial="3" hidden', look(linked, "--dump-dom")), (
        "a script that was changed is not let in"
    )


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_looked_at(scheme: str, page: Path, tmp_path: Path) -> None:
    file = tmp_path / f"search-{scheme}.png"
    picture(page, file, (1280, 1400), scheme)
    SHOWN.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, SHOWN)
    assert file.stat().st_size > 30_000
