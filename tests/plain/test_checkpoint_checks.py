"""What a checkpoint's folder lacks is seen at plan time, in one sentence."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drupe.core.dataset import Dataset, LoadDataset
from drupe.core.digest import DigestMemo
from drupe.core.errors import Refused
from drupe.core.model import Model, check_kind, model_files
from drupe.finetune.passes import LoftQ, LoRA, MergeAdapterWeights, QLoRA
from drupe.resources.checks import check_adapter, check_checkpoint
from drupe.resources.models import Located, locate, locate_adapter, locate_files
from tests.plain.checkpoints import PHI3, make_checkpoint, safetensors


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model")


def located(folder: Path) -> Located:
    return locate(folder.name, folder.parent, None, False, DigestMemo())


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def test_a_whole_checkpoint_is_not_refused(checkpoint: Path) -> None:
    check_checkpoint(checkpoint)
    shards = {"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(shards))
    check_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", r"config\.json: cannot be read as JSON: Expecting property name"),
        ("config.json", b"\xff", r"config\.json: cannot be read as JSON: 'utf-8' codec"),
        ("config.json", b"[]", r"config\.json: holds no JSON object"),
        ("config.json", b"{}", r'config\.json: names no "architectures"'),
        ("config.json", b'{"architectures": []}', r'config\.json: names no "architectures"'),
        ("config.json", b'{"architectures": "A"}', r'config\.json: names no "architectures"'),
        ("model.safetensors", b"", r"model\.safetensors: is no whole safetensors file: it has no"),
        ("model.safetensors", safetensors()[:20], "is no whole safetensors file: it has no header"),
        ("model.safetensors", safetensors()[:-1], r"is \d+ bytes long, but its header tells"),
        ("model.safetensors", safetensors() + b"x", "bytes long, but its header tells of"),
        ("model.safetensors", header(b"{]"), "its header cannot be read"),
        ("model.safetensors", header(b"[]"), "its header cannot be read"),
        ("model.safetensors", header(b'{"a": {}}'), "its header cannot be read"),
        ("model.safetensors", header(b"[" * 90_000), "its header cannot be read"),
        ("model.safetensors", b"\xff" * 99, "is no whole safetensors file: it has no header"),
        ("model.safetensors", b"version https://git-lfs.github", "is a pointer of Git LFS"),
        ("model.safetensors.index.json", b"{}", 'has no "weight_map"'),
        ("model.safetensors.index.json", b"", "cannot be read as JSON"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}',
            r"model: lacks model-2\.safetensors, which model\.safetensors\.index\.json names",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be(
    name: str, content: bytes, words: str, checkpoint: Path
) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(Refused, match=words) as told:
        check_checkpoint(checkpoint)
    assert told.value.remedy
    assert "\n" not in told.value.what


def test_a_config_that_is_not_the_weights_own(tmp_path: Path) -> None:
    config = {"vocab_size": 6, "hidden_size": 2}
    check_checkpoint(make_checkpoint(tmp_path / "fits", PHI3, **config))
    check_checkpoint(make_checkpoint(tmp_path / "silent", PHI3))
    other = make_checkpoint(tmp_path / "other", PHI3, vocab_size=7, hidden_size=2)
    words = r"says vocab_size 7 and hidden_size 2, but the weights have 6 x 2 \(model\.embed_tokens"
    with pytest.raises(Refused, match=words):
        check_checkpoint(other)


def refusal(folder: Path, *names: str) -> str:
    files = LoadDataset(data_files=(folder / "rows.json",))
    rows = Dataset(name="rows", load_dataset_config=files)
    found = LoRA(train_data_config=rows, target_modules=names).refusal_of_source(
        Model("hf", folder, "")
    )
    return "" if found is None else f"{found.where}: {found.what}\n{found.remedy}"


def test_target_modules_that_the_weights_do_not_have(tmp_path: Path) -> None:
    phi3 = make_checkpoint(tmp_path / "phi3", PHI3)
    for names in (("o_proj",), ("o_proj", "qkv_proj"), ("self_attn.o_proj",), ("all-linear",)):
        assert refusal(phi3, *names) == ""
    assert refusal(phi3, "lm_head") == "", "it may be tied to the embeddings"
    assert refusal(phi3, "o_proj", "o_prog") == (
        'target_modules: names "o_prog", but the model has the linear layers o_proj, qkv_proj; '
        'did you mean "o_proj"?\nName some of them, or "all-linear".'
    )
    assert 'names "proj"' in refusal(phi3, "proj"), "a part of a name is no name"
    experts = {"model.layers.0.mlp.experts.0.w1.weight": (2, 2), **PHI3}
    assert refusal(make_checkpoint(tmp_path / "experts", experts), "gate_up_proj") == ""


def test_an_output_layer_that_is_the_embedding(tmp_path: Path) -> None:
    tied = make_checkpoint(tmp_path / "tied", PHI3, tie_word_embeddings=True)
    assert refusal(tied, "o_proj", "lm_head") == (
        'target_modules: names "lm_head", but its weights are tied to the embedding: an adapter of '
        "it could not be merged\nLeave lm_head out."
    )
    assert refusal(tied, "o_proj") == refusal(tied, "all-linear") == ""
    apart = {**PHI3, "lm_head.weight": (6, 2)}
    apart_folder = make_checkpoint(tmp_path / "apart", apart, tie_word_embeddings=False)
    assert refusal(apart_folder, "lm_head") == ""


def test_a_model_without_a_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(Refused, match=r"model: has no tokenizer \(tokenizer\.json, "):
        check_checkpoint(checkpoint)
    check_checkpoint(checkpoint, needs_tokenizer=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, "") for name in ("tokenizer.model", "source.spm", "vocab.txt", "vocab.json")),
        ("qwen.tiktoken", ""),
        ("tokenizer_config.json", '{"tokenizer_class": "ByT5Tokenizer"}'),
    ],
)
def test_each_kind_of_tokenizer_is_one(name: str, content: str, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (checkpoint / name).write_text(content)
    check_checkpoint(checkpoint)


def test_a_kind_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not a Hugging Face checkpoint") as told:
        check_kind("hf", tmp_path)
    assert told.value.exit_code == 2


def test_a_file_is_no_folder(checkpoint: Path) -> None:
    base = located(checkpoint).model
    words = r"model\.safetensors: is a file\n  Give the folder of"
    with pytest.raises(Refused, match=words):
        located(checkpoint / "model.safetensors")
    with pytest.raises(Refused, match=words):
        locate_adapter("model.safetensors", checkpoint, base, DigestMemo())


def make_adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(safetensors({"weight": (6,)}))
    return folder


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    words = r'is an adapter, no whole model\n  Give its base .* this folder as "adapter_path"\.'
    with pytest.raises(Refused, match=words):
        located(make_adapter(tmp_path / "adapter"))


def test_an_adapter_is_looked_at(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    check_adapter(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(safetensors()[:-1])
    with pytest.raises(Refused, match="but its header tells of"):
        check_adapter(adapter)


# What is the model


DELIVERED = (
    *("LICENSE", "LICENSE.md", "NOTICE", "source.spm", "vocab.bpe", "tokenizer.json"),
    *("merges.txt", "chat_template.jinja", "modeling_own.py", "qwen.tiktoken"),
    "additional_chat_templates/tool.jinja",
)
LEFT_OUT = (
    *("README.md", "picture.png", "pytorch_model.bin", "tokenizer.pkl", "vocab.pt", "model.h5"),
    *("onnx/config.json", "additional_chat_templates/tool.pkl"),
)


def put(folder: Path, name: str, text: str = "x") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("name", DELIVERED)
def test_what_is_delivered_is_in_the_digest(name: str, checkpoint: Path) -> None:
    put(checkpoint, name, "{}")
    before = located(checkpoint).model.digest
    put(checkpoint, name, "[]")
    assert located(checkpoint).model.digest != before


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_not_the_model_is_not(name: str, checkpoint: Path) -> None:
    before = located(checkpoint).model.digest
    put(checkpoint, name)
    assert located(checkpoint).model.digest == before


def test_a_link_to_a_file_is_that_file(checkpoint: Path, tmp_path: Path) -> None:
    """As they lie in the cache of the Hub."""
    before = located(checkpoint)
    blob = tmp_path / "blob"
    (checkpoint / "model.safetensors").rename(blob)
    (checkpoint / "model.safetensors").symlink_to("../blob")
    after = located(checkpoint)
    assert (after.model.digest, after.size_bytes) == (before.model.digest, before.size_bytes)


def sizes(folder: Path, files: Callable[[Path], list[Path]]) -> int:
    return sum(file.stat().st_size for file in files(folder))


def test_the_size_is_that_of_the_model(checkpoint: Path, tmp_path: Path) -> None:
    put(checkpoint, "picture.png", "x" * 999)
    model = located(checkpoint)
    assert model.size_bytes == sizes(checkpoint, model_files) < 999
    folder = make_adapter(tmp_path / "adapter")
    adapter = locate_adapter("adapter", tmp_path, model.model, DigestMemo())
    whole = Located(adapter, "model")
    assert whole.size_bytes == sizes(folder, model_files) + model.size_bytes
    files = locate_files("adapter", tmp_path, DigestMemo())
    assert files.size_bytes == sizes(folder, model_files)


def rows() -> Dataset:
    return Dataset(name="rows", load_dataset_config=LoadDataset(data_files=(Path("rows.json"),)))


@pytest.mark.parametrize(
    ("kind", "base", "words"),
    [
        (LoRA, "auto", None),
        (LoRA, "original", None),
        (LoRA, "dequantized", "nothing tells that the adapter was trained on a 4-bit base"),
        (QLoRA, "dequantized", None),
        (QLoRA, "original", None),
        (LoftQ, "auto", None),
        (LoftQ, "original", "holds what rounding to 4 bits took from the base"),
    ],
)
def test_a_base_that_the_adapter_will_not_be_for(
    kind: type[LoRA], base: Any, words: str | None, tmp_path: Path
) -> None:
    source = Model("hf", make_checkpoint(tmp_path / "model", PHI3), "")
    before = kind(train_data_config=rows())
    refused = MergeAdapterWeights(base=base).refusal_behind(before, source)
    assert (refused is None) == (words is None)
    assert refused is None or (words in refused.what and refused.where == "base")


@pytest.mark.parametrize("added", [0, 2])
def test_an_adapter_with_added_tokens_is_told_before_any_work(added: int, tmp_path: Path) -> None:
    base = Model("hf", make_checkpoint(tmp_path / "model", PHI3), "")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    name = "base_model.model.model.embed_tokens.weight"
    (folder / "adapter_model.safetensors").write_bytes(safetensors({name: (6 + added, 2)}))
    refused = MergeAdapterWeights().refusal_of_source(Model("hf-adapter", folder, "", base))
    assert (refused is not None) == bool(added)
    assert refused is None or "[8, 2], where the base has [6, 2]: tokens were added" in refused.what
