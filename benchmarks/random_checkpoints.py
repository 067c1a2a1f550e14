"""Random checkpoints of real models' shapes: for memory, time and size, never for accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POOL_ELEMENTS = 2**22
APART = 1_000_003  # elements between the beginnings of two tensors; no power of two


@dataclass(frozen=True)
class Shape:
    """A model's class, and what its config.json says; shard_bytes: the size of its files."""

    architecture: str
    config: dict[str, Any]
    tied: bool = False

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])


SHAPES = {
    "smollm2-135m": Shape(
        "LlamaForCausalLM",
        {
            "model_type": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
        },
        tied=True,
    ),
    "qwen2.5-0.5b": Shape(
        "Qwen2ForCausalLM",
        {
            "model_type": "qwen2",
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
        },
        tied=True,
    ),
    "llama-3.2-1b": Shape(
        "LlamaForCausalLM",
        {
            "model_type": "llama",
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        tied=True,
    ),
    "phi-3-mini": Shape(
        "Phi3ForCausalLM",
        {
            "model_type": "phi3",
            "vocab_size": 32064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "sliding_window": 2047,
            "rope_theta": 10000.0,
            "pad_token_id": 0,
        },
    ),
    "qwen2.5-14b": Shape(
        "Qwen2ForCausalLM",
        {
            "model_type": "qwen2",
            "vocab_size": 152064,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
        },
    ),
}


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors by their names."""
    config = shape.config
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim", hidden // heads)
    queries, keys = heads * size, config["num_key_value_heads"] * size
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden)
    }
    for layer in range(shape.layers):
        attention, mlp = (f"model.layers.{layer}.{part}" for part in ("self_attn", "mlp"))
        if shape.architecture == "Phi3ForCausalLM":
            found[f"{attention}.qkv_proj.weight"] = (queries + 2 * keys, hidden)
            found[f"{mlp}.gate_up_proj.weight"] = (2 * intermediate, hidden)
        else:
            for name, width in (("q", queries), ("k", keys), ("v", keys)):
                found[f"{attention}.{name}_proj.weight"] = (width, hidden)
                if shape.architecture == "Qwen2ForCausalLM":
                    found[f"{attention}.{name}_proj.bias"] = (width,)
            for name in ("gate", "up"):
                found[f"{mlp}.{name}_proj.weight"] = (intermediate, hidden)
        found[f"{attention}.o_proj.weight"] = (hidden, queries)
        found[f"{mlp}.down_proj.weight"] = (hidden, intermediate)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = (hidden,)
    found["model.norm.weight"] = (hidden,)
    if not shape.tied:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def make(shape: Shape, folder: Path, tokenizer: Path) -> None:
    """Write a checkpoint in bfloat16 into `folder`, with the tokenizer of another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [shape.architecture],
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
        **shape.config,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    write_random(folder, tensors(shape), 0.02)


def write_random(
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    deviation: float,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write bfloat16 values that repeat after 4 M (what they are does not matter).

    Each tensor begins elsewhere in them: ONNX Runtime keeps matrices that are equal once, and a
    model of equal layers would be smaller in memory, and faster, than any real one.
    """
    import torch

    from drupe.checkpoint.header import TensorSpec
    from drupe.checkpoint.tensors import tensor_bytes
    from drupe.checkpoint.writer import CheckpointWriter

    torch.manual_seed(0)
    pool = tensor_bytes((torch.randn(POOL_ELEMENTS) * deviation).bfloat16())

    def repeated(left: int, begin: int) -> Iterator[memoryview]:
        while left:
            part = pool[begin : begin + left]
            left, begin = left - len(part), 0
            yield part

    specs = [TensorSpec(name, "BF16", shape) for name, shape in shapes.items()]
    with CheckpointWriter(folder, specs, shard_bytes=shard_bytes) as writer:
        for place, spec in enumerate(writer.order):
            begin = 2 * (place * APART % POOL_ELEMENTS)
            writer.write(spec.name, repeated(spec.size_bytes, begin))
