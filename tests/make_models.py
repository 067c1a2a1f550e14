"""Random checkpoints of 0.1M parameters of the families that people tune, each with a tokenizer.

    python -m tests.make_models FOLDER     writes each family as a folder of its own

They differ in what an exporter or a merger can get wrong: tied embeddings, heads that share keys,
biases of the attention (Qwen 2), norms of queries and keys (Qwen 3).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.make_tokenizers import save

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Ten times the usual: the logits of so small a model would else be nearly equal.
    "initializer_range": 0.2,
}


def _llama(tied: bool, sizes: dict[str, Any]) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=tied, **sizes))


def _qwen2(tied: bool, sizes: dict[str, Any]) -> PreTrainedModel:
    model = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=tied, **sizes))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zeros until trained: then a lost bias would not be missed
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def _qwen3(tied: bool, sizes: dict[str, Any]) -> PreTrainedModel:
    # Heads as wide as Qwen 3's: more than hidden_size / num_attention_heads.
    model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=tied, head_dim=32, **sizes))
    for name, parameter in model.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):  # ones until trained
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    return model


# {name: (how its network is made, whether embeddings and head are one, kind of tokenizer)}
FAMILIES = {
    "llama": (_llama, False, "llama3"),
    "llama-tied": (_llama, True, "llama2"),
    "qwen2-tied": (_qwen2, True, "qwen2"),
    "qwen3-tied": (_qwen3, True, "qwen2"),
}


def make(
    family: str,
    folder: Path,
    *,
    tokenizer: str | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Write the checkpoint of a family into `folder`, and return that.

    tokenizer: its kind, in place of the family's own.
    """
    network, tied, usual = FAMILIES[family]
    save(tokenizer or usual, folder)
    made = AutoTokenizer.from_pretrained(folder)  # its class may add tokens of its own
    special = {
        "bos_token_id": made.bos_token_id,
        "eos_token_id": made.eos_token_id,
        "pad_token_id": made.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network(tied, {**SIZES, **special, "vocab_size": len(made)}).to(dtype)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for name in FAMILIES:
        make(name, Path(sys.argv[1]) / name)
