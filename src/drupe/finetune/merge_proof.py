"""Prove that the merged model is its base plus its adapter, and is not its base.

Three questions, each with PEFT's own layers as the reference for our arithmetic:
  weights   every merged weight is W + PEFT's delta, to half a step of the storage type: what
            rounding to nearest promises, element by element, so no statistics are in it
  the rest  every other tensor has the bytes of the base's
  logits    on probe text the whole model (its config, its tied weights) computes what base +
            adapter compute, as nearly as rounded weights can, and not what the base computes
Where no merged checkpoint is written (its export merges it on the way), the same is asked of what
`merged` gives when it is read, which the export's own proof then compares with the exported file.
One layer is in memory at a time.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from drupe.checkpoint.load import load_tokenizer, runs_remote_code
from drupe.checkpoint.streamed import NamesDifferError, hold_within, streamed_model
from drupe.checkpoint.tensors import DTYPES, Checkpoint, open_checkpoint
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.finetune.merged import base_weights, opened_beside
from drupe.finetune.passes import MergeProof

# The merge is what is proven: a failure names it, not this metric.
WHERE = "MergeAdapterWeights"
ADAPTER = "default"
PROBE_ROWS, PROBE_TOKENS = 4, 48
PROBE_TEXTS = (
    "The old man opened the window and looked out over the harbour. It had rained all night.",
    "### Text: I can't believe they remembered my birthday!\n### The tone is:\n",
    "In 1969, 3 people flew 384,400 km; 2 of them walked on the Moon for 2 h 31 min. Q: Who? A:",
)
BLOCK_ELEMENTS = 2**22
# Of the bound on the logits' relative error. Measured (16 or 8 merged layers; rank 8, random B):
#                                     float32   float16   bfloat16
#   random Phi-3 of 0.1M parameters    3e-7      2.2e-4    1.8e-3
#   the trained one of the example     6e-7      2.1e-4    1.7e-3
#   bound for 8 layers                 2e-5      1.6e-3    1.3e-2
# The room is for deep models, which amplify errors; half an adapter or a double one moves the
# logits by far more wherever the adapter has learnt a task (0.05 to 0.5).
SAFETY = 2.0
LOST_FACTOR = 2.0
FLOAT32_NOISE = 2e-5


@dataclass(frozen=True)
class WeightsProof:
    """What the comparison of the weights gave.

    layers: how many were merged. rounding: half a step of the coarsest storage type, relative.
    kept: the part of the adapter's change that the stored weights still have (1: all of it).
    """

    layers: int
    rounding: float
    kept: float


@dataclass(frozen=True)
class Distances:
    """Relative distances of logits.

    value: merged from base + adapter. effect: base + adapter from base. moved: merged from base.
    """

    value: float
    effect: float
    moved: float


def prove(metric: MergeProof, merged: Model, adapter: Model, out: Path, job: Job) -> None:
    """Write out/score.json; raise DrupeError when `merged` is not base + `adapter`.

    merged: the checkpoint; or the adapter itself, to be merged as it is read.
    """
    base = adapter.base
    if base is None:
        raise DrupeError("MergeProof", "was given an adapter without its base", "Mend the plan.")
    torch.set_num_threads(job.threads)
    weights = base_weights(adapter, metric.base)
    with ExitStack() as held:
        found: Checkpoint
        if merged.kind == adapter.kind:
            folder = job.scratch / "merged"
            merged, found = held.enter_context(opened_beside(adapter, metric.base, folder))
        else:
            found = open_checkpoint(merged.path)
        _prove(weights, found, merged, adapter, out, job)


def _prove(
    weights: Checkpoint, found: Checkpoint, merged: Model, adapter: Model, out: Path, job: Job
) -> None:
    """Prove that the weights `found` are `weights` + `adapter`, with the config of `merged`."""
    base = adapter.base
    assert base is not None
    try:
        network = streamed_model(base.path, runs_remote_code(base), weights)
    except NamesDifferError as fault:
        _skip(out, job, fault.what)
        return
    probe = probe_ids(merged, network)
    with torch.inference_mode():
        of_base = logits(network, probe)
        job.progress("proving the merge", 1, 4, "models")
        with_adapter = add_adapter(network, adapter.path)
        of_both = logits(with_adapter, probe)
        job.progress("proving the merge", 2, 4, "models")
        compared = prove_weights(with_adapter, weights, found)
        del with_adapter, network
        job.progress("proving the merge", 3, 4, "models")
        of_merged = logits(streamed_model(merged.path, runs_remote_code(merged), found), probe)
        job.progress("proving the merge", 4, 4, "models")
    distances = Distances(
        relative_distance(of_merged, of_both),
        relative_distance(of_both, of_base),
        relative_distance(of_merged, of_base),
    )
    _judge(distances, compared, probe.numel(), out, job)


def add_adapter(network: Any, folder: Path) -> nn.Module:
    """Return `network` with PEFT's own LoRA layers around its linear ones, in float32.

    The copies of base weights that PEFT saves with some adapters stay on disk: `network` streams
    the base's. Raises DrupeError when PEFT knows no place for a matrix of the adapter.
    """
    stored = Checkpoint([folder / "adapter_model.safetensors"])
    matrices = {name: stored.read(name) for name in stored.names if ".lora_" in name}
    with_adapter = peft.get_peft_model(network, peft.PeftConfig.from_pretrained(folder))
    result = peft.set_peft_model_state_dict(with_adapter, matrices)
    missing = [name for name in result.missing_keys if ".lora_" in name]
    if missing or result.unexpected_keys:
        raise _disproved(
            f'PEFT finds no place or no values for "{[*missing, *result.unexpected_keys][0]}"'
        )
    for layer in _layers(with_adapter).values():
        if layer.use_dora.get(ADAPTER):
            hold_within(layer, layer.get_base_layer())  # DoRA needs the weights' norm as well
    placed: nn.Module = with_adapter.eval()
    return placed


def _layers(with_adapter: nn.Module) -> dict[str, Any]:
    """Return the adapted layers by the name of the base tensor that each changes."""
    return {
        f"{name.removeprefix('base_model.model.')}.weight": layer
        for name, layer in with_adapter.named_modules()
        if isinstance(layer, LoraLayer)
    }


def probe_ids(model: Model, network: Any) -> torch.Tensor:
    """Return the (4, 48) token ids that all are asked about: texts and a walk over the vocabulary.

    Fewer columns where the model's context is shorter. The ids depend on the model alone.
    """
    config = network.config.get_text_config()
    columns = min(PROBE_TOKENS, getattr(config, "max_position_embeddings", None) or PROBE_TOKENS)
    needed = PROBE_ROWS * columns
    vocabulary = int(config.vocab_size)
    ids: list[int] = []
    if any(model.path.glob("tokenizer*")):
        tokenizer = load_tokenizer(model)
        texts = [token for text in PROBE_TEXTS for token in tokenizer(text)["input_ids"]]
        ids = [token for token in texts if token < vocabulary][: needed // 2]
    left = needed - len(ids)
    ids += [position * vocabulary // left for position in range(left)]
    return torch.tensor(ids).view(PROBE_ROWS, columns)


def logits(
    network: Any,
    probe: torch.Tensor,  # (rows, columns), ids
) -> torch.Tensor:
    """Return the (rows * columns, vocabulary) logits in float32, each position's mean taken off.

    The mean says nothing about which token is likely, and would make distances look small.
    """
    found: torch.Tensor = network(input_ids=probe, use_cache=False).logits.float().flatten(0, 1)
    return found.sub_(found.mean(-1, keepdim=True))


def relative_distance(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the root mean square of the difference, relative to the reference's."""
    return float((found - reference).norm() / reference.norm())


def prove_weights(with_adapter: nn.Module, base: Checkpoint, merged: Checkpoint) -> WeightsProof:
    """Compare each merged weight with W + PEFT's delta, and all other tensors with the base's.

    Raises DrupeError naming the first tensor that is not what it should be.
    """
    if set(base.names) != set(merged.names):
        odd = sorted(set(base.names) ^ set(merged.names))
        raise _disproved(f'"{odd[0]}" is only in one of base and merged model')
    layers = _layers(with_adapter)
    rounding, along, change = 0.0, 0.0, 0.0
    for name in base.names:
        if base.spec(name) != merged.spec(name):
            raise _disproved(f'"{name}" has another type or shape than in the base')
        if name in layers:
            rounding = max(rounding, torch.finfo(DTYPES[base.spec(name).dtype]).eps / 2)
            found = _prove_layer(name, layers[name], base.read(name), merged.read(name))
            along, change = along + found[0], change + found[1]
        elif any(a != b for a, b in zip(base.chunks(name), merged.chunks(name), strict=True)):
            raise _disproved(f'"{name}" is not the base\'s, though the adapter leaves it alone')
    return WeightsProof(len(layers), rounding, along / change if change else 1.0)


def _prove_layer(
    name: str,
    layer: Any,  # peft.tuners.lora.LoraLayer
    base: torch.Tensor,  # (out, in), any float
    merged: torch.Tensor,  # (out, in), the storage dtype
) -> tuple[float, float]:
    """Return <merged - base, delta> and <delta, delta>; raise when rounding explains it not."""
    delta = layer.get_delta_weight(ADAPTER)
    rank = layer.r[ADAPTER]
    columns = layer.lora_A[ADAPTER].weight.norm(dim=0)
    lengths = layer.lora_B[ADAPTER].weight.norm(dim=1) * abs(layer.scaling[ADAPTER])
    along = total = 0.0
    rows = max(1, BLOCK_ELEMENTS // base.shape[1])
    for start in range(0, len(base), rows):
        block = slice(start, start + rows)
        weight, found = base[block].float(), merged[block].float()
        part = _change(layer, weight, delta[block], block)
        # Both sides computed sum_k b_ik a_kj in float32, in an order of their own: each may be
        # wrong by `rank` roundings of |b_i| |a_j| (Higham 2002, 3.1, with Cauchy-Schwarz).
        arithmetic = (rank + 2) * torch.finfo(torch.float32).eps
        exact = weight + part
        error = (found - exact).abs()
        bound = rounding_bound(exact, merged.dtype)
        if layer.use_dora.get(ADAPTER):  # the norm adds as many products as a row has weights
            bound += base.shape[1] * torch.finfo(torch.float32).eps * exact.abs()
        bound += arithmetic * (weight.abs() + torch.outer(lengths[block], columns))
        wrong = ~(error <= bound)  # a not-a-number is wrong too
        if bool(wrong.any()):
            raise _disproved(
                f'{int(wrong.sum())} of {wrong.numel()} values of a block of "{name}" are further '
                f"from base + adapter than rounding to {merged.dtype} explains; the largest "
                f"difference is {float(error.max()):.3g}"
            )
        along += float(((found - weight) * part).sum())
        total += float(part.square().sum())
    return along, total


def _change(
    layer: Any,  # peft.tuners.lora.LoraLayer
    weight: torch.Tensor,  # (rows, in), float32
    delta: torch.Tensor,  # (rows, in), float32: s B A
    block: slice,
) -> torch.Tensor:
    """Return what the layer adds to these rows: s B A, under DoRA with the rows' new lengths."""
    if not layer.use_dora.get(ADAPTER):
        return delta
    magnitude = layer.lora_magnitude_vector[ADAPTER]
    norm = magnitude.get_weight_norm(weight, delta, scaling=1.0)
    changed: torch.Tensor = (weight + delta) * (magnitude.weight[block] / norm)[:, None]
    return changed - weight


def rounding_bound(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return how far rounding `exact` (float32) to nearest in `dtype` may move each value."""
    kind = torch.finfo(dtype)
    return exact.abs().clamp(min=kind.smallest_normal) * (kind.eps / 2)


def logits_bound(weights: WeightsProof, effect: float) -> float:
    """Return the relative distance of logits that rounding the merged weights explains.

    Rounding to nearest is wrong by at most u and evenly so below it, u / sqrt(3) in the mean
    square; independent errors in N layers add up to sqrt(N) of that (SAFETY: a network may
    amplify them). Where changes are smaller than a rounding step they are lost together, not
    independently: then the part of the adapter that is lost is missing from its effect.
    """
    independent = SAFETY * weights.rounding * math.sqrt(weights.layers / 3)
    lost = max(0.0, 1.0 - weights.kept)
    return FLOAT32_NOISE + independent + LOST_FACTOR * lost * effect


def _disproved(what: str) -> DrupeError:
    return DrupeError(
        WHERE,
        f"the merged model is not base + adapter: {what}",
        "Do not use it. Are base and adapter unchanged since the merge? Else report this.",
    )


def _judge(
    distances: Distances, weights: WeightsProof, positions: int, out: Path, job: Job
) -> None:
    bound = logits_bound(weights, distances.effect)
    if not distances.value <= bound:  # a not-a-number fails
        raise _disproved(
            f"relative error of the logits {distances.value:.3g}, bound {bound:.3g} (the adapter's "
            f"own effect is {distances.effect:.3g})"
        )
    if distances.moved == 0:
        raise _disproved("its logits are those of the base, bit for bit")
    score: dict[str, Any] = {
        "metric": "merge_proof",
        "value": distances.value,
        "bound": bound,
        "effect": distances.moved,
        "passed": True,
        "higher_is_better": False,
        "adapter_effect": distances.effect,
        "change_kept": weights.kept,
        "layers": weights.layers,
        "positions": positions,
    }
    if distances.effect <= bound:
        score["passed"] = None
        score["skipped"] = (
            f"the adapter moves the logits by {distances.effect:.3g}, rounding the weights by up "
            f"to {bound:.3g}, so they cannot tell; the weights themselves are right to the last "
            f"bit, and hold {weights.kept:.0%} of the adapter's change"
        )
        job.warn(f"the merge is not proven by logits: {score['skipped']}")
    _write(out, score)


def _skip(out: Path, job: Job, why: str) -> None:
    _write(out, {"metric": "merge_proof", "value": None, "passed": None, "skipped": why})
    job.warn(f"the merge was not proven: {why}")


def _write(out: Path, score: dict[str, Any]) -> None:
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
