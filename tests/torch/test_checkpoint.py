"""Reading and writing safetensors one tensor at a time, and models that are streamed from disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_phi3
from transformers import AutoModelForCausalLM

from drupe.checkpoint.header import TensorSpec
from drupe.checkpoint.streamed import NamesDifferError, streamed_model
from drupe.checkpoint.tensors import DTYPES, Checkpoint, open_checkpoint, spec_of, tensor_bytes
from drupe.checkpoint.writer import CheckpointWriter
from drupe.core.errors import DrupeError

PROBE = torch.arange(24).view(2, 12) * 7


def write(folder: Path, tensors: dict[str, torch.Tensor], shard_bytes: int = 10**9) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    specs = [spec_of(name, tensor) for name, tensor in tensors.items()]
    with CheckpointWriter(folder, specs, shard_bytes) as writer:
        for spec in writer.order:
            writer.write(spec.name, [tensor_bytes(tensors[spec.name])])
    return sorted(folder.glob("*.safetensors"))


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return (
        ours.dtype == theirs.dtype
        and ours.shape == theirs.shape
        and tensor_bytes(ours) == tensor_bytes(theirs)
    )


tensors = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 5), max_size=3),
    ),
    max_size=6,
)


@given(planned=tensors, shard_bytes=st.sampled_from([1, 40, 10**9]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_back(
    planned: dict[str, tuple[str, list[int]]], shard_bytes: int, tmp_path: Path
) -> None:
    folder = tmp_path / "written"
    shutil.rmtree(folder, ignore_errors=True)
    made = {
        name: torch.randint(0, 2, shape).to(DTYPES[dtype])
        for name, (dtype, shape) in planned.items()
    }
    files = write(folder, made, shard_bytes)
    theirs = {}
    for file in files:
        theirs.update(load_file(file))
    ours = open_checkpoint(folder)
    assert set(theirs) == set(made) == set(ours.names)
    for name, tensor in made.items():
        assert same(theirs[name], tensor)
        assert same(ours.read(name), tensor)
        assert b"".join(ours.chunks(name)) == bytes(tensor_bytes(tensor))
    if len(files) == 1:
        save_file(made, tmp_path / "reference", metadata={"format": "pt"})
        assert files[0].read_bytes() == (tmp_path / "reference").read_bytes()


def test_shards_are_those_that_transformers_reads(tiny_phi3: Path, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_phi3)
    files = write(tmp_path, {name: source.read(name) for name in source.names}, 150_000)
    assert len(files) == 4
    assert files[0].name == "model-00001-of-00004.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == source.size_bytes
    with safe_open(files[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}
    shutil.copy(tiny_phi3 / "config.json", tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tiny_phi3).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_headers_tell_shapes_and_sizes(tiny_phi3: Path) -> None:
    checkpoint = open_checkpoint(tiny_phi3)
    assert checkpoint.spec("lm_head.weight") == TensorSpec("lm_head.weight", "F32", (400, 64))
    assert "lm_head.bias" not in checkpoint


def test_writer_wants_its_order_and_sizes(tmp_path: Path) -> None:
    specs = [TensorSpec("a", "F32", (2,)), TensorSpec("b", "F32", (2,))]
    with (
        pytest.raises(ValueError, match="a is to be written next"),
        CheckpointWriter(tmp_path, specs) as writer,
    ):
        writer.write("b", [b"12345678"])
    with (
        pytest.raises(ValueError, match="a has 4 bytes, 8"),
        CheckpointWriter(tmp_path, specs) as writer,
    ):
        writer.write("a", [b"1234"])
    with (
        pytest.raises(ValueError, match="b was not written"),
        CheckpointWriter(tmp_path, specs) as writer,
    ):
        writer.write("a", [b"12345678"])


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(DrupeError, match=r"pytorch_model\.bin.*\n.*safe_serialization"):
        open_checkpoint(tmp_path)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match=r"holds neither model\.safetensors nor"):
        open_checkpoint(tmp_path)


def test_truncated_file(tiny_phi3: Path, tmp_path: Path) -> None:
    data = (tiny_phi3 / "model.safetensors").read_bytes()
    for length in (0, 4, 100, len(data) - 1):
        (tmp_path / "model.safetensors").write_bytes(data[:length])
        with pytest.raises(DrupeError, match="this file is damaged"):
            open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data + b"x")
    with pytest.raises(DrupeError, match="its header tells of"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (
            '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8"}}',
            "name 'a' is there twice",
        ),
        ('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}', "1 bytes, not 2"),
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}}', "does not begin"),
        ('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', "in F4, a type"),
        ('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,-1]}}', "has the shape"),
        ('{"a":3}', "cannot be read: 'int' object is not subscriptable"),
        ("[]", "cannot be read"),
    ],
)
def test_hostile_headers(header: str, fault: str, tmp_path: Path) -> None:
    text = header.encode()
    data = len(text).to_bytes(8, "little") + text + b"1"
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(DrupeError, match=fault):
        open_checkpoint(tmp_path)


def sharded(folder: Path) -> dict[str, str]:
    write(folder, {"a": torch.ones(4), "b": torch.ones(4)}, shard_bytes=16)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    weight_map: dict[str, str] = index["weight_map"]
    return weight_map


def test_missing_shard(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DrupeError, match=r"lacks model-00002.*1 of 2 shards"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "entry", ["../b.safetensors", "/etc/passwd", "x\\..\\..\\b", "C:\\b", "c:b"]
)
def test_index_that_leads_out_of_the_folder(entry: str, tmp_path: Path) -> None:
    weight_map = sharded(tmp_path)
    text = json.dumps({"weight_map": {**weight_map, "b": entry}})
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DrupeError, match="outside of the folder"):
        open_checkpoint(tmp_path)


def test_index_that_does_not_fit(tmp_path: Path) -> None:
    weight_map = sharded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {**weight_map, "c": weight_map["b"]}}))
    with pytest.raises(DrupeError, match='"c" lies in model-00002'):
        open_checkpoint(tmp_path)
    index.write_text("[]")
    with pytest.raises(DrupeError, match="no index of shards"):
        open_checkpoint(tmp_path)


def test_name_in_two_shards(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"a": torch.ones(4)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(DrupeError, match='holds the tensor "a" that model-00001'):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streamed_model_computes_the_same(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_tiny_phi3(tmp_path / "model", dtype=dtype, tie_word_embeddings=tied)
    network = streamed_model(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        for _ in range(2):  # the second time, after all was dropped
            ours, theirs = network(PROBE).logits, reference(PROBE).logits
            assert torch.equal(ours, theirs)
    held = {parameter.untyped_storage().nbytes() for parameter in network.parameters()}
    assert held == {4}


def test_streamed_model_of_other_names(tiny_phi3: Path, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_phi3)
    tensors = {name: source.read(name) for name in source.names}
    shutil.copy(tiny_phi3 / "config.json", tmp_path)
    norm = tensors.pop("model.norm.weight")
    write(tmp_path, {**tensors, "transformer.norm.weight": norm})
    with pytest.raises(NamesDifferError, match=r'no values for the parameter "model\.norm\.weight'):
        streamed_model(tmp_path)
    write(tmp_path, {**tensors, "model.norm.weight": torch.ones(65)})
    with pytest.raises(NamesDifferError, match=r"as \[65\], not \[64\]"):
        streamed_model(tmp_path)


def test_a_file_alone_is_a_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "adapter_model.safetensors")
    assert torch.equal(
        Checkpoint([tmp_path / "adapter_model.safetensors"]).read("a"), torch.ones(3)
    )
