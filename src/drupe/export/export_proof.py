"""Proof that an export computes what its checkpoint does, as nearly as its bits allow.

The measure is the root mean square of the difference of the logits (each position's mean taken
off), relative to the checkpoint's. What rounding weights costs depends on the model, so for int4
and int8 the bound is not a number but an experiment: the checkpoint's own linear layers are
rounded to nearest, block by block as ONNX Runtime does it, and the export may be hardly worse than
that. With a zeroed or swapped tensor it is.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import onnxruntime
import torch

from drupe.checkpoint.load import load_causal_lm
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.process import total_memory_bytes
from drupe.evaluate.runtimes import OnnxRuntime, checkpoint_bytes
from drupe.export import tokens
from drupe.export.goldens import write_goldens
from drupe.export.passes import ExportProof
from drupe.quantize.codes import dequantize
from drupe.quantize.grid import Grid
from drupe.quantize.row_blocks import WEIGHTS_AT_A_TIME
from drupe.quantize.rtn import round_to_nearest

WHERE = "ExportProof"
# Share of the machine's memory that the checkpoint may take: the rest is for the exported model,
# whose session is closed by then, and for activations.
MEMORY_SHARE = 0.6
PROBE_TOKENS = 96
PROBE_TEXTS = (
    "The old man opened the window and looked at the boats. It had rained so that nobody",
    "### Text: I can't believe they remembered my birthday!\n### The tone is:\n",
    "def total(prices: list[float], tax: float = 0.2) -> float:\n    return sum(prices)",
    "In 1969, 3 people flew 384,400 km; 2 of them walked on the Moon for 2 h 31 min. Q: Who? A:",
)
# What the relative error may be beside that of rounded weights. Seen on the CPU, with a random
# Phi-3 of 2.2M parameters | the trained one of the example (2.4M), blocks of 32:
#   fp32 5e-7 | 5e-7    fp16 6e-4 | 5e-4
#   int8 0.0193, of which rounding 0.0153 | 0.0102, 0.0053 (the rest: activations in 8 bits)
#   int4 0.2407, of which rounding 0.2410 | 0.0909, 0.0915
# The least harmful zeroed matrix: int8 0.160, int4 0.288 | fp32 0.167, int4 (blocks of 128) 0.195.
SLACK = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2, "int4": 3e-2}
ROUNDING_FACTOR = 1.05
# Where the checkpoint fits in memory only in its own 16 bits: bf16 activations alone cost 0.006.
HALF_SLACK = 2e-2


@dataclass(frozen=True)
class Exported:
    """What the graph tells about itself. grid: of quantized weights; None where there are none."""

    precision: str
    grid: Grid | None


@dataclass(frozen=True)
class Distance:
    """How far logits are from their reference.

    relative_rms: of the centred logits. top1: share of positions with the same likeliest token.
    kl: mean Kullback-Leibler divergence from the reference, in nats.
    """

    relative_rms: float
    top1: float
    kl: float


def prove(metric: ExportProof, exported: Model, checkpoint: Model, out: Path, job: Job) -> None:
    """Write out/score.json; raise DrupeError when the two models do not belong together.

    Where nothing can be compared (no kernels or no memory for it here, no logits), the score says
    "skipped" and why, and the user is warned; so where the tokens of a text differ.
    out/goldens.json says how the export answers.
    """
    write_goldens(exported, out, job)
    _prove_logits(exported, checkpoint, out, job)
    differences = tokens.token_differences(exported.path, checkpoint)
    tokens.tell(differences, job)
    score = json.loads((out / "score.json").read_text(encoding="utf-8"))
    _write(out, score | {"token_differences": differences})


def _prove_logits(exported: Model, checkpoint: Model, out: Path, job: Job) -> None:
    precision = read_precision(_graph_file(exported.path))
    dtype = _checkpoint_dtype(checkpoint.path)
    if dtype is None:
        _skip(out, job, "the checkpoint does not fit in the memory of this machine")
        return
    try:
        # On the CPU whatever the provider: this proves the graph and its weights. That a
        # provider's own kernels are right is its maker's business.
        runtime = OnnxRuntime(exported, "CPUExecutionProvider", job.threads)
    except DrupeError as fault:
        _skip(out, job, fault.what)
        return
    except Exception as fault:
        if "NOT_IMPLEMENTED" not in str(fault):
            raise
        _skip(out, job, f"no CPU kernels for this graph ({precision.precision})")
        return
    probes = probe_sequences(runtime)
    found = [runtime.logits([probe])[0] for probe in probes]
    del runtime  # its memory is needed for the checkpoint
    torch.set_num_threads(job.threads)
    reference, rounded = _reference_logits(checkpoint, dtype, probes, precision)
    _judge(precision, dtype, (found, reference, rounded), out)


def _graph_file(folder: Path) -> Path:
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    return folder / str(settings["model"]["decoder"]["filename"])


def read_precision(graph_file: Path) -> Exported:
    """Return what the graph's own nodes and types tell of its precision; no weight is read."""
    graph = onnx_ir.load(graph_file).graph
    quantized = [node for node in graph if node.op_type == "MatMulNBits"]
    if quantized:
        bits = min(node.attributes["bits"].as_int() for node in quantized)
        block_size = max(node.attributes["block_size"].as_int() for node in quantized)
        return Exported(f"int{bits}", Grid(bits, block_size))
    # A bf16 graph may give its logits in float32; the cache is always of the computing type.
    types = {value.dtype for value in graph.inputs}
    names = {onnx_ir.DataType.FLOAT16: "fp16", onnx_ir.DataType.BFLOAT16: "bf16"}
    found = [name for dtype, name in names.items() if dtype in types]
    return Exported(found[0] if found else "fp32", None)


def _checkpoint_dtype(checkpoint: Path) -> torch.dtype | str | None:
    """Return the best dtype in which the checkpoint fits in memory ("auto": its own), or None."""
    limit = MEMORY_SHARE * total_memory_bytes()
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    stored = checkpoint_bytes(checkpoint)
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    in_float32 = stored * (1 if name == "float32" else 2)
    if in_float32 <= limit:
        return torch.float32
    return "auto" if stored <= limit else None


def probe_sequences(runtime: OnnxRuntime) -> list[list[int]]:
    """Return the ids that both models are asked about: texts, and a walk over the vocabulary."""
    most = min(PROBE_TOKENS, runtime.context_length)
    sequences = [runtime.tokenizer(text)["input_ids"][:most] for text in PROBE_TEXTS]
    step = max(1, runtime.vocabulary // most)
    return [*sequences, [*range(0, runtime.vocabulary, step)][:most]]


def _reference_logits(
    checkpoint: Model, dtype: torch.dtype | str, probes: list[list[int]], precision: Exported
) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    """Return the checkpoint's logits, and those of its rounded self if weights are quantized."""
    network = load_causal_lm(checkpoint, dtype).eval()
    with torch.inference_mode():
        reference = [_logits(network, probe) for probe in probes]
        if precision.grid is None:
            return reference, None
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.Linear):
                round_in_place(module.weight, precision.grid, f"{name}.weight")
        return reference, [_logits(network, probe) for probe in probes]


def _logits(network: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = network(torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float()


def round_in_place(weight: torch.Tensor, grid: Grid, where: str = "weight") -> None:
    """Replace `weight` (out, in), of any float dtype, by what rounding to nearest leaves of it."""
    rows, columns = weight.shape
    at_a_time = max(1, WEIGHTS_AT_A_TIME // columns)
    for first in range(0, rows, at_a_time):
        part = weight[first : first + at_a_time]
        part.copy_(dequantize(round_to_nearest(part, grid, where=where), grid, columns))


def distance(found: list[torch.Tensor], reference: list[torch.Tensor]) -> Distance:
    """Return how far `found` is from `reference`; each a list of (length, vocabulary) logits."""
    ours, theirs = torch.cat(found), torch.cat(reference)
    size = min(ours.shape[1], theirs.shape[1])  # a padded vocabulary is one exporter's own
    ours, theirs = ours[:, :size], theirs[:, :size]
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    log_ours, log_theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    kl = (log_theirs.exp() * (log_theirs - log_ours)).sum(-1).mean()
    ours = ours - ours.mean(-1, keepdim=True)
    theirs = theirs - theirs.mean(-1, keepdim=True)
    relative = (ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt()
    return Distance(float(relative), float(same), float(kl))


def _judge(
    precision: Exported,
    dtype: torch.dtype | str,
    logits: tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor] | None],
    out: Path,
) -> None:
    found, reference, rounded = logits
    measured = distance(found, reference)
    rounding = distance(rounded, reference).relative_rms if rounded else 0.0
    bound = ROUNDING_FACTOR * rounding + SLACK[precision.precision]
    bound += HALF_SLACK if dtype == "auto" else 0.0
    passed = measured.relative_rms <= bound  # False for a not-a-number
    score = {
        "metric": "export_proof",
        "value": measured.relative_rms,
        "bound": bound,
        "passed": passed,
        "higher_is_better": False,
        "precision": precision.precision,
        "rounding": rounding,
        "top1_agreement": measured.top1,
        "kl": measured.kl,
        "positions": sum(len(part) for part in found),
        "ran_on": "CPUExecutionProvider",
    }
    if not passed:
        raise DrupeError(
            WHERE,
            f"the exported model ({precision.precision}) does not compute what its checkpoint "
            f"does: relative error of the logits {measured.relative_rms:.3g}, bound {bound:.3g} "
            f"(same likeliest token at {measured.top1:.0%} of positions)",
            "Do not use this export. Try another precision or version of onnxruntime-genai.",
        )
    _write(out, score)


def _skip(out: Path, job: Job, why: str) -> None:
    _write(out, {"metric": "export_proof", "value": None, "passed": None, "skipped": why})
    job.warn(f"the export was not compared with its checkpoint: {why}")


def _write(out: Path, score: dict[str, Any]) -> None:
    score["onnxruntime"] = onnxruntime.__version__
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")
