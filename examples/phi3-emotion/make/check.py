"""Measure the example: base model, LoRA-tuned model, and (optionally) its int4 ONNX version.

Only plain PyTorch, Transformers and PEFT are used, and for ``--onnx`` ONNX Runtime with the model
builder of ONNX Runtime GenAI. Scoring compares the log-probabilities of the four tone tokens
right after the prompt.

Run ``python check.py --onnx SCRATCH_FOLDER``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lexicon import TONES
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

PROMPT = "### Text: {phrase}\n### The tone is:\n"
EXAMPLE = Path(__file__).resolve().parent.parent
HELD_OUT_FILES: tuple[str, ...] = ("heldout-classification.json", "heldout-patterns.json")
Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSON LINES file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wilson_interval(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    share = hits / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (middle - half) / scale, (middle + half) / scale


def tone_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token number of each tone."""
    return [tokenizer(f"\n{tone}")["input_ids"][-1] for tone in TONES]


def tone_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> np.ndarray:
    """Return the log-probabilities of the tones for each row, from the PyTorch model."""
    scores = []
    model.eval()
    with torch.no_grad():
        for row in rows:
            prompt = tokenizer(PROMPT.format(phrase=row["phrase"]), return_tensors="pt")
            logits = model(input_ids=prompt["input_ids"]).logits[0, -1].float()
            scores.append(logits.log_softmax(-1)[tone_tokens(tokenizer)].numpy())
    return np.stack(scores)


def onnx_tone_scores(
    folder: Path, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> np.ndarray:
    """Return the log-probabilities of the tones for each row, from the ONNX model."""
    import onnxruntime

    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    decoder = settings["model"]["decoder"]
    session = onnxruntime.InferenceSession(str(folder / decoder["filename"]))
    cache_shape = (1, decoder["num_key_value_heads"], 0, decoder["head_size"])
    names = {item.name for item in session.get_inputs()}
    scores = []
    for row in rows:
        numbers = np.array([tokenizer(PROMPT.format(phrase=row["phrase"]))["input_ids"]])
        feeds = {name: np.zeros(cache_shape, "float32") for name in names if "past" in name}
        feeds["input_ids"] = numbers
        feeds["attention_mask"] = np.ones_like(numbers)
        if "position_ids" in names:
            feeds["position_ids"] = np.arange(numbers.shape[1])[None]
        logits = torch.from_numpy(session.run(["logits"], feeds)[0])[0, -1].float()
        scores.append(logits.log_softmax(-1)[tone_tokens(tokenizer)].numpy())
    return np.stack(scores)


def report_accuracy(title: str, scores: np.ndarray, rows: list[Row]) -> None:
    """Print the share of right answers with its interval and the shares of given answers."""
    answers = [TONES[index] for index in scores.argmax(1)]
    hits = sum(answer == row["tone"] for answer, row in zip(answers, rows, strict=True))
    low, high = wilson_interval(hits, len(rows))
    given = ", ".join(f"{tone} {answers.count(tone)}" for tone in TONES)
    share = f"{hits}/{len(rows)} = {hits / len(rows):.1%} ({low:.1%} to {high:.1%})"
    print(f"{title}: {share}; answers: {given}", flush=True)


def word_count_scores(training: list[Row], rows: list[Row]) -> np.ndarray:
    """Return scores of a naive Bayes classifier on words: what the words alone give away."""
    counts = {tone: Counter[str]() for tone in TONES}
    for row in training:
        counts[row["tone"]].update(set(re.findall(r"\w+", row["phrase"].lower())))
    scores = []
    for row in rows:
        words = set(re.findall(r"\w+", row["phrase"].lower()))
        scores.append([sum(math.log(counts[tone][word] + 1) for word in words) for tone in TONES])
    return np.array(scores)


def joined_blocks(
    tokenizer: PreTrainedTokenizerBase, rows: list[Row], size: int, generator: random.Random
) -> torch.Tensor:
    """Join the shuffled texts with end tokens and cut the whole into blocks of ``size``."""
    order = list(rows)
    generator.shuffle(order)
    numbers: list[int] = []
    for row in order:
        text = PROMPT.format(phrase=row["phrase"]) + row["tone"]
        numbers += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    count = len(numbers) // size
    return torch.tensor(numbers[: count * size]).view(count, size)


def padded_batch(
    tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels of a line-by-line batch, padded on the right."""
    texts = [PROMPT.format(phrase=row["phrase"]) + row["tone"] for row in rows]
    lines = [[*numbers, tokenizer.eos_token_id] for numbers in tokenizer(texts)["input_ids"]]
    width = max(len(line) for line in lines)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([line + [pad] * (width - len(line)) for line in lines])
    labels = torch.tensor([line + [-100] * (width - len(line)) for line in lines])
    return ids, labels


def batches_of(
    tokenizer: PreTrainedTokenizerBase, rows: list[Row], arguments: argparse.Namespace
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (ids, labels) of all epochs."""
    generator = random.Random(arguments.seed)
    blocks = joined_blocks(tokenizer, rows, arguments.block, generator)
    for _ in range(arguments.epochs):
        if arguments.strategy == "join":
            for part in blocks[torch.randperm(len(blocks))].split(arguments.batch):
                yield part, part
        else:
            order = generator.sample(rows, len(rows))
            for place in range(0, len(order), arguments.batch):
                yield padded_batch(tokenizer, order[place : place + arguments.batch])


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    arguments: argparse.Namespace,
) -> PreTrainedModel:
    """Train a LoRA adapter on all tokens of the texts; return the merged model."""
    settings = LoraConfig(
        r=64,
        lora_alpha=64,
        lora_dropout=0.1,
        target_modules=["o_proj", "qkv_proj"],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, settings)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, weight_decay=0.0)
    steps = len(list(batches_of(tokenizer, rows, arguments)))
    torch.manual_seed(arguments.seed)
    adapted.train()
    start = time.monotonic()
    for step, (ids, labels) in enumerate(batches_of(tokenizer, rows, arguments)):
        warm = min(1.0, (step + 1) / max(1, arguments.warmup * steps))
        fall = {"constant": 1.0, "linear": 1 - step / steps}.get(
            arguments.scheduler, 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(warm, 1.0) * fall
        loss = adapted(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 40 == 0 or step == steps - 1:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    print(f"Tuning took {time.monotonic() - start:.1f} s", flush=True)
    return adapted.merge_and_unload()


def build_int4(merged: Path, folder: Path) -> None:
    """Run the model builder of ONNX Runtime GenAI: int4 for the processor."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(merged)]
    command += ["-o", str(folder), "-p", "int4", "-e", "cpu", "-c", str(folder / "cache")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare_int4(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: dict[str, list[Row]],
    scratch: Path,
) -> None:
    """Save the tuned model, build its int4 version and count the changed answers."""
    merged, folder = scratch / "merged", scratch / "int4"
    model.to(torch.bfloat16).save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    build_int4(merged, folder)
    model.float()
    for name, rows in held_out.items():
        before = tone_scores(model, tokenizer, rows)
        after = onnx_tone_scores(folder, tokenizer, rows)
        flips = int((before.argmax(1) != after.argmax(1)).sum())
        report_accuracy(f"int4, {name}", after, rows)
        print(f"changed answers, {name}: {flips}/{len(rows)} = {flips / len(rows):.2%}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model", help="model folder")
    parser.add_argument("--onnx", type=Path, help="scratch folder; also check the int4 version")
    parser.add_argument("--strategy", choices=("join", "lines"), default="join")
    parser.add_argument("--block", type=int, default=128, help="tokens in a joined block")
    parser.add_argument("--batch", type=int, default=4, help="blocks (or lines) in a step")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=float, default=0.0, help="share of steps that warm up")
    parser.add_argument("--scheduler", choices=("constant", "linear", "cosine"), default="linear")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    held_out = {name: read_rows(EXAMPLE / "dataset" / name) for name in HELD_OUT_FILES}
    training = read_rows(EXAMPLE / "dataset" / "dataset-classification.json")
    for name, rows in held_out.items():
        report_accuracy(f"word counts, {name}", word_count_scores(training, rows), rows)
        report_accuracy(f"base, {name}", tone_scores(model, tokenizer, rows), rows)
    model = tune(model, tokenizer, training, arguments)
    for name, rows in held_out.items():
        report_accuracy(f"tuned, {name}", tone_scores(model, tokenizer, rows), rows)
    if arguments.onnx:
        compare_int4(model, tokenizer, held_out, arguments.onnx)


if __name__ == "__main__":
    main()
