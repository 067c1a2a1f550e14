"""Train the tokenizer and the tiny Phi-3 model from scratch on the mini-stories.

The result is a Hugging Face folder: ``Phi3ForCausalLM`` in bfloat16, a byte-level BPE tokenizer
and a generation config. The stories never show the four tone words; each of them is nevertheless
one token, so that the task can be scored by one log-probability per tone.

Run ``python pretrain.py`` to write ``../model`` (minutes on two cores).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from lexicon import TONES
from stories import STORY_COUNT, stories
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, Phi3Config, Phi3ForCausalLM

END_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"
VOCABULARY_SIZE = 1540
CONTEXT_LENGTH = 512
TOKENIZER_STORIES = 12_000
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Text: ' + message['content'] + '\\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '### The tone is:\\n' }}{% endif %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### The tone is:\\n' + message['content'] + '" + END_TOKEN + "' }}"
    "{% endif %}{% endfor %}"
)


def train_byte_pairs(texts: list[str], size: int) -> dict:
    """Train a byte-level BPE vocabulary of ``size`` tokens; return it as a JSON object."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


def add_word(description: dict, word: str) -> None:
    """Append the merges that make ``word`` one token, at the lowest priority."""
    vocabulary = description["model"]["vocab"]
    tokenizer = Tokenizer.from_str(json.dumps(description))
    pieces = tokenizer.encode(word).tokens
    whole = pieces[0]
    for piece in pieces[1:]:
        description["model"]["merges"].append([whole, piece])
        whole += piece
        vocabulary.setdefault(whole, len(vocabulary))


def build_tokenizer(texts: list[str], size: int = VOCABULARY_SIZE) -> Tokenizer:
    """Train the tokenizer so that it has exactly ``size`` tokens, tone words included."""
    trained_size = size - 16
    while True:
        description = train_byte_pairs(texts, trained_size)
        for word in TONES:
            add_word(description, word)
        missing = size - len(description["model"]["vocab"])
        if missing == 0:
            return Tokenizer.from_str(json.dumps(description))
        trained_size += missing


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": END_TOKEN,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_TOKEN,
        "model_max_length": CONTEXT_LENGTH,
        "pad_token": PAD_TOKEN,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": END_TOKEN,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def check_tone_words(folder: Path) -> None:
    """Raise unless every tone word is one token right after a newline."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("### The tone is:\n")["input_ids"]
    for word in TONES:
        whole = tokenizer(f"### The tone is:\n{word}")["input_ids"]
        if whole[:-1] != prompt:
            raise ValueError(f"The tone word {word!r} is not one token after a newline")


def story_tokens(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """Return all stories as one row of token ids, each story ended by the end token."""
    end = tokenizer.token_to_id(END_TOKEN)
    row: list[int] = []
    for encoding in tokenizer.encode_batch(texts):
        row += encoding.ids
        row.append(end)
    return torch.tensor(row)


def build_model(tokenizer: Tokenizer, hidden: int, layers: int) -> Phi3ForCausalLM:
    """Return a freshly initialised Phi-3 model for the tokenizer."""
    end = tokenizer.token_to_id(END_TOKEN)
    config = Phi3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=CONTEXT_LENGTH,
        original_max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=tokenizer.token_to_id(PAD_TOKEN),
        attention_dropout=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        tie_word_embeddings=False,
        rms_norm_eps=1e-5,
    )
    return Phi3ForCausalLM(config)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: a short linear rise, then a cosine fall to 5 %."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(model: Phi3ForCausalLM, row: torch.Tensor, arguments: argparse.Namespace) -> None:
    """Train next-token prediction on blocks cut from random places of the row."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.peak, weight_decay=0.05)
    generator = torch.Generator().manual_seed(arguments.seed)
    model.train()
    start = time.monotonic()
    for step in range(arguments.steps):
        places = torch.randint(
            len(row) - arguments.block, (arguments.batch,), generator=generator
        ).tolist()
        blocks = torch.stack([row[place : place + arguments.block] for place in places])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.peak)
        loss = model(input_ids=blocks, labels=blocks).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == arguments.steps - 1:
            spent = time.monotonic() - start
            print(f"step {step}: loss {loss.item():.3f}, {spent:.0f} s", flush=True)


def renew_tone_rows(model: Phi3ForCausalLM, tokenizer: Tokenizer, seed: int) -> None:
    """Give the tone words, never seen so far, fresh random rows of the usual length.

    Training only ever pushes the output rows of unseen tokens down, all in the same direction.
    Fresh rows (the same for input and output) make the four words as tell-apart as any others;
    they carry no knowledge of the feelings.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = [index for word, index in tokenizer.get_vocab().items() if word.startswith("Ġ")]
    with torch.no_grad():
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            usual = weight[seen].norm(dim=1).median()
            for word in TONES:
                fresh = torch.randn(weight.shape[1], generator=generator)
                weight[tokenizer.token_to_id(word)] = fresh / fresh.norm() * usual


def write_model(model: Phi3ForCausalLM, folder: Path) -> None:
    """Write the model in bfloat16 with its generation config."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=False,
        max_new_tokens=32,
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def main() -> None:
    """Pre-train and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    default_folder = Path(__file__).resolve().parent.parent / "model"
    parser.add_argument("--folder", type=Path, default=default_folder, help="where to write")
    parser.add_argument("--stories", type=int, default=STORY_COUNT, help="number of stories")
    parser.add_argument("--hidden", type=int, default=192, help="hidden size")
    parser.add_argument("--layers", type=int, default=4, help="number of layers")
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    parser.add_argument("--batch", type=int, default=32, help="blocks in a step")
    parser.add_argument("--block", type=int, default=128, help="tokens in a block")
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--seed", type=int, default=7, help="seed of weights and batches")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    texts = list(stories(arguments.stories))
    tokenizer = build_tokenizer(texts[:TOKENIZER_STORIES])
    write_tokenizer(tokenizer, arguments.folder)
    check_tone_words(arguments.folder)
    row = story_tokens(tokenizer, texts)
    model = build_model(tokenizer, arguments.hidden, arguments.layers)
    print(f"{len(row)} tokens, {model.num_parameters()} parameters", flush=True)
    train(model, row, arguments)
    renew_tone_rows(model, tokenizer, arguments.seed)
    write_model(model, arguments.folder)


if __name__ == "__main__":
    main()
