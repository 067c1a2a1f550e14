"""A random Phi-3 of 0.1M parameters with a byte-level tokenizer, made in half a second."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY_SIZE = 400
CONTEXT_LENGTH = 128
BEGIN, END, PADDING = "<s>", "<|endoftext|>", "<|pad|>"
TEXTS = (
    "### Text: The butterflies made him upbeat.\n### The tone is:\njoy",
    "### Text: I looked hopeless and sank into despair.\n### The tone is:\nsadness",
    "### Text: That afternoon, the radio reported that the bull charged.\n### The tone is:\nfear",
    "### Text: They shouted at us for no reason at all!\n### The tone is:\nanger",
)


def make_tokenizer(*, begin: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of exactly VOCABULARY_SIZE tokens.

    begin: whether it has the habit of putting BEGIN before a text, as Llama's and Phi-3's have.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BEGIN, END, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # What the texts did not fill, so that the size never depends on the trainer.
    missing = VOCABULARY_SIZE - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|unused{number}|>" for number in range(missing)])
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PADDING
    )


def make_tiny_phi3(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    tie_word_embeddings: bool = False,
    begin: bool = False,
    seed: int = 0,
    hidden_size: int = 64,
    intermediate_size: int = 128,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 4,
    num_key_value_heads: int = 2,
) -> Path:
    """Write a Hugging Face folder: Phi3ForCausalLM (safetensors of `dtype`) with a tokenizer.

    The same arguments give the same weights. Returns `folder`.
    """
    tokenizer = make_tokenizer(begin=begin)
    config = Phi3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=CONTEXT_LENGTH,
        original_max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        tie_word_embeddings=tie_word_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Phi3ForCausalLM(config).to(dtype)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
