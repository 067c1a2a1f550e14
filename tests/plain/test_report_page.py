"""report.html: what is on it, that nothing quoted becomes markup, and when it is written."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from drupe.outcome import Outcome, Score
from drupe.output import report
from drupe.report.charts import MOST_POINTS, Curve, curves_figure, points_of, ticks
from drupe.report.markup import Markup, element
from drupe.report.page import STYLE, page
from drupe.report.proofs import sentences, standing
from drupe.report.words import duration, size
from tests.plain.conftest import Workspace

HOSTILE = (
    "</td><script>alert(1)</script><img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "</style><style>*{display:none}</style>",
    "' onmouseover='alert(4)",
    "</title><base href=//evil.example><iframe src=//evil.example>",
    "&lt;b&gt; stays as it is",
)
VOID = {"meta", "br"}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article"),
    *("h1", "h2", "h3", "p", "b", "bdi", "small", "span", "time", "div", "figure", "details"),
    *("summary", "ol", "ul", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tr"),
    *("th", "td", "svg", "desc", "text", "line", "polyline", "circle", "rect"),
}


class Parsed(HTMLParser):
    """A page's elements with their attributes, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.style = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "what is opened is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def shown(outcome: Outcome) -> str:
    return page(outcome, {**report(outcome), "written": "2026-01-02T03:04:05Z"})


def with_final(outcome: Outcome, **changes: Any) -> Outcome:
    final = dataclasses.replace(outcome.final, **changes)
    return dataclasses.replace(outcome, stages=(*outcome.stages[:-1], final))


def score(**content: Any) -> Score:
    return Score.from_json({"metric": "accuracy", **content})


@pytest.fixture
def outcome(workspace: Workspace) -> Outcome:
    workspace.config["engine"]["evaluate"] = "every-step"
    return workspace.run()


@pytest.fixture
def rich(outcome: Outcome) -> Outcome:
    """Return an outcome with all that a page can show."""
    first = dataclasses.replace(
        outcome.stages[0], scores={"accuracy": score(value=0.25, low=0.2, high=0.3, count=600)}
    )
    tuned = dataclasses.replace(
        outcome.stages[1],
        seconds=25.0,
        peak_bytes=497 * 10**6,
        facts={"losses": [[1, 4.2], [10, 2.5], [20, 0.5]], "eval_losses": [[20, 0.6]]},
        scores={"accuracy": score(value=None, skipped="no such device here")},
    )
    final = dataclasses.replace(
        outcome.final,
        seconds=5.0,
        peak_bytes=421 * 10**6,
        scores={
            "accuracy": score(value=0.963, low=0.945, high=0.976, count=600),
            "answers": Score.from_json(
                {
                    "metric": "answers",
                    "samples": [{"prompt": "A\nB", "expected": "fear", "answer": "joy"}],
                }
            ),
        },
        proof=Score.from_json(
            {
                "metric": "export_proof",
                "value": 0.1124,
                "bound": 0.148,
                "passed": True,
                "precision": "int4",
                "rounding": 0.1123,
                "top1_agreement": 0.895,
                "positions": 257,
            }
        ),
    )
    return dataclasses.replace(outcome, stages=(first, tuned, final))


def test_the_page_tells_the_run(rich: Outcome) -> None:
    parsed = Parsed(shown(rich))
    headings = ["The chain", "Scores", "Training", "Time and memory", "Proofs", "Samples"]
    for text in (*headings, "Provenance", "input → files", "Accuracy on 600 rows went from 25.0 %"):
        assert text in parsed.text
    for text in ("96.3 %", "accuracy, 95 % in 94.5-97.6", "not run", "no such device here"):
        assert text in parsed.text
    for text in ("Time, 30 s together", "497 MB", "0.11 (relative) from the checkpoint's"):
        assert text in parsed.text
    assert "No proof belongs to back." in parsed.text
    assert "A\nB" in parsed.texts
    for stage in rich.stages:
        assert stage.model.digest in parsed.texts
    for step in rich.plan.steps:
        assert step.key in parsed.texts
    assert {"datetime": "2026-01-02T03:04:05Z"} in parsed.of("time")
    assert "2026-01-02 03:04 UTC" in parsed.texts


def test_a_score_that_did_not_move_is_said_to_have_stayed(rich: Outcome) -> None:
    kept = score(value=0.2501, low=0.2, high=0.3, count=600)
    told = Parsed(shown(with_final(rich, scores={"accuracy": kept}))).text
    assert "Accuracy on 600 rows stayed at 25.0 %" in told


def test_each_card_of_the_chain_has_its_size_time_and_memory(rich: Outcome) -> None:
    cards = re.findall(r'<dl class="costs">(.*?)</dl>', shown(rich), re.DOTALL)
    first, *made = zip(rich.stages, cards, strict=True)
    assert size(first[0].size_bytes) in first[1]
    assert "time" not in first[1], "the input was not made here"
    for stage, card in made:
        for told in (size(stage.size_bytes), duration(stage.seconds)):
            assert f">{told}<" in card
        assert ("memory" in card) == bool(stage.peak_bytes)


def test_the_curve_has_axes_and_stays_in_its_box(rich: Outcome) -> None:
    html = shown(rich)
    parsed = Parsed(html)
    assert "Loss of back by step" in parsed.texts
    assert "training: 4.2 at step 1, 0.5 at step 20; held-out rows: 0.6 at step 20, 0.6 at" in html
    (drawn, _) = parsed.of("polyline")
    places = [tuple(map(float, place.split(","))) for place in str(drawn["points"]).split()]
    assert places == [(5, 16), (50, 50), (100, 90)]  # of 20 steps, and of 5 down to 0
    for attributes in parsed.of("circle"):
        for value in (attributes["cx"], attributes["cy"]):
            assert 0 <= float(str(value).rstrip("%")) <= 100


def test_each_picture_says_what_it_shows(rich: Outcome) -> None:
    html = shown(rich)
    parsed = Parsed(html)
    pictures = [svg for svg in parsed.of("svg") if svg.get("role") == "img"]
    assert len(pictures) == 2 + 1 + 2 * 2  # intervals, the curve, bars
    assert len(re.findall(r'<svg[^>]*role="img"[^>]*>\s*<title>[^<]+</title>', html)) == 7
    for each in parsed.of("svg"):
        told = each.get("role") == "img" or each.get("aria-hidden") == "true"
        assert told or "preserveaspectratio" in each, "a picture within a picture"


def test_it_is_offline_and_its_policy_allows_its_style_alone(rich: Outcome) -> None:
    html = shown(rich)
    parsed = Parsed(html)
    digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
    (policy,) = [
        str(meta["content"])
        for meta in parsed.of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    names = {name for name, _ in parsed.elements}
    assert not names & {"script", "img", "link", "iframe", "object", "base", "a", "form"}
    attributes = {key for _, each in parsed.elements for key in each}
    assert not attributes & {"style", "src", "href"}
    assert not [key for key in attributes if key.startswith("on")]
    assert "://" not in html
    assert "@import" not in parsed.style
    assert "url(" not in parsed.style


def test_nothing_that_is_quoted_becomes_markup(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    name = "<img src=x onerror=alert(5)>.json"  # a file's name holds no slash
    workspace.write().rename(workspace.folder / name)
    outcome = hostile(workspace, name)
    parsed = Parsed(shown(outcome))
    for text in (*HOSTILE, name):
        assert any(text in told for told in parsed.texts), text
    assert {tag for tag, _ in parsed.elements} <= ELEMENTS
    for tag, attributes in parsed.elements:
        assert tag not in ("script", "img", "iframe", "base"), attributes
        assert not [key for key in attributes if key.startswith("on") or key == "src"]
    assert len(parsed.of("style")) == 1
    assert all("onload" not in svg for svg in parsed.of("svg"))


def hostile(workspace: Workspace, name: str) -> Outcome:
    """Return an outcome in which every text that comes from elsewhere means harm."""
    text = HOSTILE[0]
    outcome = workspace.run()
    plan = dataclasses.replace(
        outcome.plan,
        workflow=dataclasses.replace(
            outcome.plan.workflow, file=str(workspace.folder / name), settings=(f"a={text}",)
        ),
        source=dataclasses.replace(outcome.plan.source, name=text, revision=text),
        steps=tuple(
            dataclasses.replace(step, name=f"{step.name}{text}", stage=f"{step.stage}{text}")
            for step in outcome.plan.steps
        ),
    )
    samples = [dict.fromkeys(("prompt", "expected", "answer"), each) for each in HOSTILE]
    stages = tuple(
        dataclasses.replace(
            stage,
            name=f"{stage.name}{text}",
            facts={"losses": [[1, 2.0], [2, 1.0]], text: text},
            scores={
                text: score(value=0.5, low=0.4, high=0.6, samples=samples, unit=text),
                f"not run {text}": score(skipped=text),
            },
            proof=Score.from_json({"metric": text, "skipped": text, text: text}),
        )
        for stage in outcome.stages
    )
    return dataclasses.replace(outcome, plan=plan, stages=stages)


def test_characters_that_would_be_lost_are_pictured() -> None:
    assert element("p", "a\x00b\rc\x7f") == "<p>a␀b␍c␡</p>"
    assert element("p", "a\n\tb", title='"') == '<p title="&quot;">a\n\tb</p>'
    assert element("p", Markup("<br>"), class_="x", id=None) == '<p class="x"><br></p>'


def test_the_same_outcome_gives_the_same_bytes(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    workspace.run()
    file = workspace.output / "report.html"
    before, written = file.read_bytes(), file.stat().st_mtime_ns
    told = json.loads((workspace.output / "report.json").read_text())["written"]
    assert f'datetime="{told}"'.encode() in before
    workspace.run()
    assert file.stat().st_mtime_ns == written, "what is there already is left alone"
    for damage in (file.unlink, lambda: file.write_bytes(before[:-9])):
        damage()
        workspace.run()
        assert workspace.heard.ran == []
        assert file.read_bytes() == before


def test_the_terminal_names_it(workspace: Workspace) -> None:
    shown = workspace.drupe("run", "config.json").stdout
    assert "The report:  output/report.html\n" in shown


QUOTING = """
import json
from pathlib import Path
from drupe import Job, Metric, Model


class Quote(Metric):
    takes = ("files",)

    def run(self, model: Model, out: Path, job: Job) -> None:
        samples = [dict.fromkeys(("prompt", "expected", "answer"), "a private matter")]
        score = {"metric": "quote", "samples": samples, "choices": ["a private matter"]}
        (out / "score.json").write_text(json.dumps(score))
"""


def test_samples_of_private_data_are_left_out(outcome: Outcome, workspace: Workspace) -> None:
    quoting = score(
        value=0.5, samples=[{"prompt": "private", "answer": "private", "expected": "private"}],
        choices=["private"], tokens=7,
    )  # fmt: skip
    told = quoting.without_samples()
    assert "private" not in json.dumps(told.to_json())
    assert told.to_json() == {
        "metric": "accuracy", "value": 0.5, "tokens": 7, "samples_left_out": 1,
    }  # fmt: skip

    workspace.config["engine"]["no_samples"] = True
    asked = workspace.run()
    assert "Left out, as engine.no_samples asks." in Parsed(shown(asked)).text
    assert "Left out" not in shown(outcome)


def test_leaving_samples_out_delivers_nothing_anew(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    outcome = workspace.run()
    assert outcome.path is not None
    (outcome.path / "a.txt").write_text("edited")
    file = workspace.output / "report.json"
    told = json.loads(file.read_text())
    told["stages"][-1]["scores"]["length"] |= {"samples": [{}], "choices": ["private"]}
    file.write_text(json.dumps(told))
    workspace.run(settings=["engine.no_samples=true"])
    assert "private" not in file.read_text()
    assert (outcome.path / "a.txt").read_text() == "edited"


def test_a_stage_of_another_kind_of_run(workspace: Workspace, outcome: Outcome) -> None:
    """Facts and proofs of plug-ins may be anything; a run without a pass has no chain."""
    endless = score(metric="perplexity", value=math.inf, low=1.0, high=math.inf)
    shown(with_final(outcome, scores={"perplexity": endless}))
    odd: dict[str, Any] = {"losses": "none", "eval_losses": [[1], ["a", 2], [math.nan, 1], [1, 1]]}
    proof = Score.from_json({"metric": "merge_proof", "passed": True, "layers": None})
    html = shown(with_final(outcome, facts=odd, proof=proof))
    assert "What it compared is in its figures." in html
    assert html.count('class="dot curve-2"') == 2, "a point and its sign in the legend"
    workspace.passes()
    alone = Parsed(shown(workspace.run()))
    assert "no pass was asked for" in alone.text
    assert "Time and memory" not in alone.text


def test_a_proof_in_words() -> None:
    skipped = Score.from_json({"metric": "merge_proof", "passed": None, "skipped": "no memory"})
    assert standing(skipped) == "not proven"
    assert sentences(skipped) == "Not proven: no memory."
    merged = Score.from_json(
        {
            "metric": "merge_proof", "value": 0.00174, "bound": 0.0128, "passed": True,
            "adapter_effect": 0.604, "layers": 8, "positions": 192,
        }
    )  # fmt: skip
    assert standing(merged) == "proven"
    assert "the 8 merged weights are base + adapter" in sentences(merged)
    assert "0.0017 (relative)" in sentences(merged)


@pytest.mark.parametrize(
    ("low", "high", "given"),
    [
        (0, 4.23, [0, 1, 2, 3, 4, 5]),
        (0, 304, [0, 100, 200, 300, 400]),
        (-0.5, 0.5, [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]),
        (0, 0, None),
        (1e20, 1e20, None),
        (0, 1e-200, None),
        (0, 1e299, None),
    ],
)
def test_ticks_are_round_and_hold_all(low: float, high: float, given: list[float] | None) -> None:
    found = ticks(low, high, 5)
    assert found[0] <= low
    assert found[-1] >= high
    assert found[-1] > found[0]
    assert len(found) <= 8
    if given is not None:
        assert found == given


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    found = points_of([[step, 1.0] for step in range(100_001)])
    assert len(found) <= MOST_POINTS + 1
    assert (found[0][0], found[-1][0]) == (0, 100_000)


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_on_its_ground_in_light_dark_and_print() -> None:
    found = re.findall(
        r"(?:@media ([^{]*?) \{\s*)?:root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL
    )
    media, schemes = zip(*found, strict=True)
    assert media == ("", "(prefers-color-scheme: dark)", "print")
    grounds = [re.findall(r"--ground: #(\w{2})", scheme)[0] for scheme in schemes]
    assert [int(ground, 16) > 127 for ground in grounds] == [True, False, True]
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6});", scheme))
        for ground in ("ground", "card", "wash"):
            for ink in ("ink", "quiet", "plum", "leaf", "amber"):
                dark, light = sorted(luminance(colours[name]) for name in (ground, ink))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)  # WCAG's AA


def with_layers(outcome: Outcome, **more: Any) -> Outcome:
    """Return an outcome whose proof tells of an embedding, a head and layers."""
    assert outcome.final.proof is not None
    layers = [
        {
            "attention": {"error": 0.05 + 0.001 * index, "bytes": 2 * 10**6},
            "mlp": {"error": 0.08, "bytes": 5 * 10**6},
        }
        for index in range(6)
    ]
    told = {
        "weights": {
            "embedding": {"error": 0.0, "bytes": 9 * 10**6},
            "head": {"error": 0.11, "bytes": 3 * 10**6},
            "layers": layers,
            "other_bytes": 7,
        },
        "layer_errors": [0.1, 0.2, 0.3, 0.35, 0.4, 0.45],
        "arithmetic": 1.3e-6,
        "arithmetic_bound": 1e-4,
        "greedy_tokens": 29,
    }
    proof = outcome.final.proof
    more = {**proof.more, **told, **more}
    return with_final(outcome, proof=dataclasses.replace(proof, more=more))


def test_the_parts_of_a_model_are_shown_worst_first(rich: Outcome) -> None:
    parsed = Parsed(shown(with_layers(rich)))
    caption = "Relative error of the weights, and what they take, the 10 greatest of 14"
    assert caption in parsed.texts
    first = parsed.texts.index("head")
    assert parsed.texts.index("layer 0, mlp") > first
    assert parsed.texts.index("layer 5, attention") < parsed.texts.index("layer 4, attention")
    assert "layer 1, attention" not in parsed.texts
    assert "5 MB" in parsed.texts
    assert "error: 0.1 at layer 0, 0.45 at layer 5" in parsed.text
    assert "computes ONNX Runtime's logits to 1e-06 (0.0001 is allowed)" in parsed.text
    assert "29 greedy tokens are the same" in parsed.text
    assert "other bytes" not in parsed.text
    unclear = Parsed(shown(with_layers(rich, greedy_tokens=0))).text
    assert "greedy tokens are" not in unclear


@pytest.mark.parametrize(
    ("layers", "told"),
    [(2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5]), (32, None)],
)
def test_layers_are_counted_in_whole_numbers(layers: int, told: list[int] | None) -> None:
    points = [(float(layer), 0.1) for layer in range(layers)]
    drawn = str(curves_figure("of layers", "layer", "error", [Curve("error", points, "curve-1")]))
    found = [float(text) for text in re.findall(r'<text [^>]*dy="20"[^>]*>([^<]*)</text>', drawn)]
    assert found == (told or [0, 10, 20, 30])


def test_parts_are_shown_only_where_something_was_rounded(rich: Outcome) -> None:
    exact = {"head": {"error": 0.0, "bytes": 5}, "layers": [], "other_bytes": 0}
    for weights in (exact, {"layers": [{"mlp": 3}]}, {"layers": 7}, "none", None):
        html = shown(with_layers(rich, weights=weights))
        assert "Relative error of the weights" not in html
    odd = {"head": {"error": math.nan, "bytes": 5}, "layers": []}
    assert "Relative error of the weights" not in shown(with_layers(rich, weights=odd))
    for errors in (None, [0.1], ["a", {}, math.nan]):
        html = shown(with_layers(rich, layer_errors=errors))
        assert "Relative error of the weights" in html
        assert "comes out of each layer" not in html
