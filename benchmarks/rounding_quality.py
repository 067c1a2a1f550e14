"""What does rounding to int4 cost a trained model, beside ONNX Runtime's ways at equal bytes?

    python benchmarks/rounding_quality.py [--llama FOLDER ...] [--no-phi3] [--block-size 32]

Two kinds of small models that were really trained: the example's Phi-3, on stories that it has not
seen (its own generator with another seed); and each FOLDER that `small_llama.py` wrote, on the
files that it holds out. Every linear layer, the head with them, is rounded to int4 with float32
scales: by drupe's `rtn` and `mse`, and by ONNX Runtime's MatMulNBitsQuantizer (its default, its
`rtn` and its `k_quant`), whose codes are read from the graph that it gives. torch computes with
what the codes stand for, so that nothing differs but the weights.

Of each way: the bytes of codes, scales and zero points; the squared error of the weights relative
to the first; the mean Kullback-Leibler divergence from the floats, in thousandths of a nat, with
the 95 % interval over sequences; how often the likeliest token is the same; the perplexity. Behind
that the divergence relative to drupe's `mse` of the same form, with the interval of the ratio
(the same sequences are drawn for both).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
    RTNWeightOnlyQuantConfig,
    WeightOnlyQuantConfig,
)
from small_llama import LENGTH, text
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from drupe.quantize.codes import Packed, Rounded, dequantize, pack, unpack
from drupe.quantize.grid import Grid
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

EXAMPLE = Path(__file__).parents[1] / "examples/phi3-emotion"
STORIES, OTHER_SEED, STORY_LENGTH = 1500, 12345, 128
BATCH, DRAWS, MOST_SEQUENCES = 16, 2000, 300
Weights = dict[str, torch.Tensor]
Method = Callable[[torch.Tensor, Grid], Rounded]


@dataclass(frozen=True)
class Way:
    """A way of rounding. quantize: gives a model's matrices as an ONNX file holds them."""

    name: str
    symmetric: bool
    quantize: Callable[[Weights, Grid], dict[str, Packed]]


def by_drupe(method: Method) -> Callable[[Weights, Grid], dict[str, Packed]]:
    return lambda weights, grid: {
        name: pack(method(weight, grid), grid) for name, weight in weights.items()
    }


def by_onnxruntime(
    settings: WeightOnlyQuantConfig | None,
) -> Callable[[Weights, Grid], dict[str, Packed]]:
    """Return MatMulNBitsQuantizer as a way: it is given a graph with a product of each matrix."""

    def quantize(weights: Weights, grid: Grid) -> dict[str, Packed]:
        nodes, values, inputs, outputs = [], [], [], []
        for name, weight in weights.items():
            rows, columns = weight.shape
            values.append(numpy_helper.from_array(weight.T.contiguous().numpy(), name))
            nodes.append(helper.make_node("MatMul", [f"in.{name}", name], [f"out.{name}"], name))
            for where, side, size in ((inputs, "in", columns), (outputs, "out", rows)):
                shape = [1, size]
                where.append(
                    helper.make_tensor_value_info(f"{side}.{name}", TensorProto.FLOAT, shape)
                )
        graph = helper.make_graph(nodes, "matrices", inputs, outputs, values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=grid.bits,
            block_size=grid.block_size,
            is_symmetric=grid.symmetric,
            algo_config=settings,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # a bar for each of them
            quantizer.process()
        return dict(read_nodes(quantizer.model.model, weights, grid))

    return quantize


def read_nodes(
    model: onnx.ModelProto, weights: Weights, grid: Grid
) -> Iterator[tuple[str, Packed]]:
    """Yield each matrix of the products of few bits in a graph."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == len(weights)
    for node in products:
        name = node.output[0].removeprefix("out.")
        shape = weights[name].shape
        codes, scales, *more = (torch.from_numpy(held[each].copy()) for each in node.input[1:])
        assert codes.dtype == torch.uint8
        zero_points = more[0].view(grid.zero_points_shape(*shape)) if more else None
        yield (
            name,
            Packed(
                codes.view(grid.packed_shape(*shape)),
                scales.view(grid.scales_shape(*shape)),
                zero_points,
            ),
        )


WAYS = (
    Way("drupe rtn", True, by_drupe(round_to_nearest)),
    Way("drupe mse", True, by_drupe(least_squared_error)),
    Way("onnxruntime default", True, by_onnxruntime(None)),
    Way("drupe rtn", False, by_drupe(round_to_nearest)),
    Way("drupe mse", False, by_drupe(least_squared_error)),
    Way("onnxruntime default", False, by_onnxruntime(None)),
    Way("onnxruntime rtn", False, by_onnxruntime(RTNWeightOnlyQuantConfig())),
    Way("onnxruntime k_quant", False, by_onnxruntime(KQuantWeightOnlyQuantConfig())),
)


def size_of(packed: dict[str, Packed]) -> int:
    parts = [(each.weights, each.scales, each.zero_points) for each in packed.values()]
    return sum(part.nbytes for each in parts for part in each if part is not None)


def logits(network: PreTrainedModel, sequences: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found = [network(each, use_cache=False).logits for each in sequences.split(BATCH)]
    return torch.cat(found).log_softmax(-1)


@dataclass(frozen=True)
class Compared:
    """Of each sequence: the mean divergence, the share of the same likeliest token, the loss."""

    kl: torch.Tensor
    same: torch.Tensor
    loss: torch.Tensor


def compare(found: torch.Tensor, floats: torch.Tensor, sequences: torch.Tensor) -> Compared:
    next_one = sequences[:, 1:, None]
    return Compared(
        (floats.exp() * (floats - found)).sum(-1).mean(-1).double(),
        (found.argmax(-1) == floats.argmax(-1)).double().mean(-1),
        -found[:, :-1].gather(-1, next_one)[..., 0].mean(-1).double(),
    )


def interval(values: Callable[[torch.Tensor], torch.Tensor], count: int) -> tuple[float, float]:
    """Return where 95 % of a figure's values lie when the sequences are drawn again."""
    drawn = torch.randint(count, (DRAWS, count), generator=torch.Generator().manual_seed(0))
    low, high = values(drawn).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def measure(title: str, network: PreTrainedModel, sequences: torch.Tensor, size: int) -> None:
    """Print the figures of all ways for a model."""
    network = network.float().eval()
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)
    }
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    floats = logits(network, sequences)
    exact = compare(floats, floats, sequences)
    count = sum(weight.numel() for weight in original.values())
    print(
        f"\n{title}: {count / 1e6:.2f}M weights in {len(layers)} matrices, blocks of {size}; "
        f"{sequences.numel()} tokens in {len(sequences)} sequences; floats: perplexity "
        f"{exact.loss.mean().exp():.4f}"
    )
    columns = ("way", "zero points", "bytes", "error", "KL / 1000", "95 %", "same", "perplexity")
    print("| " + " | ".join((*columns, "KL beside mse")) + " |")
    print("|---" * (len(columns) + 1) + "|")
    results: dict[Way, tuple[Compared, int, float]] = {}
    for way in WAYS:
        grid = Grid(4, size, symmetric=way.symmetric)
        packed = way.quantize(original, grid)
        error = 0.0
        for name, layer in layers.items():
            weight = original[name]
            rounded = dequantize(unpack(packed[name], grid), grid, weight.shape[1])
            error += (rounded - weight).double().square().sum().item()
            layer.weight.data.copy_(rounded)
        results[way] = (
            compare(logits(network, sequences), floats, sequences),
            size_of(packed),
            error,
        )
    first = next(iter(results.values()))[2]
    beside = {way.symmetric: each[0].kl for way, each in results.items() if way.name == "drupe mse"}
    for way, (found, taken, error) in results.items():
        kl, ours = found.kl, beside[way.symmetric]
        low, high = interval(lambda drawn, kl=kl: kl[drawn].mean(-1), len(kl))
        least, most = interval(
            lambda drawn, kl=kl, ours=ours: kl[drawn].mean(-1) / ours[drawn].mean(-1), len(kl)
        )
        told = (
            way.name,
            "no" if way.symmetric else "yes",
            f"{taken:,}",
            f"{error / first:.3f}",
            f"{1000 * kl.mean():.3f}",
            f"{1000 * low:.3f}-{1000 * high:.3f}",
            f"{found.same.mean():.2%}",
            f"{found.loss.mean().exp():.4f}",
            f"{kl.mean() / ours.mean():.3f} ({least:.3f}-{most:.3f})",
        )
        print("| " + " | ".join(told) + " |", flush=True)


def story_sequences() -> torch.Tensor:
    """Return stories that the example's model has not seen, as it reads them."""
    sys.path.insert(0, str(EXAMPLE / "make"))
    from stories import stories

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "model")
    row: list[int] = []
    for story in stories(STORIES, OTHER_SEED):
        row += [*tokenizer(story)["input_ids"], tokenizer.eos_token_id]
    return torch.tensor(row[: len(row) // STORY_LENGTH * STORY_LENGTH]).view(-1, STORY_LENGTH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=Path, nargs="*", default=[], help="of small_llama.py")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--no-phi3", action="store_true", help="the Llamas alone")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    np.random.seed(0)
    size = arguments.block_size
    if not arguments.no_phi3:
        phi3 = AutoModelForCausalLM.from_pretrained(EXAMPLE / "model", dtype=torch.float32)
        measure("the example's Phi-3", phi3, story_sequences(), size)
    row = text(held_out=True)
    sequences = row[: len(row) // LENGTH * LENGTH].view(-1, LENGTH)
    sequences = sequences[:: max(1, len(sequences) // MOST_SEQUENCES)]
    for folder in arguments.llama:
        llama = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        measure(folder.name, llama, sequences, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
