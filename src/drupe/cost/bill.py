"""What an export will consist of, in numbers: its files, its products, its caches.  Light.

A bill is written from headers by `cost.draw_up`, in a process of its own (it takes onnx_ir); what
an export will take in bytes, memory and time is read off it here and in `cost.prediction`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class Product:
    """A product of activations with a matrix of weights, as the runtime computes it.

    operator: MatMulNBits, MatMul or FusedMatMul (the matrix row by row). rows, columns: of the
    matrix, so that `columns` values go in and `rows` come out. bits: 0 for floats. level: the
    accuracy level of MatMulNBits. dtype: of the activations ("F32").
    """

    operator: str
    rows: int
    columns: int
    bits: int = 0
    block_size: int = 0
    symmetric: bool = True
    level: int = 0
    dtype: str = "F32"

    @property
    def weight_bytes(self) -> int:
        """How many bytes its weights have, scales and zero points with them."""
        of_float = 4 if self.dtype == "F32" else 2
        if not self.bits:
            return self.rows * self.columns * of_float
        blocks = -(-self.columns // self.block_size)
        codes = blocks * self.block_size * self.bits // 8
        zero_points = 0 if self.symmetric else -(-blocks * self.bits // 8)
        return self.rows * (codes + blocks * of_float + zero_points)


@dataclass(frozen=True, order=True)
class Attention:
    """A GroupQueryAttention: its heads, and how many of them have keys and values of their own.

    window: how many positions back it sees, 0 for all.
    """

    heads: int
    key_value_heads: int
    head_size: int
    window: int = 0
    dtype: str = "F32"

    @property
    def cache_bytes(self) -> int:
        """How many bytes keys and values of one position take."""
        return 2 * self.key_value_heads * self.head_size * (4 if self.dtype == "F32" else 2)


@dataclass(frozen=True)
class Bill:
    """What an export will consist of.

    files: {name: bytes}. exact: whether they are so to the byte. products, attentions: each with
    how often a pass through the model computes it. nodes: how many other nodes there are.
    embedding_bytes: of the table from which tokens are looked up, 0 where it is the head's too.
    """

    files: dict[str, int]
    exact: bool
    products: dict[Product, int] = field(default_factory=dict)
    attentions: dict[Attention, int] = field(default_factory=dict)
    nodes: int = 0
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    embedding_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(self.files.values())

    @property
    def product_bytes(self) -> int:
        """The bytes of all weights that a token is multiplied with."""
        return sum(count * product.weight_bytes for product, count in self.products.items())

    @property
    def cache_bytes(self) -> int:
        """The bytes that one position takes in the caches of all layers."""
        return sum(count * each.cache_bytes for each, count in self.attentions.items())

    def to_json(self) -> dict[str, Any]:
        """Return the bill as plain JSON values."""
        return {
            **vars(self),
            "products": [{**asdict(each), "count": n} for each, n in self.products.items()],
            "attentions": [{**asdict(each), "count": n} for each, n in self.attentions.items()],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Bill:
        """Return the bill that `to_json` wrote."""
        products, attentions = (
            [dict(entry) for entry in value[name]] for name in ("products", "attentions")
        )
        return cls(
            **{
                **value,
                "products": {Product(**each): n for each in products for n in [each.pop("count")]},
                "attentions": {
                    Attention(**each): n for each in attentions for n in [each.pop("count")]
                },
            }
        )
