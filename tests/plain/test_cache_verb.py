"""`drupe cache`, as a user calls it, and the quota of a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from drupe.catalog import METRICS, PASSES
from drupe.cli import main
from drupe.core.cache import Cache
from drupe.core.errors import ConfigError
from drupe.core.files import remove_tree
from drupe.core.housekeeping import collect
from drupe.core.manifest import Manifest
from drupe.core.stock import survey
from tests.plain.conftest import Workspace, tree
from tests.plain.test_cache import write

Captured = pytest.CaptureFixture[str]
DAY = 86400


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished") / "workspace")
    workspace.run()
    return workspace


@pytest.fixture
def ran(workspace: Workspace, finished: Workspace) -> Workspace:
    """A workspace whose two steps are cached, Reverse used a day ago."""
    subprocess.run(["cp", "-a", finished.cache, finished.output, workspace.folder], check=True)
    assert all(step.hit for step in workspace.plan().steps)
    key = workspace.plan().steps[0].key
    used = time.time() - DAY
    os.utime(workspace.cache / "steps" / key / "manifest", (used, used))
    return workspace


def told(capsys: Captured, *words: str, status: int = 0) -> str:
    """Return what `drupe cache WORDS...` prints."""
    assert main(["cache", *words]) == status
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def told_json(capsys: Captured, *words: str, status: int = 0) -> Any:
    return json.loads(told(capsys, *words, "--json", status=status))


def refused(capsys: Captured, *words: str) -> str:
    assert main(["cache", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def keys(workspace: Workspace) -> list[str]:
    return [step.key for step in workspace.plan().steps]


def test_ls(ran: Workspace, capsys: Captured) -> None:
    back, more = keys(ran)
    lines = told(capsys, "ls", str(ran.file)).splitlines()
    assert lines[0].split() == ["key", "made", "by", "kind", "size", "its", "own", "age", "used"]
    time, place = r"\d+(\.\d)? s", r" +"
    own = place.join([more[:12], "Append", "files", "10 B", "10 B", time, f"{time} ago", "sound"])
    assert re.fullmatch(own, lines[1])
    own = place.join([back[:12], "Reverse", "files", "8 B", "8 B", time, "24 h 0 min ago", "sound"])
    assert re.fullmatch(own, lines[2])
    assert lines[4] == "2 results, 18 B on the disk."


def test_ls_for_programs(ran: Workspace, capsys: Captured) -> None:
    listed = told_json(capsys, "ls", "--cache-dir", str(ran.cache))
    assert listed["total_bytes"] == 18
    one = listed["results"][1]
    assert one["used"] == pytest.approx(time.time() - DAY, abs=60)
    assert one["made"] == pytest.approx(time.time(), abs=60)
    del one["used"], one["made"]
    assert one == {
        "key": keys(ran)[0],
        "operation": "Reverse",
        "kind": "files",
        "size_bytes": 8,
        "own_bytes": 8,
        "state": "sound",
        "why": "",
    }


def test_the_cache_of_this_folder(
    ran: Workspace, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran.folder)
    words = rf"^drupe: {ran.folder}/\.drupe-cache: is no cache of drupe\n  Name one: --cache-dir"
    assert re.match(words, refused(capsys, "ls"))
    ran.cache.rename(ran.folder / ".drupe-cache")
    assert "2 results" in told(capsys, "ls")


def test_a_folder_that_is_no_cache_is_not_tidied_up(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "thesis").mkdir()
    for words in (["gc"], ["rm", "a"], ["verify", "--repair"], ["ls"]):
        assert "is no cache of drupe" in refused(capsys, *words, "--cache-dir", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_two_caches_at_once_are_refused(ran: Workspace, capsys: Captured) -> None:
    words = ["ls", str(ran.file), "--cache-dir", str(ran.cache)]
    assert refused(capsys, *words).startswith("drupe cache ls: is told 2 caches: ")


def test_rm(ran: Workspace, capsys: Captured) -> None:
    back, more = keys(ran)
    where = ("--config", str(ran.file))
    shown = told(capsys, "rm", back[:8], *where, "--dry-run")
    assert shown.startswith(f"  {back[:12]}  Reverse  8 B\nWould drop 1 result, 2 blobs, ")
    assert len(survey(Cache(ran.cache)).entries) == 2
    shown = told(capsys, "rm", back[:8], *where)
    assert shown.endswith("Dropped 1 result, 2 blobs, 0 leftovers, 0 locks, 0 old digests: 8 B. "
                          "10 B are left.\n")  # fmt: skip
    assert [entry.key for entry in survey(Cache(ran.cache)).entries] == [more]
    assert '"nothing": is the key of no result' in refused(capsys, "rm", "nothing", *where)


def test_gc(ran: Workspace, capsys: Captured) -> None:
    (ran.cache / "work" / ("a" * 64)).mkdir(parents=True)
    swept = told_json(capsys, "gc", str(ran.file), "--older-than", "12h", "--dry-run")
    assert swept["dry_run"] is True
    assert [result["operation"] for result in swept["results"]] == ["Reverse"]
    assert swept["leftovers"] == [f"work/{'a' * 64}"]
    shown = told(capsys, "gc", str(ran.file), "--older-than", "12h")
    assert f"  work/{'a' * 64}  left by a process that is gone\n" in shown
    assert "Dropped 1 result, 2 blobs, 1 leftover, " in shown
    assert told_json(capsys, "gc", str(ran.file), "--keep-bytes", "9B")["left_bytes"] == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--keep-bytes=20", 'should be a size with its unit, such as "20GB"'),
        ("--older-than=soon", 'should be a time with its unit, such as "30d"'),
    ],
)
def test_an_amount_without_a_unit_is_refused(option: str, words: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "gc", option])
    assert words in capsys.readouterr().err


def test_verify(ran: Workspace, capsys: Captured) -> None:
    shown = told(capsys, "verify", str(ran.file))
    assert shown == "Read 2 results and 4 blobs, 18 B: nothing damaged.\n"
    back = keys(ran)[0]
    file = ran.cache / "steps" / back / "files" / "a.txt"
    before = file.stat()
    write(file, b"XXX")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    shown = told(capsys, "verify", str(ran.file), status=1)
    assert f"  result {back[:12]}: a.txt has changed since it was made\n" in shown
    assert "18 B: 2 damaged.\ndrupe cache verify --repair drops what is damaged" in shown
    listed = told_json(capsys, "verify", str(ran.file), status=1)
    assert [damage["what"] for damage in listed["damages"]] == ["result", "blob"]
    shown = told(capsys, "verify", str(ran.file), "--repair")
    assert f"  result {back[:12]}: a.txt has changed since it was made: dropped\n" in shown
    assert "nothing damaged" in told(capsys, "verify", str(ran.file))
    ran.run()
    assert ran.heard.ran == ["back"]


def test_a_cache_of_another_format_is_listed_and_made_anew(
    ran: Workspace, capsys: Captured
) -> None:
    """As the drupe before this one wrote it: no seal, no parts."""
    manifest = ran.cache / "steps" / keys(ran)[0] / "manifest"
    value = json.loads(manifest.read_text())
    del value["seal"], value["parts"]
    manifest.write_text(json.dumps(value | {"format": 1}))
    assert "other format: it is of format 1, not 3" in told(capsys, "ls", str(ran.file))
    assert told(capsys, "verify", str(ran.file)).endswith(
        "1 result of another format: left alone.\n"
    )
    ran.run()
    assert ran.heard.ran == ["back"]
    [warning] = ran.heard.warnings
    assert warning.endswith(" is not used: it is of format 1, not 3. It is made anew.")


# explain


def test_explain_two_results(ran: Workspace, capsys: Captured) -> None:
    more = keys(ran)[1]
    ran.config["passes"]["more"]["text"] = "?"
    ran.run()
    other = keys(ran)[1]
    shown = told(capsys, "explain", more[:9], other[:9], "--config", str(ran.file))
    assert shown == f"{more[:12]} -> {other[:12]}\n  field text: ! -> ?\n"
    [difference] = told_json(
        capsys, "explain", more, other, "--cache-dir", str(ran.cache)
    )["differences"]  # fmt: skip
    assert difference == {"part": "field text", "before": "!", "after": "?", "inner": []}
    shown = told(capsys, "explain", more, more, "--config", str(ran.file))
    assert shown.endswith("  No part of their keys differs.\n")


def test_explain_a_config(ran: Workspace, capsys: Captured) -> None:
    """A file that a field names was edited, and so the step and all behind it are to run."""
    assert told(capsys, "explain", str(ran.file)).count(": cached\n") == 2
    old = keys(ran)
    (ran.folder / "more.txt").write_text("more")
    ran.passes(
        start={"type": "Append", "text": "!", "source": "more.txt"},
        back={"type": "Reverse"},
        slow={"type": "Slow"},
    )
    ran.write()
    shown = told(capsys, "explain", str(ran.file))
    start, back, slow = keys(ran)
    assert shown == (
        f"start  {start[:12]}: to run; the nearest result {old[1][:12]} differs in\n"
        f"  field source: None -> (none)\n"
        f"  parent 1 (the input model, or no result here): {old[0][:12]} -> {input_key(ran)}\n"
        f"  content of field source: (none) -> {digest_in(ran)}\n"
        f"back  {back[:12]}: to run; the nearest result {old[0][:12]} differs in\n"
        f"  parent 1 (the input model, or no result here): {input_key(ran)} -> {start[:12]}\n"
        f"slow  {slow[:12]}: to run, and no result of Slow is here\n"
    )
    steps = told_json(capsys, "explain", str(ran.file))["steps"]
    assert [(step["step"], step["hit"], step["nearest"]) for step in steps] == [
        ("start", False, old[1]), ("back", False, old[0]), ("slow", False, None),
    ]  # fmt: skip


def input_key(ran: Workspace) -> str:
    return ran.plan().steps[0].parents[0][:12]


def digest_in(ran: Workspace) -> str:
    digest: str = ran.plan().steps[0].parts["fields"]["source"]["content"]
    return digest[:12]


def test_explain_a_code_version(
    ran: Workspace, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass's version was raised: its step and what is behind it are to run, and that is told."""
    monkeypatch.setattr(PASSES.find("Reverse"), "version", 2)
    shown = told(capsys, "explain", str(ran.file))
    assert "differs in\n  code version: 1 -> 2\nmore  " in shown
    assert re.search(r"differs in\n  parent 1: \w+ -> \w+\n    code version: 1 -> 2\n$", shown)
    monkeypatch.setattr(PASSES.find("Append"), "version", 7)
    assert not any(step.hit for step in ran.plan().steps)


def test_explain_a_result_that_is_damaged(ran: Workspace, capsys: Captured) -> None:
    (ran.cache / "steps" / keys(ran)[0] / "files" / "a.txt").unlink()
    shown = told(capsys, "explain", str(ran.file))
    assert "is not used: a.txt is missing. It is made anew." in shown
    assert "a result of this key is here, but what it was made from is not, or it is dam" in shown


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["a", "b", "c"], "needs a config, or two keys"),
        (["absent.json"], "there is no such file"),
        (["{file}", "--cache-dir", "x"], "is told two caches"),
        (["zz", "a", "--config", "{file}"], '"zz": is the key of no result'),
    ],
)
def test_what_cannot_be_explained(
    words: list[str], what: str, ran: Workspace, capsys: Captured
) -> None:
    words = [word.format(file=ran.file) for word in words]
    assert what in refused(capsys, "explain", *words)


# What a manifest says of a step


def test_no_path_and_no_secret_is_kept_of_a_step(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (workspace.folder / "more.txt").write_text("more")
    workspace.passes(more={"type": "Append", "source": "more.txt"})
    workspace.config["engine"]["evaluate"] = "every-step"
    workspace.run()
    for step in workspace.plan().steps:
        folder = workspace.cache / "steps" / step.key
        assert Manifest.read(folder).parts == step.parts
        for name in ("manifest", "marks"):
            text = (folder / name).read_text()
            assert str(workspace.folder) not in text
            assert "more.txt" not in text
            assert "hf_secret" not in text


@pytest.mark.parametrize("registry", [PASSES, METRICS], ids=["passes", "metrics"])
def test_no_field_of_an_operation_is_a_secret(registry: Any) -> None:
    """Fields are kept in manifests as they are: a token has no place among them."""
    secret = re.compile(r"token$|secret|password|credential|api_?key", re.IGNORECASE)

    def names(schema: Any) -> list[str]:
        below = [name for each in schema.get("$defs", {}).values() for name in names(each)]
        return [*schema.get("properties", {}), *below]

    for name in registry.names():
        assert not [field for field in names(registry.find(name).model_json_schema())
                    if secret.search(field)], name  # fmt: skip


# The quota


def test_a_quota_drops_what_this_run_does_not_need(ran: Workspace) -> None:
    ran.config["passes"]["more"]["text"] = "?" * 100
    ran.config["engine"]["cache_quota"] = "220 B"
    ran.run()
    assert len(survey(Cache(ran.cache)).entries) == 2, "the older Append went, Reverse is needed"
    assert ran.heard.notes == [
        "The cache's quota is 220 B: 1 result not used for longest went, 10 B."
    ]
    assert ran.heard.warnings == []
    ran.run()
    assert (ran.heard.ran, ran.heard.notes) == ([], [])


def test_what_the_run_needs_is_never_dropped(ran: Workspace) -> None:
    ran.config["engine"]["cache_quota"] = "5B"
    for _ in range(2):
        ran.run()
        [warning] = ran.heard.warnings
        assert warning == (
            "The cache holds 18 B that runs need now: more than engine.cache_quota (5B) allows. "
            "Nothing of that was dropped."
        )
        assert ran.heard.ran == []


def test_a_quota_that_cannot_be_kept_is_no_end_of_a_run(ran: Workspace) -> None:
    remove_tree(ran.cache / "locks" / "housekeeping")
    (ran.cache / "locks" / "housekeeping").mkdir()
    ran.config["engine"]["cache_quota"] = "5B"
    assert ran.run().path is not None
    [warning] = ran.heard.warnings
    assert warning.startswith("The cache was not brought below its quota of 5B: [Errno 21] Is a")


@pytest.mark.parametrize("quota", ["20", "much", "-1GB", 20])
def test_a_quota_is_a_size_with_its_unit(quota: Any, workspace: Workspace) -> None:
    workspace.config["engine"]["cache_quota"] = quota
    words = r"engine\.cache_quota: (should be a size with its unit, such as|input should be a val)"
    with pytest.raises(ConfigError, match=words):
        workspace.plan()


def test_a_quota_is_told_on_a_terminal(ran: Workspace, capsys: Captured) -> None:
    ran.config["passes"]["more"]["text"] = "?" * 100
    ran.config["engine"]["cache_quota"] = "220B"
    assert main(["run", str(ran.write())]) == 0
    assert "  The cache's quota is 220B: 1 result not used for longest" in capsys.readouterr().out


def test_a_run_goes_on_while_all_else_is_dropped(workspace: Workspace) -> None:
    """Between its steps nothing of a run is locked: that it goes on is what keeps its results."""
    swept: list[int] = []

    class Sweeping(type(workspace.heard)):  # type: ignore[misc]
        def finished(self, step: Any, result: Any) -> None:
            super().finished(step, result)
            swept.append(len(collect(Cache(workspace.cache), keep_bytes=0).results))

    import drupe

    heard = Sweeping()
    drupe.run(workspace.write(), listener=heard)
    assert (heard.ran, swept) == (["back", "more"], [0, 0])
    assert len(collect(Cache(workspace.cache), keep_bytes=0).results) == 2
    assert tree(workspace.output)["back-more/cpu-cpu_model/a.txt"] == b"eno!"
    remove_tree(workspace.cache)
    workspace.run()
