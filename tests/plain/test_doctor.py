"""`drupe doctor`: each fault is planted for real (a wheel's folder, a crash), and told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from drupe.cli import main
from drupe.cli.doctor import table
from drupe.doctor.finding import Finding, looking_at
from drupe.doctor.machine import command, disk, memory, python
from drupe.doctor.packages import packages
from drupe.doctor.processor import from_cpuinfo, from_sysctl
from drupe.doctor.providers import providers
from drupe.doctor.settings import cached, hub
from tests.plain.conftest import Workspace, tree

ASKS = """\
Requires-Dist: planted-base>=1
Requires-Dist: planted-fast>=2; extra == "cpu"
Requires-Dist: planted-win>=1; sys_platform == "nowhere" and extra == "directml"
Provides-Extra: cpu
Provides-Extra: directml
Provides-Extra: development
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of installed distributions that Python looks into."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, name: str, version: str, more: str = "") -> PathDistribution:
    """Put down the dist-info folder that a wheel leaves."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
    (info / "METADATA").write_text(metadata)
    return PathDistribution(info)


def looked_at(distribution: PathDistribution) -> dict[str, Finding]:
    return {finding.subject: finding for finding in packages(distribution)}


def test_an_extra_that_is_not_installed_is_no_fault(site: Path) -> None:
    install(site, "planted-base", "1.0")
    found = looked_at(install(site, "planted", "0.1.0", ASKS))
    assert found["drupe"] == Finding("drupe", "fine", "0.1.0")
    remedy = 'pip install "drupe[cpu]"'
    assert found["[cpu]"] == Finding("[cpu]", "note", "not installed: planted-fast absent", remedy)
    assert found["[directml]"].found == "holds nothing for this system"
    assert "[development]" not in found


def test_an_extra_that_would_overwrite_another_is_not_advised_beside_it(site: Path) -> None:
    install(site, "onnxruntime", "1.31.1")
    asks = 'Requires-Dist: onnxruntime-gpu>=1; extra == "gpu"\nProvides-Extra: gpu\n'
    found = looked_at(install(site, "planted", "0.1.0", asks))["[gpu]"]
    remedy = 'In an environment without onnxruntime: pip install "drupe[gpu]"'
    assert found == Finding("[gpu]", "note", "not installed: onnxruntime-gpu absent", remedy)


def test_a_version_that_an_extra_rules_out_is_broken(site: Path) -> None:
    install(site, "planted-base", "1.0")
    install(site, "planted-fast", "1.9")
    found = looked_at(install(site, "planted", "0.1.0", ASKS))["[cpu]"]
    assert (found.state, found.found) == ("broken", "planted-fast 1.9 (needs >=2)")
    assert found.remedy == 'pip install -U "drupe[cpu]"'


def test_a_complete_extra_tells_its_versions(site: Path) -> None:
    install(site, "planted-base", "1.0")
    install(site, "planted-fast", "2.0+cpu")
    found = looked_at(install(site, "planted", "0.1.0", ASKS))["[cpu]"]
    assert (found.state, found.found) == ("fine", "planted-fast 2.0+cpu")


def test_what_drupe_itself_needs_is_held_to(site: Path) -> None:
    install(site, "planted-base", "0.9")
    found = looked_at(install(site, "planted", "0.1.0", ASKS))["drupe"]
    assert found.state == "broken"
    assert found.found == "0.1.0, but planted-base 0.9 (needs >=1)"


@pytest.mark.parametrize(
    ("one", "other", "subject"),
    [
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime"),
        ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai"),
        ("drupe-olive", "olive-ai", "olive"),
    ],
)
def test_two_wheels_that_overwrite_each_other_end_with_1(
    one: str, other: str, subject: str, site: Path, tmp_path: Path
) -> None:
    install(site, one, "1.31.1")
    install(site, other, "1.31.1")
    done = subprocess.run(
        [sys.executable, "-m", "drupe", "doctor", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert told["broken"] >= 1
    (found,) = [each for each in told["findings"] if each["subject"] == subject]
    assert found["state"] == "broken"
    assert one in found["found"]
    assert other in found["found"]
    assert f"pip uninstall {one}" in found["remedy"]


def probe(tmp_path: Path, loading: str) -> tuple[str, ...]:
    """Return a probe that lists the CPU's provider, and does `loading` for it."""
    file = tmp_path / "probe.py"
    listing = """print('["AzureExecutionProvider", "CPUExecutionProvider"]')"""
    file.write_text(
        f"import os, sys, time\nif len(sys.argv) == 1:\n    {listing}\nelse:\n    {loading}\n"
    )
    return (str(file),)


@pytest.mark.parametrize(
    ("loading", "seconds", "told"),
    [
        ("os.abort()", 60, "its process was aborted (SIGABRT, a fault in a native library)"),
        ("sys.exit('no driver')", 60, "its process ended with exit code 1: no driver"),
        ("time.sleep(600)", 3, "it was still not done when its time was over"),
    ],
)
def test_a_provider_that_does_not_load_is_told(
    loading: str, seconds: float, told: str, tmp_path: Path
) -> None:
    (found,) = providers(probe(tmp_path, loading), seconds)
    assert (found.subject, found.state) == ("CPUExecutionProvider", "broken")
    assert found.found == f"is listed, but does not load: {told}"
    assert "or leave cpu as a target" in found.remedy


def test_a_provider_that_loads(tmp_path: Path) -> None:
    found = Finding("CPUExecutionProvider", "fine", "loads and runs")
    assert list(providers(probe(tmp_path, "pass"))) == [found]


def test_a_runtime_that_cannot_be_imported_is_told() -> None:
    (found,) = providers(("-c", "import no_such_runtime"))
    assert found.state == "broken"
    assert found.found.endswith("No module named 'no_such_runtime'")


def test_the_command_on_the_path(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    assert command(str(here / "drupe"), here).state == "fine"
    assert command(None, here).found == "no `drupe` on the PATH"
    found = command(str(other / "drupe"), here)
    assert found.found == f"`drupe` on the PATH is another: {other / 'drupe'}"
    assert found.remedy == f"Put {here} first on the PATH, or write {here / 'drupe'}."


def test_python_memory_and_disk(tmp_path: Path) -> None:
    assert python((3, 10)).state == "broken"
    assert python((3, 11)).state == "fine"
    assert memory(8 * 10**9, 10**9).found == "1.0 GB free of 8.0 GB"
    assert memory(8 * 10**9, 0).found == "8.0 GB"
    assert memory(0, 0).state == "note"
    assert "GB free at" in disk("cache's disk", tmp_path / "not" / "yet").found


def test_instruction_sets_as_three_systems_tell_them() -> None:
    assert from_cpuinfo("flags\t\t: fpu avx2 avx512f\nother : sve\n") == ["AVX2", "AVX-512"]
    assert from_cpuinfo("Features\t: fp asimd asimddp i8mm\n") == ["NEON", "dot product", "I8MM"]
    assert from_sysctl("hw.optional.neon: 1\nhw.optional.avx2_0: 0\n") == ["NEON"]


def test_a_token_is_seen_and_not_told(tmp_path: Path) -> None:
    secret = "hf_" + "s" * 34
    told = list(hub({"HF_HOME": str(tmp_path), "HF_TOKEN": secret, "HF_HUB_OFFLINE": "1"}))
    assert secret not in repr(told)
    assert [each.found for each in told][1:] == [
        "HF_TOKEN is set", "HF_HUB_OFFLINE set: nothing is downloaded",
    ]  # fmt: skip
    assert list(hub({"HF_HOME": str(tmp_path)}))[1].found == "none"
    (tmp_path / "token").write_text(secret)
    told = list(hub({"HF_HOME": str(tmp_path)}))
    assert told[1].found == "there is one from `hf auth login`"
    assert secret not in repr(told)


def test_the_cache_is_counted_and_left_alone(workspace: Workspace) -> None:
    assert cached(workspace.cache).found.startswith("none yet at ")
    workspace.run()
    assert cached(workspace.cache) == Finding("cache", "fine", f"2 results at {workspace.cache}")
    manifest = next(workspace.cache.glob("steps/*/manifest"))
    manifest.write_text(manifest.read_text().replace('"format":3', '"format":0'))
    (workspace.cache / "work" / ("0" * 64)).mkdir(parents=True)
    before = tree(workspace.cache)
    found = cached(workspace.cache)
    assert found.state == "note"
    assert "1 steps begun and not finished, 1 of them of no use" in found.found
    assert tree(workspace.cache) == before


def test_what_cannot_be_looked_at_does_not_end_the_looks() -> None:
    findings: list[Finding] = []
    with looking_at("disk", findings):
        raise PermissionError(13, "Permission denied")
    assert findings[0].found == "cannot be looked at: [Errno 13] Permission denied"


def test_the_table_and_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("\nNothing is broken.\n")
    for subject in ("Python", "cores", "memory", "drupe", "[cpu]", "cache"):
        assert f" {subject} " in shown
    assert list(tmp_path.iterdir()) == [], "it changes nothing"
    assert table([Finding("a", "broken", "b", "c")]) == ["✗ a  b", "     -> c"]
