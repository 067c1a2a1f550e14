"""Proof that an export computes what its checkpoint does, as nearly as its bits allow.

Of a folder that drupe wrote, three things are asked:
  weights     each matrix of the file is the checkpoint's, as nearly as its grid allows
              (`weights_proof`)
  arithmetic  with the very weights of the file, torch computes what ONNX Runtime computes, and
              the first greedy tokens are the same: what is left is rounding of sums
  logits      the model as it is deployed is hardly further from the checkpoint than these weights
              make it: activations rounded to 8 bits, say
Of a folder of ONNX Runtime GenAI's builder, whose layout is not ours, the last one alone; there the
weights are the checkpoint's own linear layers, rounded to nearest on the same grid.

An export that was made of an adapter, merged on the way, is compared with base + adapter, merged
anew as they are read. What is read there is proven to be base + adapter by `MergeProof`, with
PEFT's own layers: that proof is a step of its own, as where the merged checkpoint was written.

The measure of logits is the root mean square of the difference (each position's mean taken off),
relative to the checkpoint's. One layer is in memory at a time.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import onnxruntime
import torch

from drupe.checkpoint.external_data import check_folder
from drupe.checkpoint.genai_folder import SETTINGS, decoder_file
from drupe.checkpoint.streamed import NamesDifferError
from drupe.core.errors import DrupeError, Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.evaluate.runtimes import OnnxRuntime
from drupe.export import tokens
from drupe.export.decoder import Decoder
from drupe.export.deployed import DeployedWeights, read_stored
from drupe.export.families import read_decoder
from drupe.export.goldens import LEAD, fits_as_deployed, greedy_on_floats, write_goldens
from drupe.export.parts import Parts
from drupe.export.passes import ExportProof
from drupe.export.probes import LARGE_BYTES, Answer, Probes, choose_probes
from drupe.export.reference import (
    Computed,
    TooLargeError,
    of_checkpoint,
    of_deployed,
    of_rounded,
    relative_errors,
)
from drupe.export.source import Source, open_source
from drupe.export.weights_proof import prove_weights
from drupe.quantize.grid import Grid

WHERE = "ExportProof"
# What the relative error may be beside that of the weights. Seen on the CPU, with a random Phi-3
# of 2.2M parameters | the trained one of the example (2.4M), blocks of 32:
#   fp32 5e-7 | 5e-7    fp16 6e-4 | 5e-4
#   int8 0.0193, of which rounding 0.0153 | 0.0102, 0.0053 (the rest: activations in 8 bits)
#   int4 0.2407, of which rounding 0.2410 | 0.0909, 0.0915
# The least harmful zeroed matrix: int8 0.160, int4 0.288 | fp32 0.167, int4 (blocks of 128) 0.195.
SLACK = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 5e-2, "int8": 5e-2, "int4": 3e-2}
ROUNDING_FACTOR = 1.05
# What it may be with the same weights, by the type of the activations.
ARITHMETIC = {"fp32": 1e-4, "fp16": 3e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Exported:
    """What the graph tells about itself. grid: of quantized weights; None where there are none.

    activations: "fp32", "fp16" or "bf16", as `precision` is where nothing is quantized.
    """

    precision: str
    grid: Grid | None
    activations: str


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
    torch.set_num_threads(job.threads)
    check_folder(exported.path)
    score: dict[str, Any] = {"metric": "export_proof", "higher_is_better": False}
    with open_source(checkpoint, metric.merging, job) as source:
        with _opened(exported, source) as deployed:
            if deployed is not None:
                score["weights"] = prove_weights(deployed, source.rows, job).to_json()
            write_goldens(exported, out, job)
            try:
                score |= _prove_logits(exported, source, deployed, job)
            except _SkippedError as fault:
                score |= {"value": None, "passed": None, "skipped": fault.what}
                job.warn(f"the export was not compared with its checkpoint: {fault.what}")
        differences = tokens.token_differences(exported.path, source.model)
    tokens.tell(differences, job)
    score |= {"onnxruntime": onnxruntime.__version__, "token_differences": differences}
    (out / "score.json").write_text(json.dumps(score, indent=2) + "\n", encoding="utf-8")


class _SkippedError(DrupeError):
    """There is nothing here to compare logits with: no fault of the export."""


@contextmanager
def _opened(exported: Model, source: Source) -> Iterator[DeployedWeights | None]:
    """Give the weights of an exported folder; None where its layout is not drupe's."""
    try:
        config = json.loads((source.model.path / "config.json").read_text(encoding="utf-8"))
        decoder = read_decoder(config, WHERE)
    except Refused:
        yield None
        return
    parts = Parts(decoder, source.specs, WHERE)
    stored = read_stored(_graph_file(exported.path), decoder, parts)
    if stored is None:
        yield None
        return
    with DeployedWeights(exported.path, decoder, stored) as deployed:
        yield deployed


def _context(decoder: Decoder) -> int:
    """Return up to how many tokens a model's angles are the same whatever comes after."""
    scaled = [each.original for each in decoder.rotaries.values() if each.kind == "longrope"]
    return min([decoder.context, *scaled])


def _prove_logits(
    exported: Model,
    source: Source,
    deployed: DeployedWeights | None,
    job: Job,
) -> dict[str, Any]:
    """Return what the score says of logits and tokens; raise _SkippedError or DrupeError."""
    graph = read_precision(_graph_file(exported.path))
    size = sum(file.stat().st_size for file in exported.path.glob("*.onnx*"))
    large = size > LARGE_BYTES
    as_deployed = fits_as_deployed(exported.path)
    runtime = _session(exported, graph, job, prepack=as_deployed)
    if deployed is None:
        probes = choose_probes(runtime, runtime.context_length, large=large)
    else:
        answers = [Answer(*each) for each in greedy_on_floats(exported, job, large=large)]
        probes = choose_probes(runtime, _context(deployed.decoder), answers, large=large)
    shipped = unpacked = probes.cut(runtime.logits(probes.batch))
    if deployed is not None and as_deployed:
        del runtime  # before there is another one
        runtime = _session(exported, graph, job, prepack=False)
        unpacked = probes.cut(runtime.logits(probes.batch))
    del runtime
    job.progress("proving the logits", 1, 3, "models")
    try:
        reference = of_checkpoint(source, probes, layers=deployed is not None)
        job.progress("proving the logits", 2, 3, "models")
        weighed = reference
        if graph.grid is not None:
            weighed = (
                of_rounded(source, graph.grid, probes)
                if deployed is None
                else of_deployed(source, deployed, probes)
            )
    except (TooLargeError, NamesDifferError) as fault:
        raise _SkippedError(fault.where, fault.what, fault.remedy) from fault
    job.progress("proving the logits", 3, 3, "models")
    found = _judge_logits(graph, shipped, reference, weighed)
    if deployed is not None:
        found |= _judge_arithmetic(graph, unpacked, weighed)
        found |= _judge_greedy(graph, probes, weighed)
        found["layer_errors"] = [
            float(f"{error:.4g}") for error in relative_errors(weighed, reference)
        ]
    return found | {"positions": probes.positions, "ran_on": "CPUExecutionProvider"}


def _session(exported: Model, graph: Exported, job: Job, *, prepack: bool) -> OnnxRuntime:
    """Return the graph on the CPU, whatever its provider: this proves the graph and its weights.

    That a provider's own kernels are right is its maker's business.
    """
    try:
        return OnnxRuntime(exported, "CPUExecutionProvider", job.threads, prepack=prepack)
    except DrupeError as fault:
        raise _SkippedError(fault.where, fault.what, fault.remedy) from fault
    except Exception as fault:
        if "NOT_IMPLEMENTED" not in str(fault):
            raise
        what = f"no CPU kernels for this graph ({graph.precision})"
        raise _SkippedError(WHERE, what, "Prove it where its provider is.") from fault


def _graph_file(folder: Path) -> Path:
    return decoder_file(folder, json.loads((folder / SETTINGS).read_text(encoding="utf-8")))


def read_precision(graph_file: Path) -> Exported:
    """Return what the graph's own nodes and types tell of its precision; no weight is read."""
    graph = onnx_ir.load(graph_file).graph
    # A bf16 graph may give its logits in float32; the cache is always of the computing type.
    types = {value.dtype for value in graph.inputs}
    names = {onnx_ir.DataType.FLOAT16: "fp16", onnx_ir.DataType.BFLOAT16: "bf16"}
    activations = next((name for dtype, name in names.items() if dtype in types), "fp32")
    quantized = [node for node in graph if node.op_type == "MatMulNBits"]
    if not quantized:
        return Exported(activations, None, activations)
    bits = min(node.attributes["bits"].as_int() for node in quantized)
    block_size = max(node.attributes["block_size"].as_int() for node in quantized)
    return Exported(f"int{bits}", Grid(bits, block_size), activations)


def distance(found: list[torch.Tensor], reference: list[torch.Tensor]) -> Distance:
    """Return how far `found` is from `reference`; each a list of (length, vocabulary) logits."""
    difference = total = kl = 0.0
    same = count = 0
    for ours, theirs in zip(found, reference, strict=True):
        size = min(ours.shape[1], theirs.shape[1])  # a padded vocabulary is one exporter's own
        ours, theirs = ours[:, :size], theirs[:, :size]
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        log_ours, log_theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
        kl += float((log_theirs.exp() * (log_theirs - log_ours)).sum())
        ours = ours - ours.mean(-1, keepdim=True)
        theirs = theirs - theirs.mean(-1, keepdim=True)
        difference += float((ours - theirs).square().sum(dtype=torch.float64))
        total += float(theirs.square().sum(dtype=torch.float64))
        count += len(ours)
    return Distance((difference / total) ** 0.5, same / count, kl / count)


def _judge_logits(
    graph: Exported, found: list[torch.Tensor], reference: Computed, weighed: Computed
) -> dict[str, Any]:
    measured = distance(found, reference.logits)
    rounding = 0.0
    if weighed is not reference:
        rounding = distance(weighed.logits, reference.logits).relative_rms
    bound = ROUNDING_FACTOR * rounding + SLACK[graph.precision]
    if not measured.relative_rms <= bound:  # a not-a-number fails
        raise _disproved(
            graph,
            f"relative error of the logits {measured.relative_rms:.3g}, bound {bound:.3g} "
            f"(same likeliest token at {measured.top1:.0%} of positions)",
        )
    return {
        "value": measured.relative_rms,
        "bound": bound,
        "passed": True,
        "precision": graph.precision,
        "rounding": rounding,
        "top1_agreement": measured.top1,
        "kl": measured.kl,
    }


def _judge_arithmetic(
    graph: Exported, found: list[torch.Tensor], weighed: Computed
) -> dict[str, Any]:
    """Compare ONNX Runtime with torch, both with the weights of the file."""
    error = distance(found, weighed.logits).relative_rms
    bound = ARITHMETIC[graph.activations]
    if not error <= bound:
        raise _disproved(
            graph,
            f"with the same weights its logits have a relative error of {error:.3g}, bound "
            f"{bound:.3g}",
        )
    return {"arithmetic": error, "arithmetic_bound": bound}


def _judge_greedy(graph: Exported, probes: Probes, weighed: Computed) -> dict[str, Any]:
    """Compare greedy tokens, each of which led clearly, with those of torch."""
    count = 0
    for answer, logits in zip(probes.answers, probes.before_answers(weighed.logits), strict=True):
        for token, row in zip(answer.tokens, logits, strict=True):
            best = int(row.argmax())
            # Another one that is as good as equal would be no evidence: 16 bits round much.
            if best != token and not float(row[best] - row[token]) <= LEAD * float(row.std()):
                raise _disproved(
                    graph,
                    f"after {answer.prompt} ONNX Runtime GenAI goes on with {answer.tokens}, and "
                    f"torch, with the same weights, with {best} in place of {token}",
                )
            count += 1
    return {"greedy_tokens": count}


def _disproved(graph: Exported, what: str) -> DrupeError:
    return DrupeError(
        WHERE,
        f"the exported model ({graph.precision}) does not compute what its checkpoint does: {what}",
        "Do not use this export. Try another precision or version of onnxruntime-genai.",
    )
