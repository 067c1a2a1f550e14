"""What is told of a model: plain values, which a table and JSON are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Weight:
    """A stored tensor.

    dtype: "bfloat16", or "int4" for codes of a grid. parameters: how many of the model's values it
    holds; 0 for what only helps to read others (scales, zero points, tables of angles).
    """

    name: str
    dtype: str
    parameters: int
    size_bytes: int
    part: str


@dataclass(frozen=True)
class Share:
    """What the tensors of one part, or of one type, take together."""

    name: str
    tensors: int
    parameters: int
    size_bytes: int

    @property
    def bits_per_weight(self) -> float | None:
        """Bits that a parameter takes, its share of scales with it; None without parameters."""
        return 8 * self.size_bytes / self.parameters if self.parameters else None

    @classmethod
    def of(cls, name: str, weights: Iterable[Weight]) -> Share:
        """Return the sums of some tensors."""
        listed = list(weights)
        return cls(
            name,
            len(listed),
            sum(weight.parameters for weight in listed),
            sum(weight.size_bytes for weight in listed),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "bits_per_weight": self.bits_per_weight}


@dataclass(frozen=True)
class Weights:
    """All tensors, summed up. files: {name: bytes} of those that hold them.

    bits_per_weight: of all that is needed to have the parameters, tables of angles left out.
    """

    total: Share
    bits_per_weight: float | None
    parts: tuple[Share, ...]
    dtypes: tuple[Share, ...]
    files: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "parameters": self.total.parameters,
            "tensors": self.total.tensors,
            "size_bytes": self.total.size_bytes,
            "bits_per_weight": self.bits_per_weight,
            "parts": [share.to_json() for share in self.parts],
            "dtypes": [share.to_json() for share in self.dtypes],
            "files": self.files,
        }


@dataclass(frozen=True)
class Family:
    """What kind of model it is, and who can export it.

    architecture: the class that config.json names. type: its name in ONNX Runtime GenAI, or
    config.json's model_type. exporter: "drupe", "onnxruntime-genai" or None; why: of the last two.
    """

    architecture: str
    type: str
    exporter: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Sizes:
    """A decoder in numbers, as far as its config tells them."""

    layers: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    head_size: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    tied: bool | None = None


@dataclass(frozen=True)
class Adapter:
    """What adapter_config.json says. method: "LoRA", "QLoRA", "DoRA" or PEFT's own word."""

    method: str
    rank: int | None
    alpha: float | None
    targets: tuple[str, ...]
    base: str | None
    quantized_base: str | None = None


@dataclass(frozen=True)
class GridOfNodes:
    """Quantized nodes that are alike. accuracy_level: of MatMulNBits, else None."""

    operator: str
    bits: int
    block_size: int
    symmetric: bool
    accuracy_level: int | None
    nodes: int


@dataclass(frozen=True)
class SlowNodes:
    """Nodes that ONNX Runtime computes by the same slow path. first: the name of one."""

    why: str
    nodes: int
    first: str


@dataclass(frozen=True)
class Graph:
    """What an ONNX graph says of itself, and what genai_config.json says of how it is run.

    activations: type of the caches, or of the output. threads: None: the runtime's own default.
    """

    file: str
    producer: str
    opset: int | None
    operators: dict[str, int]
    grids: tuple[GridOfNodes, ...]
    slow: tuple[SlowNodes, ...]
    activations: str | None
    provider: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Tokenizer:
    """What lies there of a tokenizer. file: the one that holds its vocabulary."""

    kind: str | None
    file: str | None
    vocabulary: int | None
    added: int | None
    chat_template: str | None


@dataclass(frozen=True)
class Licence:
    """What a model's licence is called, and the file that says so."""

    name: str
    file: str


@dataclass(frozen=True)
class Inspection:
    """All that is told of one model. kind: as in `core.model.KINDS`."""

    path: str
    kind: str
    weights: Weights
    family: Family | None = None
    sizes: Sizes | None = None
    quantization: str | None = None
    adapter: Adapter | None = None
    graph: Graph | None = None
    tokenizer: Tokenizer | None = None
    licence: Licence | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "weights": self.weights.to_json()}
