"""The verbs of one step: a command line's words become a config that is checked like any other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from drupe.cli import main, quantize
from drupe.cli.single import input_model, options_of, place_of
from drupe.core.errors import Refused
from drupe.finetune.passes import LoRA
from drupe.resources.models import called
from tests.plain.checkpoints import PHI3, make_checkpoint


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--r", "8"], [("--r", "8")]),
        (["--r=8", "--alpha", "4"], [("--r", "8"), ("--alpha", "4")]),
        (["--target-modules", "a", "b"], [("--target-modules", '["a", "b"]')]),
        (["--exclude-embeds", "--r", "8"], [("--exclude-embeds", "true"), ("--r", "8")]),
        (["--text-template={q} = {a}"], [("--text-template", "{q} = {a}")]),
        (["--text-template", r"{q}\n{a}"], [("--text-template", "{q}\n{a}")]),
        (["--text-template", r'"{q}\n{a}"'], [("--text-template", r'"{q}\n{a}"')]),
        (["--data-dir", r"D:\new"], [("--data-dir", r"D:\new")]),
        (["--seed", "-1"], [("--seed", "-1")]),
        ([], []),
    ],
)
def test_words_become_fields(words: list[str], expected: list[tuple[str, str]]) -> None:
    assert list(options_of(words)) == expected


def test_a_word_behind_no_option() -> None:
    with pytest.raises(Refused, match=r'"stray": belongs to no option\n  Write: --name value'):
        list(options_of(["stray", "--r", "8"]))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("r", "passes.lora.r"),
        ("learning_rate", "passes.lora.training_args.learning_rate"),
        ("text_template", "data_configs.data.pre_process_data_config.text_template"),
        ("split", "data_configs.data.load_dataset_config.split"),
        ("training_args.seed", "passes.lora.training_args.seed"),
        ("unheard_of", "passes.lora.unheard_of"),
    ],
)
def test_where_a_field_belongs(name: str, place: str) -> None:
    assert place_of(name, LoRA, "lora") == place


def adapter(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True)
    settings = {"base_model_name_or_path": base, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_what_an_adapter_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_checkpoint(tmp_path / "model", PHI3)
    assert input_model("model", None) == {"type": "HfModel", "model_path": "model"}
    assert input_model("owner/name", None)["model_path"] == "owner/name"
    mine = adapter(tmp_path / "mine", str(model))
    expected = {"type": "HfModel", "model_path": str(model), "adapter_path": str(mine)}
    assert input_model(str(mine), None) == expected
    assert input_model(str(mine), "other")["model_path"] == "other", "what is said outweighs it"
    lost = adapter(tmp_path / "lost", "elsewhere")
    with pytest.raises(Refused, match="nothing here tells the model that it was trained on"):
        input_model(str(lost), None)
    with pytest.raises(Refused, match="belongs to an adapter, and model is none"):
        input_model("model", "other")


def test_what_a_run_made_tells_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "model", PHI3)
    made = adapter(tmp_path / "tuned" / "lora" / "cpu-cpu_model", "model-of-another-machine")
    (tmp_path / "tuned" / "report.json").write_text('{"model": "lora/cpu-cpu_model"}')
    lock = {"config": {"input_model": {"model_path": "model"}}}
    (tmp_path / "tuned" / "config.lock.json").write_text(json.dumps(lock))
    found = input_model("tuned", None)
    assert found["model_path"] == "model"
    assert Path(found["adapter_path"]).samefile(made)


def test_what_a_run_delivered_is_called_as_its_output_folder(tmp_path: Path) -> None:
    made = tmp_path / "merged" / "merge" / "cpu-cpu_model"
    assert called(made) == "cpu-cpu_model", "nothing says that a run made it"
    made.mkdir(parents=True)
    (tmp_path / "merged" / "config.lock.json").write_text("{}")
    assert called(made) == "merged"
    assert called(tmp_path / "merged") == "merged"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["finetune", "m", "-o", "x"], "drupe finetune: needs rows to train on\n  Name them: --da"),
        (["export", "m", "-o", "x", "--data", "d.json"], "--data: ModelBuilder reads no rows"),
        (
            ["apply", "LoRAs", "m", "-o", "x"],
            "LoRAs: is not one of drupe's passes; did you mean \"",
        ),
        (["export", "m", "-o", "x"], "the command line: passes.export.precision is missing"),
        (
            ["export", "m", "-o", "x", "--precisoin", "int4"],
            '--precisoin: precisoin is unknown; did you mean "precision"?',
        ),
        (
            ["export", "m", "-o", "x", "--precision", "int4", "--int4-block-size", "7"],
            "--int4-block-size: int4_block_size: input should be 16, 32, 64, 128 or 256 (found 7)",
        ),
        (
            ["finetune", "m", "-o", "x", "--data", "m/config.json", "--learning-rate", "fast"],
            '--learning-rate: learning_rate: input should be a valid number (found "fast")',
        ),
        (
            ["finetune", "m", "-o", "x", "--data", "m/config.json", "--max-seq-len=much"],
            '--max-seq-len: max_seq_len: input should be a valid integer (found "much")',
        ),
        (
            ["finetune", "m", "-o", "x", "--data", "m/config.json", "--set", "passes.lora.r=x"],
            "--set: passes.lora.r: input should be a valid integer",
        ),
        (
            ["apply", "LoRA", "m", "-o", "x", "--text-template", "{a}"],
            "--text-template: is about the rows to train on, and none are named\n  Name them: --",
        ),
        (
            ["quantize", "m", "-o", "x", "--precision", "fp16"],
            "; drupe quantize writes int4 or int8\n  Write: drupe export m --precision fp16 -o x\n",
        ),
        (
            ["quantize", "m", "-o", "x", "--set", "passes.quantize.precision=fp32"],
            "--precision: is fp32, which keeps the weights as floats",
        ),
        (["quantize", "m", "-o", "x", "--data", "d.json"], "--data: ModelBuilder reads no rows"),
        (["quantize", "m", "-o", "x", "--precision", "int3"], "--precision: precision: input"),
        (["merge", "m", "-o", "x"], "merge (MergeAdapterWeights): works on hf-adapter, but what"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "m", PHI3, vocab_size=6, hidden_size=2)
    assert main(words) == 2
    assert told in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"m"}, "nothing was written"


@pytest.mark.parametrize(
    ("words", "precision", "block_size"),
    [
        ([], "int4", 32),
        (["--precision", "int8"], "int8", 32),
        (["--int4-block-size", "64"], "int4", 64),
    ],
)
def test_quantizing_is_exporting_in_few_bits(
    words: list[str], precision: str, block_size: int, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "m", PHI3, vocab_size=6, hidden_size=2)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    quantize.add_arguments(parser)
    arguments, fields = parser.parse_known_args([str(model), "-o", str(tmp_path / "x"), *words])
    arguments.fields = fields
    (stage,) = quantize.quantizing(arguments).passes
    assert (stage.name, stage.type) == ("quantize", "ModelBuilder")
    fields_of_step = dict(stage.step)
    assert (fields_of_step["precision"], fields_of_step["int4_block_size"]) == (
        precision,
        block_size,
    )


def test_options_of_a_verb_that_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["passes", "--r", "8"])
    assert "unrecognized arguments: --r" in capsys.readouterr().err


def test_what_is_not_there_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["merge", "gone", "-o", "x"]) == 2
    told = capsys.readouterr().err
    assert '"gone" is no folder' in told
    assert "works on hf-adapter" not in told, "nobody knows what it would be"
