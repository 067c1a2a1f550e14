"""What a decoder is made of, as its config.json and its family tell.  Light: no weights, no torch.

embedding -> layer -> layer -> ... -> norm -> head

layer, by the place of its norms:
  pre        x + attention(norm(x)),       x + mlp(norm(x))            Llama and most others
  sandwich   x + norm(attention(norm(x))), x + norm(mlp(norm(x)))      Gemma 2 and 3
  post       x + norm(attention(x)),       x + norm(mlp(x))            OLMo 2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norms = Literal["pre", "sandwich", "post"]
Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding of positions (Su et al. 2021, arXiv:2104.09864).

    size: values of a head that are turned. kind: "default", "linear", "llama3", "yarn" or
    "longrope", with what each of them needs in `scaling`. original: the context length before it
    was scaled. positions: for how many there are angles.
    """

    size: int
    theta: float
    positions: int
    kind: str = "default"
    scaling: tuple[tuple[str, float | tuple[float, ...]], ...] = ()
    original: int = 0

    @property
    def values(self) -> dict[str, float | tuple[float, ...]]:
        """What the kind needs, by its name in config.json."""
        return dict(self.scaling)


@dataclass(frozen=True)
class Layer:
    """What sets one layer apart. rotary: which table turns its heads, None for none.

    window: how many positions back it sees; None for all.
    """

    rotary: str | None
    window: int | None = None


@dataclass(frozen=True)
class Decoder:
    """A decoder in numbers. Sizes are counts of values, of tokens or of heads."""

    type: str
    vocabulary: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    context: int
    layers: tuple[Layer, ...]
    rotaries: dict[str, Rotary]
    epsilon: float
    activation: Activation
    tied: bool
    norms: Norms = "pre"
    norm_offset: float = 0.0
    embedding_factor: float = 1.0
    branch_factor: float = 1.0
    logits_factor: float = 1.0
    attention_scale: float = 0.0
    attention_cap: float = 0.0
    logits_cap: float = 0.0

    @property
    def query_width(self) -> int:
        """Values of all query heads."""
        return self.heads * self.head_size

    @property
    def key_width(self) -> int:
        """Values of all key heads; of the value heads too."""
        return self.key_value_heads * self.head_size
