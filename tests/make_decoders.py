"""Random checkpoints of every family that drupe exports itself, 0.1M parameters each.

    python -m tests.make_decoders FOLDER     writes each one as a folder of its own

Each has what its family is known for, in small: windows of 16 tokens, scaled rotary embeddings,
norms that are not one, biases that are not zero.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig

from tests.make_tokenizers import save

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Ten times the usual: the logits of so small a model would else be nearly equal.
    "initializer_range": 0.2,
}
ORIGINAL = 64  # the context before it was scaled
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}


def _longrope(pairs: int, part: float) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": part,
        "short_factor": [1.0 + 0.1 * pair for pair in range(pairs)],
        "long_factor": [1.0 + 0.5 * pair for pair in range(pairs)],
        "original_max_position_embeddings": ORIGINAL,
    }


# {name: (class without "Config" and "ForCausalLM", or both; fields)}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-biased": (
        "Llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 16, "head_dim": 32}),
    "qwen2": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    ),
    "qwen2.5-long": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "phi3": ("Phi3", {"sliding_window": 16, "num_key_value_heads": 4}),
    "phi3.5": (
        "Phi3",
        {"original_max_position_embeddings": ORIGINAL, "rope_parameters": _longrope(8, 1.0)},
    ),
    "phi4-mini": (
        "Phi3",
        {
            "hidden_size": 128,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": ORIGINAL,
            "rope_parameters": _longrope(8, 0.5),
        },
    ),
    # So few values are turned that no attention does it inside.
    "phi4-narrow": (
        "Phi3",
        {"original_max_position_embeddings": ORIGINAL, "rope_parameters": _longrope(6, 0.75)},
    ),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": (
        "Gemma2",
        {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 24},
    ),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 32,
            "sliding_window": 16,
            "query_pre_attn_scalar": 24,
            "num_hidden_layers": 7,
        },
    ),
    "smollm3": ("SmolLM3", {}),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0156,
            "logits_scaling": 8.0,
            "tie_word_embeddings": True,
        },
    ),
    "olmo2": ("Olmo2", {}),
}
SCALED_TWICE = tuple(name for name in DECODERS if name.startswith(("phi3.5", "phi4")))


def make_decoder(
    name: str, folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, **fields: Any
) -> Path:
    """Write a random checkpoint of a family with a tokenizer into `folder`, and return that."""
    kind, more = DECODERS[name]
    save("qwen2", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = {
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = "Text" if kind == "Gemma3" else ""
    config_class = getattr(transformers, f"{kind}{text}Config")
    settings = {**SIZES, **special, "vocab_size": len(tokenizer), **more, **fields}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{kind}ForCausalLM")(config_class(**settings))
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("norm.weight"):  # ones until trained
                torch.nn.init.uniform_(parameter, 0.3, 1.7)
            if parameter_name.endswith("bias"):  # zeros until trained
                torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config = GenerationConfig(**special)
    model.to(dtype).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for each in DECODERS:
        make_decoder(each, Path(sys.argv[1]) / each)
