"""Fold a LoRA adapter into the weights of its base: W + scale * B A, computed in float32.

Hu et al. 2021 (arXiv:2106.09685), 4.1; scale is alpha / r, or alpha / sqrt(r) with rank-stabilized
LoRA (Kalajdzievski 2023, arXiv:2312.03732). DoRA then gives each row its own length m (Liu et al.
2024, arXiv:2402.09353, 4.1). A merged weight is rounded once, to the type in which
the base is stored; every other tensor is copied byte by byte. All is read, computed and written in
blocks of rows, so the memory does not grow with the model.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drupe.checkpoint.header import TensorSpec
from drupe.checkpoint.quantized_base import QuantizedBase, quantized_base
from drupe.checkpoint.tensors import DTYPES, Checkpoint, open_checkpoint, tensor_bytes
from drupe.checkpoint.writer import CheckpointWriter
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model, model_files, tokenizer_files
from drupe.finetune.adapter_config import (
    WHERE,
    check_base,
    check_settings,
    check_tied,
    read_settings,
)
from drupe.finetune.passes import MergeAdapterWeights
from drupe.finetune.target_modules import OUTPUT_LAYERS

MERGED_DTYPES = ("F32", "BF16", "F16")
# Of a weight at a time, 4 MB in float32, three times over: so little that the largest tensor of a
# model does not matter, and enough to keep the cores busy.
BLOCK_ELEMENTS = 2**20

KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
MAGNITUDE = "base_model.model.{}.lora_magnitude_vector"


@dataclass(frozen=True)
class Pair:
    """The adapter of one linear layer.

    down: A, (r, in). up: B, (out, r). Both as they are stored, mapped to the adapter's file.
    scale: what B A is multiplied with. magnitude: m of DoRA, (out,), or None.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None


@dataclass
class Change:
    """What merging did to the weights.

    changed: tensors of which some stored value differs from the base's. largest_relative: the
    largest norm of a tensor's change, relative to the tensor's norm.
    """

    tensors: int = 0
    changed: int = 0
    largest_relative: float = 0.0
    dtypes: set[str] = field(default_factory=set)


def merge(step: MergeAdapterWeights, model: Model, out: Path, job: Job) -> None:
    """Write the base of the adapter `model` with the adapter folded in below `out`.

    Raises DrupeError before anything is written when the adapter is not plain LoRA on linear
    layers of this base; and when it changes no stored weight.
    """
    if model.base is None:
        raise DrupeError(WHERE, "was given an adapter without its base", "Mend the plan.")
    torch.set_num_threads(job.threads)
    quantized = quantized_base(model.path)
    check_base(
        step.base,
        four_bit=quantized is not None,
        start=quantized.start if quantized else None,
    )
    base = base_weights(model.base.path, step.base, quantized)
    pairs = read_pairs(model.path, base, read_settings(model.base.path / "config.json"))
    with torch.inference_mode():
        change = _write_weights(base, pairs, out, job)
    if not change.changed:
        raise DrupeError(
            WHERE,
            "the merged weights are those of the base, bit for bit: the adapter's changes are "
            f"smaller than the rounding of {', '.join(sorted(change.dtypes))}",
            "Store the base model in float32, or train longer or with a higher learning rate.",
        )
    if change.changed < change.tensors:
        job.warn(
            f"{change.tensors - change.changed} of {change.tensors} adapted tensors did not "
            f"change: the adapter is smaller than the rounding of {', '.join(change.dtypes)} there"
        )
    _copy_other_files(model.base.path, model.path, out)
    job.facts.update(
        merged_tensors=change.tensors,
        dtype=", ".join(sorted(change.dtypes)),
        base="original" if type(base) is Checkpoint else "dequantized",
        largest_relative_change=change.largest_relative,
    )


def base_weights(folder: Path, asked: str, quantized: QuantizedBase | None) -> Checkpoint:
    """Return the weights to fold into: the folder's own, or as they were in training.

    asked: "original", "dequantized", or "auto" for what the adapter was trained on.
    """
    if quantized is None or asked == "original":
        return open_checkpoint(folder)
    from drupe.checkpoint.four_bit import Dequantized

    return Dequantized(folder, quantized)


def read_pairs(adapter: Path, base: Checkpoint, config: Mapping[str, Any]) -> dict[str, Pair]:
    """Return the adapter's matrices by the name of the base tensor that each pair belongs to.

    config: the base's config.json. Raises DrupeError for whatever cannot be merged.
    """
    settings = read_settings(adapter / "adapter_config.json")
    check_settings(settings)
    if config.get("quantization_config"):
        raise DrupeError(
            WHERE,
            "the base model is quantized; folding into rounded weights would round them again",
            "Give the base model in bfloat16, float16 or float32.",
        )
    checkpoint = Checkpoint([adapter / "adapter_model.safetensors"])
    modules, others = _modules(checkpoint)
    magnitudes = {MAGNITUDE.format(module) for module in modules if settings.get("use_dora")}
    if not magnitudes <= set(others):
        raise DrupeError(
            WHERE,
            f'the adapter is DoRA, but lacks "{min(magnitudes - set(others))}"',
            "Save the adapter again.",
        )
    pairs = {}
    for module in modules:
        name = f"{module}.weight"
        _check_target(module, name, base, config)
        pair = _read_pair(checkpoint, module, settings)
        _check_shapes(module, pair, base.spec(name), _rank(module, settings))
        pairs[name] = pair
    for key in set(others) - magnitudes:
        _check_copy(key, checkpoint, base)
    if not any(bool(pair.up.any()) for pair in pairs.values()):
        raise DrupeError(
            WHERE,
            "the adapter has learnt nothing: all its B matrices are zero, as they are at the start",
            "Train it: is the learning rate zero, or were no steps done?",
        )
    return pairs


def _modules(adapter: Checkpoint) -> tuple[list[str], list[str]]:
    """Return the adapted modules, and the keys that are of no pair A and B."""
    sides: dict[str, set[str]] = {}
    others = []
    for key in adapter.names:
        match = KEY.fullmatch(key)
        if match is None:
            others.append(key)
        else:
            sides.setdefault(match["module"], set()).add(match["side"])
    for module, found in sides.items():
        if found != {"A", "B"}:
            raise DrupeError(
                WHERE,
                f'the adapter holds only lora_{found.pop()} of "{module}"',
                "Save the adapter again.",
            )
    if not adapter.names:
        raise DrupeError(WHERE, "the adapter holds no tensors", "Save the adapter again.")
    return list(sides), others


def _check_copy(key: str, adapter: Checkpoint, base: Checkpoint) -> None:
    """Refuse what is not a pair, but for a mere copy of a base tensor.

    PEFT saves the output layer's own weights with the adapter when it is adapted.
    """
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    if name in base:
        copy = adapter.read(key)
        if torch.equal(copy, base.read(name).to(copy.dtype)):
            return
    raise DrupeError(
        WHERE,
        f'cannot merge this adapter: it holds "{key}", which is neither LoRA of a linear layer nor '
        "a copy of the base's tensor",
        "Merge it with PEFT (merge_and_unload), or train plain LoRA on linear layers.",
    )


def _check_target(module: str, name: str, base: Checkpoint, config: Mapping[str, Any]) -> None:
    check_tied([module], config)
    if module.rpartition(".")[2] in OUTPUT_LAYERS and name not in base:
        raise DrupeError(
            WHERE,
            f'the adapter changes "{module}", but its weights are tied to the embedding: folding '
            "it in would change the embedding too",
            f"Train without {module} among target_modules.",
        )
    if name not in base:
        raise DrupeError(
            WHERE,
            f'the adapter changes "{module}", but the base model has no tensor "{name}": it is an '
            "adapter of another model",
            "Give the base model that the adapter was trained on.",
        )


def _read_pair(adapter: Checkpoint, module: str, settings: Mapping[str, Any]) -> Pair:
    down, up = (adapter.read(f"base_model.model.{module}.lora_{side}.weight") for side in "AB")
    name = MAGNITUDE.format(module)
    magnitude = adapter.read(name) if settings.get("use_dora") else None
    if not all(bool(each.isfinite().all()) for each in (down, up, magnitude) if each is not None):
        raise DrupeError(
            WHERE,
            f'the adapter of "{module}" holds values that are no numbers (NaN or infinite)',
            "Its training diverged: train again with a lower learning rate.",
        )
    alpha = _by_pattern(settings.get("alpha_pattern"), module, settings.get("lora_alpha", 8))
    rank = _rank(module, settings)
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return Pair(down, up, scale, magnitude)


def _rank(module: str, settings: Mapping[str, Any]) -> int:
    return int(_by_pattern(settings.get("rank_pattern"), module, settings.get("r", 8)))


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """Return what PEFT takes: of the first pattern that the end of the module's name matches.

    https://huggingface.co/docs/peft/package_reference/lora, rank_pattern: names or regular
    expressions; a leading "^" binds to the beginning.
    """
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _check_shapes(module: str, pair: Pair, spec: TensorSpec, rank: int) -> None:
    if spec.dtype not in MERGED_DTYPES:
        raise DrupeError(
            WHERE,
            f'the base stores "{spec.name}" as {spec.dtype}, which cannot be merged into',
            "Give the base model in bfloat16, float16 or float32.",
        )
    found = (tuple(pair.up.shape), tuple(pair.down.shape))
    expected = ((spec.shape[0], rank), (rank, spec.shape[-1]))
    if len(spec.shape) != 2 or found != expected:
        raise DrupeError(
            WHERE,
            f'the adapter of "{module}" has B {list(found[0])} and A {list(found[1])}; its rank '
            f"{rank} and the base's weight {list(spec.shape)} ask for {list(expected[0])} and "
            f"{list(expected[1])}",
            "Give the base model that the adapter was trained on.",
        )


def _write_weights(base: Checkpoint, pairs: Mapping[str, Pair], out: Path, job: Job) -> Change:
    change = Change()
    done, total = 0, base.size_bytes
    with CheckpointWriter(out, base.specs) as writer:
        for spec in writer.order:
            pair = pairs.get(spec.name)
            if pair is None:
                parts: Iterator[bytes | memoryview] = base.chunks(spec.name)
            else:
                parts = _merged_parts(base.read(spec.name), pair, change, spec)
            writer.write(spec.name, _told(parts, done, total, job))
            done += spec.size_bytes
    job.progress("merging", total, total, "bytes")
    return change


def _told(
    parts: Iterator[bytes | memoryview], done: int, total: int, job: Job
) -> Iterator[bytes | memoryview]:
    for part in parts:
        job.progress("merging", done, total, "bytes")
        yield part
        done += len(part)


def _merged_parts(
    weight: torch.Tensor,  # (out, in), any float
    pair: Pair,
    change: Change,
    spec: TensorSpec,
) -> Iterator[memoryview]:
    """Yield the bytes of the merged weight, block of rows by block of rows; record the change."""
    down, up = pair.down.float(), pair.up.float()
    rows = max(1, BLOCK_ELEMENTS // max(1, weight.shape[1]))
    # Made once and filled again for each block: fresh pages cost more than the arithmetic.
    exact, total = (torch.empty(min(rows, len(weight)), weight.shape[1]) for _ in range(2))
    dtype = DTYPES[spec.dtype]
    stored = torch.empty_like(exact, dtype=dtype)
    squares, changed_squares, changed = 0.0, 0.0, False
    for start in range(0, len(weight), rows):
        count = min(rows, len(weight) - start)
        before, after, merged = exact[:count], total[:count], stored[:count]
        before.copy_(weight[start : start + count])
        torch.addmm(before, up[start : start + count], down, alpha=pair.scale, out=after)
        if pair.magnitude is not None:  # the norm of a row needs nothing but the row
            norm = torch.linalg.vector_norm(after, dim=1)
            after.mul_((pair.magnitude[start : start + count].float() / norm)[:, None])
        merged.copy_(after)
        moved = torch.sub(merged, before, out=after).flatten()
        changed = changed or bool(moved.any())
        squares += float(torch.dot(before.flatten(), before.flatten()))
        changed_squares += float(torch.dot(moved, moved))
        if not math.isfinite(changed_squares):
            raise DrupeError(
                WHERE,
                f'merging "{spec.name}" gives values that {dtype} cannot hold',
                "Store the base model in float32 or bfloat16; or is the adapter's scale right?",
            )
        yield tensor_bytes(merged)
    change.tensors += 1
    change.changed += changed
    change.dtypes.add(str(dtype).removeprefix("torch."))
    relative = math.sqrt(changed_squares / squares) if squares else 0.0
    change.largest_relative = max(change.largest_relative, relative)


def _copy_other_files(base: Path, adapter: Path, out: Path) -> None:
    """Copy what a model is besides its weights; the tokenizer that was trained with wins."""
    besides = [(base, file) for file in model_files(base) if not _holds_weights(file)]
    trained = [(adapter, file) for file in tokenizer_files(adapter)]
    for folder, file in [*besides, *trained]:
        copied = out / file.relative_to(folder)
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copied)


def _holds_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
