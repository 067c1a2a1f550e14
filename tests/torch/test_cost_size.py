"""The size of an export, foretold from headers, is that of the export, to the byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drupe.core.errors import Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.cost.bill import Attention, Bill, Product
from drupe.cost.draw_up import bills
from drupe.export import native
from drupe.export.passes import ExportGenAI
from tests.make_decoders import DECODERS, make_decoder
from tests.make_models import FAMILIES, make

FIELDS: tuple[dict[str, Any], ...] = (
    {"precision": "fp32"},
    {"precision": "int8", "int4_block_size": 16},
    {"precision": "int4", "int4_is_symmetric": False},
    {"precision": "int4", "int4_block_size": 64, "quantize_embeddings": True},
    {"precision": "int4", "quantize_embeddings": False, "int4_accuracy_level": 1},
)


def steps(fields: tuple[dict[str, Any], ...] = FIELDS) -> list[ExportGenAI]:
    return [ExportGenAI(target=Target(threads=2), **each) for each in fields]


def files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir()}


def check(checkpoint: Path, tmp_path: Path, given: list[ExportGenAI]) -> list[Bill]:
    model = Model("hf", checkpoint, "")
    foretold = bills(model, given)
    for number, (step, bill) in enumerate(zip(given, foretold, strict=True)):
        out = tmp_path / f"export-{number}"
        out.mkdir()
        native.export(step, model, out, Job(tmp_path / f"scratch-{number}", threads=2))
        assert bill.files == files(out), step
        assert bill.exact
    return foretold


@pytest.mark.parametrize("name", DECODERS)
def test_of_each_family(name: str, tmp_path: Path) -> None:
    given = steps(({"precision": "int4"}, {"precision": "fp32"}))
    check(make_decoder(name, tmp_path / "checkpoint"), tmp_path, given)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_tied_and_untied_models_with_tokenizers_of_their_own(
    family: str, tmp_path: Path
) -> None:
    check(make(family, tmp_path / "checkpoint"), tmp_path, steps())


def test_of_half_a_model_and_of_another_target(tmp_path: Path) -> None:
    checkpoint = make_decoder("llama", tmp_path / "checkpoint")
    half = [
        ExportGenAI(precision="int4", target=Target(), exclude_embeds=True),
        ExportGenAI(precision="int4", target=Target(), exclude_lm_head=True),
        ExportGenAI(precision="fp16", target=Target(provider="CUDAExecutionProvider")),
    ]
    check(checkpoint, tmp_path, half)


def test_what_it_is_multiplied_with_is_counted(tmp_path: Path) -> None:
    model = Model("hf", make_decoder("llama", tmp_path / "checkpoint"), "")
    (bill,) = bills(model, steps(({"precision": "int4"},)))
    of_layer = {
        Product("MatMulNBits", 128, 64, 4, 32, level=4): 4,  # queries, keys and values
        Product("MatMulNBits", 64, 64, 4, 32, level=4): 4,  # output
        Product("MatMulNBits", 64, 128, 4, 32, level=4): 4,  # down
    }
    for product, count in of_layer.items():
        assert bill.products[product] >= count
    assert sum(bill.products.values()) == 4 * 5 + 1
    assert bill.attentions == {Attention(4, 2, 16): 4}
    assert bill.cache_bytes == 4 * 2 * 2 * 16 * 4
    assert bill.product_bytes + bill.embedding_bytes < bill.files["model.onnx.data"]
    assert Bill.from_json(json.loads(json.dumps(bill.to_json()))) == bill


@pytest.mark.parametrize(
    ("product", "size"),
    [
        (Product("MatMul", 10, 100), 4000),
        (Product("MatMul", 10, 100, dtype="F16"), 2000),
        (Product("MatMulNBits", 10, 100, 4, 32), 10 * (4 * 16 + 4 * 4)),
        (Product("MatMulNBits", 10, 100, 4, 32, symmetric=False), 10 * (4 * 16 + 4 * 4 + 2)),
        (Product("MatMulNBits", 10, 100, 8, 64, dtype="F16"), 10 * (2 * 64 + 2 * 2)),
    ],
)
def test_the_bytes_of_a_products_weights(product: Product, size: int) -> None:
    assert product.weight_bytes == size


def test_a_checkpoint_that_is_not_what_it_says_is_refused_as_by_the_exporter(
    tmp_path: Path,
) -> None:
    checkpoint = make_decoder("llama", tmp_path / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(Refused, match="embed_tokens"):
        bills(Model("hf", checkpoint, ""), steps(({"precision": "int4"},)))
    asked = {
        "model": Model("hf", checkpoint, "").to_json(),
        "steps": [{"precision": "int4", "target": {}}],
    }
    done = subprocess.run(
        [sys.executable, "-m", "drupe.cost.draw_up"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)["fault"]) == 3
