"""What is chosen for which machine, and that every choice has its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.core.model import Model
from drupe.core.target import PROVIDERS, Target
from drupe.cost import machine as reading
from drupe.cost.machine import CPU, Machine, nvidia_gpus, physical_cores, read_machine
from drupe.cost.rules import CUDA, DIRECTML, RULES, WEBGPU, When, choose, export_of, target_of
from drupe.doctor.finding import Finding
from drupe.export.passes import LOADABLE, ExportGenAI

GB = 10**9
SERVER = {"avx2", "fma", "avx512f", "avx512_vnni", "amx_tile", "amx_int8"}


def machine(*providers: str, **fields: Any) -> Machine:
    usual: dict[str, Any] = {
        "processor": "x86_64",
        "instructions": frozenset(SERVER),
        "cores": 8,
        "memory_bytes": 32 * GB,
        "providers": (*providers, CPU),
    }
    return Machine(**{**usual, **fields})


def x86(*instructions: str, **fields: Any) -> Machine:
    return machine(instructions=frozenset(instructions), **fields)


def arm(*instructions: str, **fields: Any) -> Machine:
    return machine(processor="aarch64", instructions=frozenset(instructions), **fields)


# machine -> (provider, precision, block size, accuracy level, threads)
TABLE = {
    "server with AMX": (machine(), (CPU, "int4", 32, 4, 8)),
    "two cores with VNNI": (x86("avx2", "avx512_vnni", cores=2), (CPU, "int4", 32, 4, 2)),
    "laptop with AVX-VNNI": (x86("avx2", "avx_vnni", cores=4), (CPU, "int4", 32, 4, 4)),
    "desktop with AVX2 alone": (x86("avx2", "fma"), (CPU, "int4", 32, 4, 8)),
    "x86 before AVX2": (x86(), (CPU, "int4", 32, 0, 8)),
    "ARM with dot product": (arm("asimd", "asimddp"), (CPU, "int4", 32, 4, 8)),
    "ARM with NEON alone": (arm("asimd", cores=4), (CPU, "int4", 32, 0, 4)),
    "little board": (
        arm("asimd", "asimddp", cores=4, memory_bytes=2 * GB),
        (CPU, "int4", 128, 4, 4),
    ),
    "memory that nobody tells": (machine(memory_bytes=0), (CPU, "int4", 32, 4, 8)),
    "NVIDIA": (machine(CUDA, gpus=("NVIDIA X",)), (CUDA, "int4", 32, 0, None)),
    "NVIDIA whose provider does not load": (machine(gpus=("NVIDIA X",)), (CPU, "int4", 32, 4, 8)),
    "Windows with a GPU": (machine(DIRECTML), (DIRECTML, "int4", 32, 0, None)),
    "CUDA before DirectML": (machine(DIRECTML, CUDA), (CUDA, "int4", 32, 0, None)),
    "WebGPU": (machine(WEBGPU), (WEBGPU, "int4", 32, 4, None)),
}
SETTINGS = ("provider", "precision", "int4_block_size", "int4_accuracy_level", "threads")


@pytest.mark.parametrize("name", TABLE)
def test_what_is_chosen_for_which_machine(name: str) -> None:
    given, expected = TABLE[name]
    choices = choose(given)
    assert tuple(choices[setting].value for setting in SETTINGS) == expected
    assert choices["passes"].value == ("ModelBuilder",)
    assert all(len(choice.reason) > 20 for choice in choices.values())


@pytest.mark.parametrize("name", TABLE)
def test_what_is_chosen_is_an_export_that_is_not_refused(name: str, tmp_path: Path) -> None:
    given, _ = TABLE[name]
    choices = choose(given)
    step = export_of(choices, checkpoint(tmp_path, "LlamaForCausalLM"))
    assert step.refusal("hf", target_of(choices)) is None
    assert step.precision in LOADABLE[step.target.short_provider]
    assert step.rounding == "mse"


def test_a_family_that_only_the_builder_knows_gets_what_the_builder_does(tmp_path: Path) -> None:
    step = export_of(choose(machine()), checkpoint(tmp_path, "NemotronForCausalLM"))
    assert step.rounding == "rtn"
    assert (step.precision, step.int4_block_size) == ("int4", 32)


def checkpoint(folder: Path, architecture: str) -> Model:
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return Model("hf", folder, "")


def test_the_table_decides_each_setting_on_every_machine() -> None:
    for setting in dict.fromkeys(rule.setting for rule in RULES):
        rules = [rule for rule in RULES if rule.setting == setting]
        assert rules[-1].when == When(), setting
        assert len({(rule.when, str(rule.value)) for rule in rules}) == len(rules)
    known = {*ExportGenAI.model_fields, *Target.model_fields, "passes"}
    assert {rule.setting for rule in RULES} <= known
    assert {rule.when.loads for rule in RULES if rule.when.loads} <= set(PROVIDERS)
    used = {rule for given, _ in TABLE.values() for rule in _applied(given)}
    assert used == set(RULES), "a rule that no machine of the table above shows"


def _applied(given: Machine) -> set[Any]:
    reasons = {choice.reason for choice in choose(given).values()}
    return {rule for rule in RULES if rule.reason in reasons}


def test_this_machine_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [Finding(CUDA, "broken", "does not load"), Finding(CPU, "fine", "loads and runs")]
    monkeypatch.setattr(reading, "loaded_providers", lambda: loads)
    found = read_machine()
    assert found.providers == (CPU,)
    assert found.cores >= 1
    assert found.processor
    assert str(found.cores) in found.told


def test_cores_that_share_their_arithmetic_count_once(tmp_path: Path) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    (tmp_path / "cpufreq").mkdir()
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "nowhere") == 0


def test_gpus_are_told_by_their_driver(tmp_path: Path) -> None:
    folder = tmp_path / "0000:01:00.0"
    folder.mkdir()
    (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 100\n")
    assert nvidia_gpus(tmp_path) == ("NVIDIA H200",)
    assert nvidia_gpus(tmp_path / "nowhere") == ()
