"""How a model is best made for a machine: a table of rules, each with its reason.  Light.

For each setting the first rule that applies decides; the last one of each applies always. It is
where a search begins, and what is used where nobody searches: what it cannot know is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drupe.core.model import Model
from drupe.core.target import Target
from drupe.cost.machine import CPU, Machine
from drupe.export.passes import OWN_FIELDS, ExportGenAI, exporter_of

CUDA, DIRECTML, WEBGPU = "CUDAExecutionProvider", "DmlExecutionProvider", "WebGpuExecutionProvider"
GPUS = (CUDA, DIRECTML, WEBGPU)
LITTLE_MEMORY = 4 * 10**9


@dataclass(frozen=True)
class When:
    """To which machines a rule applies: those that meet everything that is named here.

    loads: a provider that loads. on: the providers of which one was chosen. has: instructions of
    which one is there. memory_below: bytes.
    """

    loads: str = ""
    on: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    memory_below: int = 0

    def applies(self, machine: Machine, provider: str) -> bool:
        """Return whether a machine, of which `provider` was chosen, meets it all."""
        return (
            (not self.loads or self.loads in machine.providers)
            and (not self.on or provider in self.on)
            and (not self.has or bool(machine.instructions & set(self.has)))
            and (not self.memory_below or 0 < machine.memory_bytes < self.memory_below)
        )


@dataclass(frozen=True)
class Rule:
    """A setting, its value where `when` applies, and why. A value may be made of the machine."""

    setting: str
    value: Any
    when: When
    reason: str


def _cores(machine: Machine) -> int:
    return machine.cores


RULES: tuple[Rule, ...] = (
    Rule("provider", CUDA, When(loads=CUDA), "an NVIDIA GPU is here and its provider loads"),
    Rule("provider", DIRECTML, When(loads=DIRECTML), "DirectML loads, for a GPU of any maker"),
    Rule("provider", WEBGPU, When(loads=WEBGPU), "WebGPU loads, for a GPU of any maker"),
    Rule("provider", CPU, When(), "no provider of a GPU loads here"),
    Rule(
        "precision",
        "int4",
        When(on=(CPU,)),
        "each token reads all weights from memory, which is what takes the time: fewest bits, of "
        "those that have fast kernels, are fastest and smallest",
    ),
    Rule(
        "precision",
        "int4",
        When(),
        "each token reads all weights from the GPU's memory: fewest bits are fastest and smallest",
    ),
    Rule(
        "int4_block_size",
        128,
        When(memory_below=LITTLE_MEMORY),
        "there is little memory: a scale for 128 weights takes a quarter of a bit each, one for "
        "32 a whole bit; it is a little faster, and further from the weights",
    ),
    Rule(
        "int4_block_size",
        32,
        When(),
        "the smallest block that all kernels are fast on is the nearest to the weights",
    ),
    Rule(
        "int4_accuracy_level",
        4,
        When(on=(CPU,), has=("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")),
        "the processor multiplies 8-bit integers at once, and activations rounded to them hardly "
        "move what 4-bit weights give",
    ),
    Rule(
        "int4_accuracy_level",
        4,
        When(on=(CPU,), has=("avx2", "avx512f")),
        "products of 8-bit integers are faster than those of floats with AVX2 too",
    ),
    Rule(
        "int4_accuracy_level",
        4,
        When(on=(WEBGPU,)),
        "the shaders of WebGPU multiply 8-bit integers",
    ),
    Rule(
        "int4_accuracy_level",
        0,
        When(),
        "it has no instruction for products of 8-bit integers that the kernels would use: left to "
        "the runtime",
    ),
    Rule("threads", None, When(on=GPUS), "the GPU computes: left to the runtime"),
    Rule(
        "threads",
        _cores,
        When(),
        "one for each core that may be used; two on one core share its arithmetic and gain nothing",
    ),
    Rule(
        "rounding",
        "mse",
        When(),
        "the least squared error of each block costs time once, at the export, and none after",
    ),
    Rule(
        "passes",
        ("ModelBuilder",),
        When(),
        "one export makes it: it rounds the weights and writes the graph",
    ),
)


@dataclass(frozen=True)
class Choice:
    """What a rule chose, and why."""

    value: Any
    reason: str


def choose(machine: Machine) -> dict[str, Choice]:
    """Return {setting: choice} for a machine, in the order of the table."""
    found: dict[str, Choice] = {}
    provider = CPU
    for rule in RULES:
        if rule.setting in found or not rule.when.applies(machine, provider):
            continue
        value = rule.value(machine) if callable(rule.value) else rule.value
        found[rule.setting] = Choice(value, rule.reason)
        provider = found["provider"].value
    return found


def target_of(choices: Mapping[str, Choice]) -> Target:
    """Return the target that was chosen."""
    return Target(provider=choices["provider"].value, threads=choices["threads"].value)


def export_of(choices: Mapping[str, Choice], source: Model) -> ExportGenAI:
    """Return the export that was chosen.

    A family that is exported by ONNX Runtime GenAI's builder does without what that does not know.
    """
    fields = {
        name: choice.value for name, choice in choices.items() if name in ExportGenAI.model_fields
    }
    if exporter_of(source) == "genai":
        fields = {name: value for name, value in fields.items() if name not in OWN_FIELDS}
    return ExportGenAI(target=target_of(choices), **fields)
