"""Which tensors of a checkpoint a decoder's matrices are made of, by their headers.  Light.

Names are those of transformers' models. Families differ in what they join: Phi-3 stores queries,
keys and values as one matrix, and gate and up as one; the others apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from drupe.checkpoint.header import TensorSpec
from drupe.core.errors import Refused
from drupe.export.decoder import Decoder
from drupe.export.placement import Matrix, Piece

FLOATS = ("F32", "BF16", "F16")
EMBEDDING = "model.embed_tokens.weight"
COMPUTED = "rotary_emb.inv_freq"  # what older checkpoints keep of the rotary embedding


# Those of a layer, by the place where they are.
NORMS = {
    "pre": ("input_layernorm", "post_attention_layernorm"),
    "sandwich": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "post": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


class Parts:
    """Finds the matrices of a decoder among tensors, and checks their shapes.

    Every method raises Refused for a tensor that is missing, of a shape that the config does not
    describe, or of a type that is no float.
    """

    def __init__(
        self, decoder: Decoder, specs: Mapping[str, TensorSpec], where: str = "checkpoint"
    ) -> None:
        self._decoder, self._specs, self._where = decoder, specs, where
        self.used: set[str] = set()

    def embedding(self) -> Matrix:
        """Return the embedding: (vocabulary, hidden)."""
        return self._matrix(EMBEDDING, self._decoder.vocabulary, self._decoder.hidden)

    def head(self) -> Matrix:
        """Return the output layer: (vocabulary, hidden), the factor of logits folded in."""
        decoder = self._decoder
        name = EMBEDDING if decoder.tied else "lm_head.weight"
        return self._matrix(name, decoder.vocabulary, decoder.hidden, factor=decoder.logits_factor)

    def head_bias(self) -> Matrix | None:
        """Return the output layer's bias, if there is one."""
        return self._vector_if_there("lm_head.bias", self._decoder.vocabulary)

    def norm(self, name: str) -> Matrix:
        """Return the weight of a norm: (hidden, 1)."""
        return self._matrix(
            f"{name}.weight", self._decoder.hidden, 1, offset=self._decoder.norm_offset
        )

    def head_norms(self, index: int) -> tuple[Matrix, Matrix] | None:
        """Return the norms of queries and keys: (head_size, 1) each, or of all heads at once."""
        names = [f"model.layers.{index}.self_attn.{side}_norm.weight" for side in "qk"]
        if names[0] not in self._specs:
            return None
        decoder, found = self._decoder, []
        for name, width in zip(names, (decoder.query_width, decoder.key_width), strict=True):
            rows = decoder.head_size if self._rows(name) == decoder.head_size else width
            found.append(self._matrix(name, rows, 1, offset=decoder.norm_offset))
        return found[0], found[1]

    def qkv(self, index: int) -> Matrix:
        """Return queries, keys and values, one below the other."""
        return self._joined(index, "weight", self._decoder.hidden)

    def qkv_bias(self, index: int) -> Matrix | None:
        """Return their biases, if there are any."""
        prefix = f"model.layers.{index}.self_attn"
        if not {f"{prefix}.q_proj.bias", f"{prefix}.qkv_proj.bias"} & self._specs.keys():
            return None
        return self._joined(index, "bias", 1)

    def output(self, index: int) -> Matrix:
        """Return the attention's output matrix: (hidden, query width)."""
        decoder = self._decoder
        return self._matrix(
            f"model.layers.{index}.self_attn.o_proj.weight",
            decoder.hidden,
            decoder.query_width,
            factor=decoder.branch_factor,
        )

    def output_bias(self, index: int) -> Matrix | None:
        """Return its bias, if there is one."""
        return self._vector_if_there(
            f"model.layers.{index}.self_attn.o_proj.bias",
            self._decoder.hidden,
            self._decoder.branch_factor,
        )

    def mlp(self, index: int, side: str) -> Matrix:
        """Return "gate" or "up": (intermediate, hidden), or "down": (hidden, intermediate)."""
        decoder, prefix = self._decoder, f"model.layers.{index}.mlp"
        if side == "down":
            return self._matrix(
                f"{prefix}.down_proj.weight",
                decoder.hidden,
                decoder.intermediate,
                factor=decoder.branch_factor,
            )
        joined = f"{prefix}.gate_up_proj.weight"
        if joined in self._specs:
            whole = self._matrix(joined, 2 * decoder.intermediate, decoder.hidden)
            first = 0 if side == "gate" else decoder.intermediate
            return Matrix((Piece(joined, first, first + decoder.intermediate),), whole.columns)
        return self._matrix(f"{prefix}.{side}_proj.weight", decoder.intermediate, decoder.hidden)

    def mlp_bias(self, index: int, side: str) -> Matrix | None:
        """Return the bias of one of the three, if there is one."""
        down = side == "down"
        return self._vector_if_there(
            f"model.layers.{index}.mlp.{side}_proj.bias",
            self._decoder.hidden if down else self._decoder.intermediate,
            self._decoder.branch_factor if down else 1.0,
        )

    def check(self) -> None:
        """Look for every matrix of the decoder."""
        self.embedding()
        self.head()
        self.head_bias()
        self.norm("model.norm")
        for index in range(len(self._decoder.layers)):
            for find in (self.qkv, self.qkv_bias, self.head_norms, self.output, self.output_bias):
                find(index)
            for side in ("gate", "up", "down"):
                self.mlp(index, side)
                self.mlp_bias(index, side)
            for name in NORMS[self._decoder.norms]:
                self.norm(f"model.layers.{index}.{name}")

    def unused(self) -> list[str]:
        """Return the names of tensors that no method has given out, but for what is computed."""
        left = self._specs.keys() - self.used
        return sorted(name for name in left if not name.endswith(COMPUTED))

    def _joined(self, index: int, kind: str, columns: int) -> Matrix:
        decoder, prefix = self._decoder, f"model.layers.{index}.self_attn"
        name = f"{prefix}.qkv_proj.{kind}"
        if name in self._specs:
            return self._matrix(name, decoder.query_width + 2 * decoder.key_width, columns)
        widths = (decoder.query_width, decoder.key_width, decoder.key_width)
        pieces = [
            self._matrix(f"{prefix}.{side}_proj.{kind}", width, columns).pieces[0]
            for side, width in zip("qkv", widths, strict=True)
        ]
        return Matrix(tuple(pieces), columns)

    def _vector_if_there(self, name: str, rows: int, factor: float = 1.0) -> Matrix | None:
        return self._matrix(name, rows, 1, factor=factor) if name in self._specs else None

    def _rows(self, name: str) -> int:
        shape = self._specs[name].shape
        return shape[0] if shape else 0

    def _matrix(
        self, name: str, rows: int, columns: int, *, factor: float = 1.0, offset: float = 0.0
    ) -> Matrix:
        spec = self._specs.get(name)
        if spec is None:
            raise Refused(
                self._where,
                f'lacks the tensor "{name}", which its config.json asks for',
                "Give the whole checkpoint, with the config.json that belongs to it.",
            )
        expected = (rows,) if columns == 1 else (rows, columns)
        if spec.shape != expected:
            raise Refused(
                self._where,
                f'has "{name}" of the shape {list(spec.shape)}; its config.json asks for '
                f"{list(expected)}",
                "Give the config.json that belongs to the weights.",
            )
        if spec.dtype not in FLOATS:
            raise Refused(
                self._where,
                f'has "{name}" in {spec.dtype}; drupe exports {", ".join(FLOATS)}',
                "Give the model in bfloat16, float16 or float32.",
            )
        self.used.add(name)
        return Matrix((Piece(name, 0, rows),), columns, factor, offset)
