"""`drupe inspect` on checkpoints and adapters: what is told, and that no weight is read for it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import main
from drupe.core.errors import Refused
from drupe.inspect.inspection import Inspection
from drupe.inspect.look import inspect
from drupe.inspect.weights import part_of
from tests.plain.checkpoints import safetensors
from tests.waiting import MOST_SECONDS

Captured = pytest.CaptureFixture[str]
LAYER = "model.layers.{}."
LAYERS = {
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.v_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.gate_proj.weight": (16, 8),
    "mlp.up_proj.weight": (16, 8),
    "mlp.down_proj.weight": (8, 16),
    "input_layernorm.weight": (8,),
    "post_attention_layernorm.weight": (8,),
}
LLAMA = {
    "model.embed_tokens.weight": (10, 8),
    **{LAYER.format(layer) + name: shape for layer in (0, 1) for name, shape in LAYERS.items()},
    "model.norm.weight": (8,),
    "lm_head.weight": (10, 8),
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "transformers_version": "5.20.0",
}
REMEDY = (
    "Give a Hugging Face checkpoint, a PEFT adapter, a folder of ONNX Runtime GenAI, a file of "
    "weights, or the output folder of a run."
)


def llama(folder: Path, **config: Any) -> Path:
    """Write a checkpoint of Llama in bfloat16 that drupe could export."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(safetensors(LLAMA, "BF16"))
    return folder


def adapter(folder: Path, **config: Any) -> Path:
    """Write an adapter of rank 2 for queries."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["v_proj", "q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{prefix}.lora_A.weight": (2, 8), f"{prefix}.lora_B.weight": (8, 2)}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(shapes, "F32"))
    return folder


def shares(found: Inspection) -> dict[str, tuple[int, int, int]]:
    return {
        share.name: (share.tensors, share.parameters, share.size_bytes)
        for share in found.weights.parts
    }


def test_a_checkpoint(tmp_path: Path) -> None:
    found = inspect(llama(tmp_path))
    assert found.kind == "hf"
    assert shares(found) == {
        "embedding": (1, 80, 160),
        "attention": (8, 384, 768),
        "MLP": (6, 768, 1536),
        "norms": (5, 40, 80),
        "head": (1, 80, 160),
    }
    assert found.weights.total.parameters == 1352
    assert found.weights.bits_per_weight == 16
    assert [(each.name, each.tensors) for each in found.weights.dtypes] == [("bfloat16", 21)]
    assert found.weights.files == {
        "model.safetensors": (tmp_path / "model.safetensors").stat().st_size
    }
    assert found.family
    assert (found.family.architecture, found.family.exporter) == ("LlamaForCausalLM", "drupe")
    assert found.sizes
    assert (found.sizes.layers, found.sizes.head_size, found.sizes.tied) == (2, 2, False)
    assert found.tokenizer is None
    assert found.licence is None
    assert found.provenance == {"transformers": "5.20.0"}


def test_shards_are_one_model_and_a_second_copy_is_none(tmp_path: Path) -> None:
    llama(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "consolidated.safetensors")
    names = list(LLAMA)
    halves = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for file, held in halves.items():
        content = safetensors({name: LLAMA[name] for name in held}, "BF16")
        (tmp_path / file).write_bytes(content)
    index = {name: file for file, held in halves.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = inspect(tmp_path)
    assert found.weights.total.parameters == 1352
    assert list(found.weights.files) == ["one.safetensors", "two.safetensors"]
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(Refused, match=r"lacks two\.safetensors, which model\.safetensors\.index"):
        inspect(tmp_path)
    index["model.norm.weight"] = "../elsewhere.safetensors"
    (tmp_path.parent / "elsewhere.safetensors").write_bytes(safetensors())
    (tmp_path / "two.safetensors").write_bytes(safetensors())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    told = r'names the file "\.\./elsewhere\.safetensors", which does not lie beside it'
    with pytest.raises(Refused, match=told):
        inspect(tmp_path)


def test_weights_are_described_and_not_read(tmp_path: Path) -> None:
    llama(tmp_path)
    entry = {"dtype": "F32", "shape": [2**20, 2**17], "data_offsets": [0, 2**39]}
    text = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2**39)  # half a terabyte, none of it on disk
    assert inspect(tmp_path).weights.total.size_bytes == 2**39


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_neither_torch_nor_onnx_is_loaded(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from drupe.cli import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'onnx', 'onnx_ir'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "inspect", str(llama(tmp_path)), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LlamaForCausalLM" in done.stdout


@pytest.mark.parametrize(
    ("config", "exporter", "why"),
    [
        ({"hidden_act": "relu6"}, "onnxruntime-genai", 'has the activation "relu6"'),
        ({"architectures": ["PhiForCausalLM"]}, "onnxruntime-genai", "not among drupe's own"),
        (
            {"architectures": ["MixtralForCausalLM"], "num_local_experts": 8},
            None,
            "it is a mixture of experts (8 in a layer)",
        ),
        ({"architectures": ["BertModel"]}, None, "neither drupe nor ONNX Runtime GenAI's builder"),
        (
            {"intermediate_size": 24},
            None,
            'it has "model.layers.0.mlp.gate_proj.weight" of the shape [16, 8]; its config.json',
        ),
        ({"num_attention_heads": 0}, "onnxruntime-genai", "config.json cannot be read: ZeroDiv"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            None,
            "its weights are quantized already (gptq, 4 bits)",
        ),
    ],
)
def test_who_exports_it_and_why_not(
    config: dict[str, Any], exporter: str | None, why: str, tmp_path: Path
) -> None:
    family = inspect(llama(tmp_path, **config)).family
    assert family
    assert family.exporter == exporter
    assert why in family.why


def test_sizes_of_older_and_of_nested_configs(tmp_path: Path) -> None:
    old = {"architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 8, "n_head": 4}
    llama(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(old))
    sizes = inspect(tmp_path).sizes
    assert sizes
    assert (sizes.layers, sizes.hidden, sizes.head_size, sizes.vocabulary) == (2, 8, 2, None)
    nested = {"architectures": ["LlavaForConditionalGeneration"], "text_config": CONFIG}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    sizes = inspect(tmp_path).sizes
    assert sizes
    assert (sizes.layers, sizes.vocabulary) == (2, 10)


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"quant_method": "gptq", "bits": 4}, ("qweight", "scales", "qzeros", "g_idx")),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("weight", "weight.absmax")),
    ],
)
def test_codes_hold_several_parameters(
    told: dict[str, Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    llama(tmp_path, quantization_config=told)
    shapes = {f"model.layers.0.mlp.up_proj.{name}": (64,) for name in names}
    (tmp_path / "model.safetensors").write_bytes(safetensors(shapes))
    found = inspect(tmp_path)
    assert found.weights.total.parameters == 128, "two codes a byte; what is beside them holds none"
    assert {share.name for share in found.weights.dtypes} == {"int4", "uint8"}
    assert found.weights.bits_per_weight == 4 * len(names)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.layers.0.post_attention_layernorm.weight", "norms"),
        ("transformer.h.0.ln_1.weight", "norms"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "rotary tables"),
        ("cos_cache", "rotary tables"),
        ("model.layers.0.block_sparse_moe.gate.weight", "MLP"),
        ("layers.0.attention.qkv.codes", "attention"),
        ("lm_head.MatMul.weight_Q4", "head"),
        ("weight", "other"),
    ],
)
def test_what_a_tensor_is_for(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("config", "method"),
    [({}, "LoRA"), ({"use_dora": True}, "DoRA"), ({"peft_type": "LOHA"}, "LoHa")],
)
def test_an_adapter(config: dict[str, Any], method: str, tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    found = inspect(adapter(tmp_path / "one", base_model_name_or_path=str(base), **config))
    assert found.kind == "hf-adapter"
    assert found.adapter
    assert (found.adapter.method, found.adapter.rank, found.adapter.alpha) == (method, 2, 4)
    assert found.adapter.targets == ("q_proj", "v_proj")
    assert found.family
    assert found.family.architecture == "LlamaForCausalLM", "its base's"
    assert shares(found) == {"attention": (2, 32, 128)}


def test_an_adapter_of_a_base_in_4_bits_whose_base_is_not_here(tmp_path: Path) -> None:
    adapter(tmp_path, base_model_name_or_path="owner/name")
    told = {
        "format": 1,
        "method": "bitsandbytes",
        "quant_type": "nf4",
        "double_quant": True,
        "dtype": "bfloat16",
        "compute_dtype": "bfloat16",
        "modules": [],
    }
    (tmp_path / "quantized_base.json").write_text(json.dumps(told))
    found = inspect(tmp_path)
    assert found.adapter
    assert (found.adapter.method, found.adapter.base) == ("QLoRA", "owner/name")
    assert found.adapter.quantized_base == "nf4, double quantization"
    assert found.family is None


def test_the_tokenizer(tmp_path: Path) -> None:
    llama(tmp_path)
    added = [{"id": 1, "content": "b"}, {"id": 2, "content": "<end>"}]
    whole = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    settings = {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ x }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = inspect(tmp_path).tokenizer
    assert found
    assert (found.kind, found.vocabulary, found.added) == ("LlamaTokenizer", 3, 2)
    assert found.chat_template == "tokenizer_config.json"
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    whole["model"] = {"vocab": [["a", -1.0], ["b", -2.0]]}  # as Unigram has it
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    found = inspect(tmp_path).tokenizer
    assert found
    assert (found.vocabulary, found.chat_template) == (3, "chat_template.jinja")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Refused, match=r"tokenizer\.json: cannot be read as JSON"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("card", "licence", "expected"),
    [
        ("---\nlicense: mit\nbase_model: a/b\n---\n# x", None, ("mit", "README.md")),
        ("---\r\nlicense: other\r\nlicense_name: own\r\n---\r\n", None, ("own", "README.md")),
        (
            "---\nlicense: [\n---\n",
            "\n  Apache License\nVersion 2.0",
            ("Apache License", "LICENSE"),
        ),
        ("# x\nlicense: mit\n", None, None),
        (None, None, None),
    ],
)
def test_the_licence(
    card: str | None, licence: str | None, expected: tuple[str, str] | None, tmp_path: Path
) -> None:
    llama(tmp_path)
    for name, text in (("README.md", card), ("LICENSE", licence)):
        if text is not None:
            (tmp_path / name).write_bytes(text.encode())
    found = inspect(tmp_path)
    assert (found.licence and (found.licence.name, found.licence.file)) == expected
    assert found.provenance.get("base_model") == ("a/b" if card and "a/b" in card else None)


def test_a_snapshot_of_the_hub_names_its_commit(tmp_path: Path) -> None:
    folder = llama(tmp_path / "models--owner--a-name" / "snapshots" / "0123abc")
    assert inspect(folder).provenance["hub"] == "owner/a-name@0123abc"


def run_output(folder: Path, model: str) -> Path:
    """Write what a run of drupe leaves: a report, a lock; return the place of its model."""
    folder.mkdir()
    report = {
        "drupe": "0.1.0",
        "model": model,
        "input_model": {"name": "owner/name", "revision": "0123abc"},
        "verdict": "It answers alike.",
    }
    (folder / "report.json").write_text(json.dumps(report))
    passes = {"lora": {"type": "LoRA"}, "merge": {"type": "MergeAdapterWeights"}}
    (folder / "config.lock.json").write_text(json.dumps({"config": {"passes": passes}}))
    return folder / model


def test_what_a_run_made(tmp_path: Path) -> None:
    model = llama(run_output(tmp_path / "out", "lora-merge/cpu-cpu_model"))
    expected = {
        "transformers": "5.20.0",
        "drupe": "0.1.0",
        "input_model": "owner/name@0123abc",
        "passes": "LoRA, MergeAdapterWeights",
        "verdict": "It answers alike.",
    }
    for path in (tmp_path / "out", model):
        found = inspect(path)
        assert found.provenance == expected
        assert found.path == str(model)
    alien = llama(tmp_path / "out" / "another" / "model")
    assert "drupe" not in inspect(alien).provenance, "the report is of another model"


@pytest.mark.parametrize("model", ["gone", "../beside"])
def test_a_report_without_its_model(model: str, tmp_path: Path) -> None:
    run_output(tmp_path / "out", model)
    llama(tmp_path / "beside")
    with pytest.raises(Refused, match="the model that its report names is not there\n  Run it"):
        inspect(tmp_path / "out")


def test_what_is_no_model(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(Refused) as caught:
            inspect(path)
        return str(caught.value)

    assert told(tmp_path / "gone") == f"{tmp_path / 'gone'}: is not there\n  {REMEDY}"
    assert told(tmp_path) == f"{tmp_path}: holds no model that drupe knows\n  {REMEDY}"
    file = tmp_path / "notes.txt"
    file.write_text("x")
    assert told(file) == f"{file}: is a file, and neither .safetensors nor .onnx\n  {REMEDY}"
    (tmp_path / "config.json").write_text("{}")
    assert "has a config.json and no *.safetensors: its weights are not there" in told(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "holds its weights as a pickle (pytorch_model.bin)" in told(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (safetensors()[:-2], "is no whole safetensors file: it is 109 bytes long, but its header"),
        (safetensors()[:20], "is no whole safetensors file: it has no header"),
        (b"version https://git-lfs", "is a pointer of Git LFS, not the file\n  git lfs pull"),
    ],
)
def test_a_file_of_weights_that_is_not_whole(content: bytes, told: str, tmp_path: Path) -> None:
    llama(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    for path in (tmp_path, file):
        with pytest.raises(Refused) as caught:
            inspect(path)
        assert str(caught.value).startswith(f"{file}: ")
        assert told in str(caught.value)


def test_a_file_alone(tmp_path: Path) -> None:
    found = inspect(llama(tmp_path) / "model.safetensors")
    assert found.weights.total.parameters == 1352
    assert found.family is None


@pytest.mark.parametrize("columns", ["60", "120"])
def test_what_is_shown(
    columns: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    llama(tmp_path)
    hostile = "[red]\\u001b]0;title\\u0007[/red]"
    (tmp_path / "README.md").write_text(f'---\nlicense: mit\nbase_model: "{hostile}"\n---\n')
    assert main(["inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    first, *rest = shown.splitlines()
    assert first == f"{tmp_path}: Hugging Face checkpoint"
    assert max(map(len, rest)) <= int(columns)
    assert "[red]\ufffd]0;title\ufffd[/red]" in shown, "a text of the model's obeys nobody"
    words = " ".join(shown.split())
    for part in (
        "family LlamaForCausalLM (llama), which drupe exports",
        "layers 2 of 8, MLP 16, 4 heads of 2, 2 for keys and values",
        "tokens vocabulary 10, context 64",
        "1.35 k parameters, ",
        "tokenizer none",
        "licence mit (README.md)",
        "attention 8 384 768 B 16 ",
        "all 21 1.35 k 2.7 kB 16 ",
        "bfloat16 21 1.35 k 2.7 kB",
    ):
        assert part in words


def test_as_json(tmp_path: Path, capsys: Captured) -> None:
    assert main(["inspect", str(llama(tmp_path)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == inspect(tmp_path).to_json()
    assert told["weights"]["parts"][0] == {
        "name": "embedding",
        "tensors": 1,
        "parameters": 80,
        "size_bytes": 160,
        "bits_per_weight": 16.0,
    }
    assert main(["inspect", os.devnull, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["remedy"] == REMEDY
