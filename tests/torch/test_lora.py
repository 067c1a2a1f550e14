"""Training an adapter: the same bytes for the same seed, killed or not, and every refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT_LENGTH, make_tiny_phi3
from training import adapter_bytes, lora_step, told, trained

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.finetune import lora, training_checkpoints

# What comes out


def test_an_adapter_with_its_facts(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    training = {"eval_strategy": "steps", "eval_steps": 3}
    step = lora_step(phrases, training, eval_dataset_size=2, alpha=8.0)
    out, job, events = trained(step, tiny_phi3, tmp_path)
    weights = load_file(out / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.05)
    facts = job.facts
    assert (facts["samples"], facts["eval_samples"], facts["threads"]) == (6, 2, 1)
    assert facts["trainable_parameters"] == sum(weight.numel() for weight in weights.values())
    assert [point[0] for point in facts["losses"]] == [1, 2, 4, 6]
    assert [point[0] for point in facts["eval_losses"]] == [3, 6]
    assert facts["resumed_from"] is None
    assert facts["tokens"] > 100
    json.dumps(facts)
    *_, last = (event for event in events if event["event"] == "progress")
    assert (last["what"], last["done"], last["total"], last["unit"]) == ("training", 6, 6, "steps")
    assert last["loss"] == facts["losses"][-2][1], "live: as it was told last"


def test_the_adapter_names_nothing_of_this_machine(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    out, _, _ = trained(lora_step(phrases), tiny_phi3, tmp_path)
    settings = json.loads((out / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_phi3.name
    assert settings["target_modules"] == ["o_proj", "qkv_proj"]
    for file in out.iterdir():
        assert str(tiny_phi3.parent).encode() not in file.read_bytes(), file.name
    assert {file.name for file in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_tokenizer_is_the_models_own_byte_for_byte(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    """What transformers 5 would write lacks `legacy`, and names another class."""
    model = tmp_path / "published"
    shutil.copytree(tiny_phi3, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "tokenizer.model").write_bytes(b"pieces")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates/tools.jinja").write_text("{{ messages }}")
    out, _, _ = trained(lora_step(phrases, {"max_steps": 1}), model, tmp_path)
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    for name in (*names, "additional_chat_templates/tools.jinja"):
        assert (out / name).read_bytes() == (model / name).read_bytes(), name


def test_every_script_passes_in_blocks_too(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    _, job, events = trained(lora_step(phrases, text={"strategy": "join"}), tiny_phi3, tmp_path)
    assert job.facts["tokens"] == 96 * job.facts["samples"]
    assert any("fill none and were left out" in text for text in told(events))


def test_fewer_tokens_than_a_block_are_one_block(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    data = {"strategy": "join", "max_seq_len": 2048}
    step = lora_step(phrases, {"max_steps": -1, "num_train_epochs": 2}, data)
    few = step.train_data_config.load_dataset_config.model_copy(update={"split": "train[:2]"})
    data_config = step.train_data_config.model_copy(update={"load_dataset_config": few})
    step = step.model_copy(update={"train_data_config": data_config})
    _, job, events = trained(step, tiny_phi3, tmp_path)
    assert (job.facts["samples"], len(job.facts["losses"])) == (1, 2)
    assert told(events)[0] == (
        f"max_seq_len 2048 is cut to the model's context of {CONTEXT_LENGTH} tokens."
    )
    assert "one short block" in told(events)[1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_in_bfloat16_as_in_float32_with_an_adapter_in_float32(
    phrases: Path, tmp_path: Path, checkpointing: bool
) -> None:
    model = make_tiny_phi3(tmp_path / "model", dtype=torch.bfloat16)
    training = {"max_steps": 24, "learning_rate": 1e-2, "gradient_checkpointing": checkpointing}
    losses: dict[str, list[float]] = {}
    for dtype in ("float32", "bfloat16"):
        step = lora_step(
            phrases, training, torch_dtype=dtype, lora_dropout=0.0, target_modules="all-linear"
        )
        out, job, _ = trained(step, model, tmp_path, dtype)
        assert job.facts["dtype"] == dtype
        weights = load_file(out / "adapter_model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        losses[dtype] = [loss for _, loss in job.facts["losses"]]
    assert losses["float32"][-1] < losses["float32"][0] - 0.3
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_peft_has_no_default_so_all_linear_layers_are_adapted(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    out, _, events = trained(lora_step(phrases, target_modules=None), tiny_phi3, tmp_path)
    names = load_file(out / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in names} == {
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    }
    assert any("all linear layers are adapted" in text for text in told(events))


# The same bytes


def test_the_same_seed_gives_the_same_bytes(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    outs = [
        trained(lora_step(phrases, {"seed": seed}), tiny_phi3, tmp_path, f"run{number}")[0]
        for number, seed in enumerate((0, 0, 1))
    ]
    files = [{file.name: file.read_bytes() for file in out.iterdir()} for out in outs]
    assert files[0] == files[1]
    assert adapter_bytes(outs[0]) != adapter_bytes(outs[2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_killed_and_resumed_gives_the_bytes_of_an_unbroken_run(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, killed: Any, dtype: str
) -> None:
    training = {"max_steps": 12, "save_steps": 3, "gradient_accumulation_steps": 2}
    step = lora_step(phrases, training, torch_dtype=dtype, lora_dropout=0.1)
    whole, _, _ = trained(step, tiny_phi3, tmp_path, "whole")
    with pytest.raises(killed(8)):
        trained(step, tiny_phi3, tmp_path, "broken")
    killed(None)
    resumed, job, _ = trained(step, tiny_phi3, tmp_path, "broken")
    assert job.facts["resumed_from"] == 6
    assert adapter_bytes(resumed) == adapter_bytes(whole)
    assert [point[0] for point in job.facts["losses"]] == [1, 2, 4, 6, 8, 10, 12]


def test_checkpoints_come_by_the_clock(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    trained(lora_step(phrases), tiny_phi3, tmp_path)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["checkpoint-4", "checkpoint-5"]


@pytest.mark.parametrize("harm", ["unsigned", "short file", "lost file", "torn manifest"])
def test_a_torn_checkpoint_is_dropped(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, harm: str
) -> None:
    step = lora_step(phrases, {"save_steps": 2})
    whole, _, _ = trained(step, tiny_phi3, tmp_path)
    torn = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    if harm == "unsigned":
        (torn / training_checkpoints.MANIFEST).unlink()
    elif harm == "short file":
        with (torn / "optimizer.pt").open("rb+") as file:
            file.truncate(100)
    elif harm == "lost file":
        (torn / "rng_state.pth").unlink()
    else:
        (torn / training_checkpoints.MANIFEST).write_text('{"optim')
    before = adapter_bytes(whole)
    again, job, _ = trained(step, tiny_phi3, tmp_path)
    assert job.facts["resumed_from"] == 2
    assert adapter_bytes(again) == before


def test_without_checkpoints_it_begins_anew(tmp_path: Path) -> None:
    assert training_checkpoints.last_whole_checkpoint(tmp_path / "absent") is None


# What is told and refused


def test_steps_that_do_not_do_what_they_seem_to_say(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    training = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 187}
    step = lora_step(phrases, training, eval_dataset_size=0.25)
    _, job, events = trained(step, tiny_phi3, tmp_path)
    assert told(events) == [
        "max_steps 4 outweighs num_train_epochs 3 (18 steps).",
        (
            "eval_steps 187 is more than the 4 steps there are: the loss on the held-out rows is "
            "measured once, at the end."
        ),
    ]
    assert [point[0] for point in job.facts["eval_losses"]] == [4]


def test_evaluation_without_rows_is_told(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    step = lora_step(phrases, {"eval_strategy": "epoch"})
    _, job, events = trained(step, tiny_phi3, tmp_path)
    assert any("there are no rows to measure on" in text for text in told(events))
    assert job.facts["eval_losses"] == []


@pytest.mark.parametrize("names", [("qkv_prj",), ("o_proj", "qkv_prj")])
def test_a_module_that_is_not_there_is_named(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    what = r'names "qkv_prj", but the model has .*qkv_proj; did you mean "qkv_proj"\?'
    with pytest.raises(DrupeError, match=what):
        trained(lora_step(phrases, target_modules=names), tiny_phi3, tmp_path)


def with_token(model: Path, folder: Path, **tokens: str) -> Path:
    """Return a copy of `model` whose tokenizer has one token more than there are embeddings."""
    shutil.copytree(model, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_token_without_embedding_is_named(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    model = with_token(tiny_phi3, tmp_path / "model", eos_token="<|done|>")
    words = r'token 400 \("<\|done\|>"\), but the model has embeddings for 400 tokens, 0 to 399'
    with pytest.raises(DrupeError, match=words):
        trained(lora_step(phrases), model, tmp_path)


def test_a_padding_token_without_embedding_does_no_harm(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    model = with_token(tiny_phi3, tmp_path / "model", pad_token="<|fill|>")
    out, _, _ = trained(lora_step(phrases), model, tmp_path)
    plain, _, _ = trained(lora_step(phrases), tiny_phi3, tmp_path, "plain")
    assert adapter_bytes(out) == adapter_bytes(plain)


def test_pickled_weights_are_refused(phrases: Path, tmp_path: Path) -> None:
    model = make_tiny_phi3(tmp_path / "model")
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(DrupeError, match="has no weights as safetensors"):
        trained(lora_step(phrases), model, tmp_path)


def test_an_adapter_that_did_not_change_is_refused(
    tiny_phi3: Path, phrases: Path, tmp_path: Path
) -> None:
    step = lora_step(phrases, {"learning_rate": 1e-300})
    with pytest.raises(DrupeError, match="the adapter did not change"):
        trained(step, tiny_phi3, tmp_path)


def test_a_loss_that_is_no_number_stops_the_training(
    phrases: Path, tmp_path: Path, tiny_phi3: Path
) -> None:
    model = shutil.copytree(tiny_phi3, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DrupeError, match="LoRA, step 1: loss is nan, no number"):
        trained(lora_step(phrases), model, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in float16")
def test_auto_is_bfloat16_where_the_hardware_computes_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lora, "cpu_computes_bfloat16", lambda: True)
    assert lora.computing_type("auto") == torch.bfloat16
    monkeypatch.setattr(lora, "cpu_computes_bfloat16", lambda: False)
    assert lora.computing_type("auto") == torch.float32
    assert lora.computing_type("bfloat16") == torch.bfloat16


def test_a_training_that_came_apart_is_refused(tmp_path: Path) -> None:
    words = "come apart: the loss was 4 at the first step and is 7.34 at the last"
    with pytest.raises(DrupeError, match=words) as told:
        lora._check_losses([4.0, 5.0, 7.34], Job(tmp_path))
    assert told.value.remedy == "Lower learning_rate."


def test_a_loss_that_did_not_fall_is_told(phrases: Path, tmp_path: Path, tiny_phi3: Path) -> None:
    training = {"learning_rate": 1e3, "max_steps": 8, "max_grad_norm": 0.0}
    _, _, events = trained(lora_step(phrases, training), tiny_phi3, tmp_path)
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    assert any("has learnt nothing of use: the loss was" in text for text in warnings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in float16")
def test_float16_is_refused_on_a_cpu() -> None:
    with pytest.raises(DrupeError, match="is float16, in which a CPU cannot train"):
        lora.computing_type("float16")


@pytest.mark.parametrize(
    ("listing", "computes"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("processor: 0\nFeatures : fp asimd bf16 sve\n", True),
        ("", False),
    ],
)
def test_the_processors_flags_decide(tmp_path: Path, listing: str, computes: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(listing)
    assert lora.cpu_computes_bfloat16(file) is computes
    assert lora.cpu_computes_bfloat16(tmp_path / "absent") is False
