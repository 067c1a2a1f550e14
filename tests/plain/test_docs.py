"""The documentation is true: its site builds, its links lead somewhere, its configs are sound."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from drupe.catalog import PASSES
from drupe.cli import HIDDEN, VERBS, main
from drupe.core.dataset import TextPreprocess
from drupe.finetune.training_args import TrainingArgs
from tests.documents import (
    PAGES,
    ROOT,
    Block,
    blocks,
    commands,
    contains,
    joined,
    name_of,
    tagged,
    value_of,
)
from tests.waiting import MOST_SECONDS

Captured = pytest.CaptureFixture[str]
PAGES_OF_DOCS = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
EXAMPLE = ROOT / "examples" / "phi3-emotion"
DEMO = "examples/phi3-emotion/olive-config.json"
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCE = re.compile(r'(?:href|src|srcset)="([^"]+)"')
FOLDERS = "benchmarks|scripts|tests|examples|docs|src/drupe|drupe-olive|\\.ci"
PATH = re.compile(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\w)(?:::(\w+))?")
CODE = re.compile(r"`([^`\n]+)`")
VERB = re.compile(r"drupe (\w+)([^#]*)")
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")
FIGURE = re.compile(r"(?<![\w.-])\d[\d.]*(?:-[\d.]+)? (?:s|GB|wrong inputs|damages)\b")
KNOWN_TAGS = ("config", "part", "joined", "run", "job", "parse", "shown")


# The site


class Links(HTMLParser):
    """Gathers where a page leads, what it loads, and the names of its places."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if place := found.get("id"):
            self.places.add(place)
        for name in ("href", "src"):
            if address := found.get(name):
                (self.leads if tag == "a" else self.loads).append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_has_every_page_and_each_link_leads_somewhere(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in PAGES_OF_DOCS}
    assert {page.relative_to(site) for page in site.rglob("*.html")} >= pages
    for name in pages:
        page = site / name
        for address in Links(page).leads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{name}: {address}"
            if parts.fragment and target.suffix == ".html":
                assert parts.fragment in Links(target).places, f"{name}: {address}"


def test_the_site_loads_nothing_from_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in Links(page).loads:
            assert not urlsplit(address).netloc, f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text()), style.name


def test_the_site_shows_code_as_code(site: Path) -> None:
    """Tags are words for the tests, and no reader's."""
    shown = (site / "guide.html").read_text()
    assert "```" not in shown
    assert f"part {DEMO}" not in shown
    assert '<code class="language-json">' in shown


# Links and paths


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for address in (*LINK.findall(text), *SOURCE.findall(text)):
        parts = urlsplit(address)
        if not parts.scheme and parts.path:
            assert (page.parent / parts.path).exists(), address


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_and_tests_that_are_named_are_there(page: Path) -> None:
    for path, function in PATH.findall(page.read_text(encoding="utf-8")):
        if path.startswith("examples/phi3-emotion/models"):
            continue  # a run makes it
        assert (ROOT / path).exists(), path
        if function:
            assert function in functions(ROOT / path), f"{path}::{function}"


def functions(file: Path) -> set[str]:
    """Return the names of the functions of a test file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


# Commands


def parser_of(verb: str) -> argparse.ArgumentParser:
    """Return the parser of `drupe VERB`, as the command line makes it."""
    parser = argparse.ArgumentParser(prog=f"drupe {verb}", allow_abbrev=False)
    importlib.import_module(f"drupe.cli.{verb}").add_arguments(parser)
    return parser


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser and of those below it."""
    found = {"--debug", "--help"}
    for action in parser._actions:
        found.update(option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= options_of(below)
    return found


def fields_as_options(verb: str) -> set[str]:
    """Return the fields that a verb of one step takes as options: those of every pass."""
    if not getattr(importlib.import_module(f"drupe.cli.{verb}"), "TAKES_FIELDS", False):
        return set()
    passes = (PASSES.find(name) for name in PASSES.names())
    fields = {field for each in passes for field in each.model_fields}
    fields |= {*TrainingArgs.model_fields, *TextPreprocess.model_fields}
    return {f"--{field.replace('_', '-')}" for field in fields}


def verbs_below(parser: argparse.ArgumentParser) -> set[str]:
    """Return what may follow a verb that has verbs of its own."""
    return {
        name
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_verbs_and_options_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(block.text for block in blocks(page) if block.language in ("", "sh"))
    for line in (*CODE.findall(text), *fenced.splitlines()):
        if found := VERB.match(line):
            verb, rest = found.groups()
            assert verb in (*VERBS, *HIDDEN), line
            parser = parser_of(verb)
            assert set(OPTION.findall(rest)) <= options_of(parser) | fields_as_options(verb), line
            if (named := rest.split()) and (below := verbs_below(parser)):
                assert set(named[0].split("|")) <= below, line


@pytest.mark.parametrize(
    "block", [*tagged("run"), *tagged("job"), *tagged("parse")], ids=lambda block: str(block)
)
def test_each_command_is_one_that_can_be_given(block: Block) -> None:
    for command in commands(block):
        first, *rest = command.words
        if first in ("drupe", "olive"):
            assert rest[0] in VERBS
            parser, fields = parser_of(rest[0]), fields_as_options(rest[0])
            _, others = parser.parse_known_args(rest[1:])
            assert {word for word in others if not fields or word.startswith("--")} <= fields
        elif first == "make":
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(rest) <= set(targets)
        elif first == "pip":
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            asked = re.fullmatch(r"(?:drupe|\.)\[([\w,]+)\]", rest[-1])
            assert asked
            assert set(asked[1].split(",")) <= set(extras["optional-dependencies"])
        elif first == "python":
            made = rest[0].startswith("models/")
            assert made or (EXAMPLE / rest[0]).exists() or (ROOT / rest[0]).exists()
        else:
            assert command.words == (".", ".venv/bin/activate")


# Configs


@pytest.mark.parametrize("page", [ROOT / "docs" / "guide.md", *(ROOT / "docs/passes").glob("*.md")])
def test_every_block_says_what_is_done_with_it(page: Path) -> None:
    for block in blocks(page):
        assert block.tag.split(" ")[0] in KNOWN_TAGS, str(block)


@pytest.mark.parametrize("block", tagged("config"), ids=lambda block: str(block))
def test_a_whole_config_is_sound(block: Block, example: Path, capsys: Captured) -> None:
    assert_sound(value_of(block), example / "phi3-emotion", capsys)


@pytest.mark.parametrize("block", tagged("part"), ids=lambda block: str(block))
def test_a_part_stands_in_its_file(block: Block) -> None:
    file = ROOT / block.tag.split(" ")[1]
    assert contains(json.loads(file.read_text()), value_of(block))


@pytest.mark.parametrize("block", tagged("joined"), ids=lambda block: str(block))
def test_what_is_joined_to_a_config_is_sound(block: Block, example: Path, capsys: Captured) -> None:
    file = Path(block.tag.split(" ")[1])
    whole = joined(json.loads((ROOT / file).read_text()), value_of(block))
    assert_sound(whole, example / file.parent.name, capsys)


def test_the_guides_pieces_are_the_whole_config() -> None:
    whole: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "guide.md"):
        if block.tag == f"part {DEMO}":
            whole = joined(whole, value_of(block))
    assert whole == json.loads((ROOT / DEMO).read_text())


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Return a folder in which each example's folder stands, by links."""
    for folder in (ROOT / "examples").iterdir():
        (tmp_path / folder.name).mkdir()
        for entry in folder.iterdir():
            (tmp_path / folder.name / entry.name).symlink_to(entry)
    return tmp_path


def assert_sound(config: dict[str, Any], folder: Path, capsys: Captured) -> None:
    """Assert that `drupe config check` finds no fault in a config that lies in `folder`."""
    file = folder / "of-the-documentation.json"
    file.write_text(json.dumps(config))
    status = main(["config", "check", str(file)])
    told = capsys.readouterr()
    assert (status, told.err) == (0, "")


# What the page asks for, and Olive


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of each row of a page's tables, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE):
        lines = table.splitlines()[2:]
        found += [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    return found


def test_each_point_that_is_asked_for_has_a_state_and_its_tests() -> None:
    rows = rows_of("docs/asked.md")
    assert [row[0] for row in rows] == [str(number) for number in range(1, 22)]
    for number, asked, state, works, shown, still_open in rows:
        assert asked, number
        assert works, number
        assert state in ("works", "in part", "open"), number
        assert bool(still_open) != (state == "works"), number
        names = CODE.findall(shown)
        assert names, f"{number}: nothing shows it"
        for name in names:
            assert PATH.fullmatch(name), name
            assert "::" in name, name


def test_each_cell_about_olive_leads_to_what_shows_it() -> None:
    rows = rows_of("docs/olive.md")
    assert len(rows) > 20
    for row in rows:
        for cell in row[1:]:
            assert LINK.search(cell), cell


def test_figures_about_olive_stand_elsewhere_too() -> None:
    """None is measured for that page alone."""
    others = "".join((ROOT / name).read_text() for name in ("README.md", "docs/faults.md"))
    figures = FIGURE.findall((ROOT / "docs" / "olive.md").read_text())
    assert len(figures) > 10
    for figure in figures:
        assert re.search(rf"(?<![\d.-]){re.escape(figure)}", others), figure


# The pages of the passes


@pytest.fixture(scope="module")
def pass_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pass_pages", ROOT / "scripts/pass_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_of_the_passes_are_what_the_passes_declare(pass_pages: ModuleType) -> None:
    written = pass_pages.pages()
    own = [name for name in PASSES._built_in if PASSES.find(name).delivers]
    assert set(written) == {"index.md", *(f"{name}.md" for name in own)}
    folder = ROOT / "docs" / "passes"
    assert {file.name for file in folder.iterdir()} == set(written)
    for name, text in written.items():
        told = f"docs/passes/{name} differs: run scripts/pass_pages.py"
        assert (folder / name).read_text(encoding="utf-8") == text, told
