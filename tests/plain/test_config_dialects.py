"""Olive's older words: each rule from its old form, and no rule twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.dialects import Note, names, upgrade
from drupe.config.dialects.builder import BUILDER_ALONE, WORDS
from drupe.config.dialects.harmless import LORA
from drupe.config.dialects.known import Refusal
from drupe.config.dialects.trainer import TRAINING
from drupe.config.source import Map, read

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def upgraded(tmp_path: Path) -> Any:
    def upgrading(config: dict[str, Any]) -> tuple[Map, list[Note]]:
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config, indent=1))
        root = read(file)
        return root, upgrade(root)

    return upgrading


def data(fields: dict[str, Any]) -> dict[str, Any]:
    return {"data_configs": [{"name": "rows", "pre_process_data_config": fields}]}


def lora(fields: dict[str, Any]) -> dict[str, Any]:
    return {"passes": {"lora": {"type": "LoRA", **fields}}}


def builder(fields: dict[str, Any]) -> dict[str, Any]:
    return {"passes": {"b": {"type": "ModelBuilder", "precision": "int4", **fields}}}


def chain(*passes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a config of passes that are called as their types."""
    return {"passes": {kind: {"type": kind, **fields} for kind, fields in passes}}


GPU = {"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}

# (rules that speak, old form, canonical form)
CASES: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
    "N11 model, systems, passes": (
        [],
        {
            "input_model": {"type": "HfModel", "config": {"model_path": "m"}},
            "systems": {"here": {"type": "LocalSystem", "config": {"hf_token": True}}},
            "passes": {"b": {"type": "ModelBuilder", "config": {"precision": "int4"}}},
        },
        {
            "input_model": {"type": "HfModel", "model_path": "m"},
            "systems": {"here": {"type": "LocalSystem", "hf_token": True}},
            "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}},
        },
    ),
    "N1 named data configs": (
        ["N1"],
        {"data_configs": {"one": {"type": "X"}, "two": {"name": "second"}}},
        {"data_configs": [{"type": "X", "name": "one"}, {"name": "second"}]},
    ),
    "N2 params": (
        ["N2"],
        data({"params": {"max_seq_len": 5, "strategy": "join"}}),
        data({"max_seq_len": 5, "strategy": "join"}),
    ),
    "N4 hf_config": (
        ["N4"],
        {
            "input_model": {
                "type": "PyTorchModel",
                "hf_config": {
                    "model_name": "a/b",
                    "task": "text-generation",
                    "model_loading_args": {"trust_remote_code": True},
                },
            }
        },
        {
            "input_model": {
                "type": "HfModel",
                "model_path": "a/b",
                "task": "text-generation",
                "load_kwargs": {"trust_remote_code": True},
            }
        },
    ),
    "N4 from_pretrained_args, and a path that outweighs the name": (
        ["N4", "N4"],
        {
            "input_model": {
                "type": "PyTorchModel",
                "model_path": "here",
                "hf_config": {"model_name": "a/b", "from_pretrained_args": {"revision": "r"}},
            }
        },
        {
            "input_model": {
                "type": "HfModel",
                "model_path": "here",
                "load_kwargs": {"revision": "r"},
            }
        },
    ),
    "N3 devices as words": (
        ["N3"],
        {
            "systems": {"aml": {"accelerators": ["gpu"]}},
            "engine": {"execution_providers": ["CUDAExecutionProvider"]},
        },
        {"systems": {"aml": {"accelerators": [GPU]}}, "engine": {}},
    ),
    "N3 each provider to the device that it runs on": (
        ["N3", "N3"],
        {
            "systems": {"both": {"accelerators": ["cpu", "gpu"]}},
            "engine": {"execution_providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
        },
        {
            "systems": {
                "both": {
                    "accelerators": [
                        {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]},
                        GPU,
                    ]
                }
            },
            "engine": {},
        },
    ),
    "N3 without an accelerator the engine keeps them": (
        [],
        {"engine": {"execution_providers": ["CUDAExecutionProvider"]}},
        {"engine": {"execution_providers": ["CUDAExecutionProvider"]}},
    ),
    "N3 today's device without a provider is given the engine's": (
        ["N3"],
        {
            "systems": {"here": {"accelerators": [{"device": "gpu"}]}},
            "engine": {"execution_providers": ["DmlExecutionProvider"]},
        },
        {
            "systems": {
                "here": {
                    "accelerators": [
                        {"device": "gpu", "execution_providers": ["DmlExecutionProvider"]}
                    ]
                }
            },
            "engine": {},
        },
    ),
    "N6 data": (
        ["N6", "N6", "N15"],
        data({"source_max_len": 7, "corpus_strategy": "join"}),
        data({"max_seq_len": 7, "strategy": "join", "joiner": None}),
    ),
    "N15 nothing stood between rows, however they were joined": (
        ["N6", "N15"],
        data({"corpus_strategy": "join-sliding-window", "stride": 2}),
        data({"strategy": "join-sliding-window", "stride": 2, "joiner": None}),
    ),
    "N6 LoRA": (
        ["N6", "N6", "N6", "N6", "N15"],
        lora(
            {
                "lora_r": 4,
                "lora_alpha": 8,
                "training_args": {"evaluation_strategy": "no", "warmup_ratio": 0.1},
            }
        ),
        lora(
            {
                "r": 4,
                "alpha": 8,
                "training_args": {"eval_strategy": "no", "warmup_steps": 0.1},
                "lora_dropout": 0.0,
            },
        ),
    ),
    "N6 corpus": (
        [],
        data({"dataset_type": "corpus", "strategy": "join", "joiner": "\n"}),
        data({"strategy": "join", "joiner": "\n"}),
    ),
    "N15 corpus without a strategy": (
        ["N15"],
        data({"dataset_type": "corpus"}),
        data({"strategy": "line-by-line"}),
    ),
    "N7 eval_dataset_size": (
        ["N7"],
        lora({"eval_dataset_size": 0.3}),
        lora({"eval_dataset_size": 0.3}),
    ),
    "N8 double_quant": (["N8"], lora({"double_quant": True, "r": 4}), lora({"r": 4})),
    "N9 group_by_length": (
        ["N9"],
        lora({"training_args": {"group_by_length": True}}),
        lora({"training_args": {"train_sampling_strategy": "group_by_length"}}),
    ),
    "N9 group_by_length false": (
        ["N9"],
        lora({"training_args": {"group_by_length": False}}),
        lora({"training_args": {"train_sampling_strategy": "random"}}),
    ),
    "N14 overwrite_output_dir": (
        ["N14"],
        lora({"training_args": {"overwrite_output_dir": True}}),
        lora({"training_args": {}}),
    ),
    "N11 a system where it is used": (
        ["N11", "N3"],
        {"engine": {"host": {"type": "LocalSystem", "config": {"accelerators": ["GPU"]}}}},
        {
            "engine": {"host": "engine_host"},
            "systems": {
                "engine_host": {"type": "LocalSystem", "accelerators": [{"device": "gpu"}]}
            },
        },
    ),
    "N11 fields of the engine at the top": (
        [],
        {"cache_dir": "a", "engine": {"output_dir": "b"}},
        {"engine": {"output_dir": "b", "cache_dir": "a"}},
    ),
    "N2 components": (
        ["N2", "N2", "N2", "N15"],
        {
            "data_configs": [
                {
                    "name": "rows",
                    "components": {"load_dataset": {"params": {"data_name": "csv"}}},
                    "params_config": {"split": "train", "max_seq_len": 4},
                }
            ]
        },
        {
            "data_configs": [
                {
                    "name": "rows",
                    "load_dataset_config": {"data_name": "csv", "split": "train"},
                    "pre_process_data_config": {"max_seq_len": 4, "strategy": "line-by-line"},
                }
            ]
        },
    ),
    "N6 data_root": (
        ["N6"],
        {
            "data_root": "sub",
            "data_configs": [
                {"load_dataset_config": {"data_files": ["a.json", "/b.json"]}},
                {"load_dataset_config": {"data_files": "c.json"}},
            ],
        },
        {
            "data_configs": [
                {"load_dataset_config": {"data_files": ["sub/a.json", "/b.json"]}},
                {"load_dataset_config": {"data_files": "sub/c.json"}},
            ],
        },
    ),
    "N12 a list of one": (
        [],
        {"passes": {"b": [{"type": "ModelBuilder", "config": {"precision": "int4"}}]}},
        {"passes": {"b": {"type": "ModelBuilder", "precision": "int4"}}},
    ),
    "N5 MLflow": (
        ["N5"],
        {"input_model": {"type": "HfModel", "model_file_format": "PyTorch.MLflow"}},
        {"input_model": {"type": "HfModel"}},
    ),
    "N9 optimizers": (
        ["N9"],
        lora({"training_args": {"optim": "paged_adamw_32bit"}}),
        lora({"training_args": {"optim": "auto"}}),
    ),
    "N10 false": ([], {"engine": {"search_strategy": False}}, {"engine": {}}),
    "N10 null": ([], {"engine": {"search_strategy": None}}, {"engine": {}}),
    "N10 empty": ([], {"engine": {"search_strategy": {}}}, {"engine": {}}),
    "N10 a search": (
        [],
        {"engine": {"search_strategy": {"sampler": "tpe"}}},
        {"engine": {"search_strategy": {"sampler": "tpe"}}},
    ),
    "N10 the words of 2023": (
        ["N6", "N6", "N10"],
        {
            "engine": {
                "search_strategy": {
                    "execution_order": "JOINT",
                    "search_algorithm": "exhaustive",
                    "search_algorithm_config": {"num_samples": 3, "with_replacement": False},
                    "max_iter": 2,
                }
            }
        },
        {
            "engine": {
                "search_strategy": {
                    "execution_order": "joint",
                    "max_iter": 2,
                    "sampler": "sequential",
                    "sampler_config": {"max_samples": 3},
                }
            }
        },
    ),
    "N10 flat, every point, what has no effect": (
        ["N10", "N10", "N10"],
        {
            "engine": {
                "search_strategy": {
                    "sampler": "random",
                    "max_samples": 0,
                    "seed": 7,
                    "with_replacement": True,
                    "include_pass_params": True,
                }
            }
        },
        {"engine": {"search_strategy": {"sampler": "random", "sampler_config": {"seed": 7}}}},
    ),
    "N12 alternatives": (
        ["N6"],
        {"passes": {"q": [{"type": "LoRA", "lora_r": 4, "lora_dropout": 0}, {"type": "DoRA"}]}},
        {"passes": {"q": [{"type": "LoRA", "lora_dropout": 0, "r": 4}, {"type": "DoRA"}]}},
    ),
    "N20 values": (
        ["N20", "N20", "N20", "N20"],
        {
            "passes": {
                "b": {
                    "type": "ModelBuilder",
                    "int4_block_size": "SEARCHABLE_VALUES",
                    "rounding": "DEFAULT_VALUE",
                    "int4_is_symmetric": {
                        "olive_parameter_type": "SearchParameter",
                        "type": "Boolean",
                    },
                    "precision": {
                        "olive_parameter_type": "SearchParameter",
                        "type": "Categorical",
                        "support": ["int4", "int8"],
                    },
                }
            }
        },
        {
            "passes": {
                "b": {
                    "type": "ModelBuilder",
                    "int4_block_size": {"search": "all"},
                    "int4_is_symmetric": {"search": [False, True]},
                    "precision": {"search": ["int4", "int8"]},
                }
            }
        },
    ),
    "N20 what is not read": (
        ["N20", "N20", "N14"],
        {
            "passes": {
                "b": {
                    "type": "ModelBuilder",
                    "int4_block_size": {
                        "olive_parameter_type": "SearchParameter",
                        "type": "Conditional",
                    },
                    "precision": {"search": ["int4", "int8"]},
                    "disable_search": True,
                }
            }
        },
        {"passes": {"b": {"type": "ModelBuilder", "precision": {"search": ["int4", "int8"]}}}},
    ),
    "N17 default": (
        ["N17"],
        builder({"int4_algo_config": "default", "int4_is_symmetric": False}),
        builder({"rounding": "rtn", "int4_is_symmetric": False}),
    ),
    "N17 rtn": (["N17"], builder({"int4_algo_config": "rtn"}), builder({"rounding": "rtn"})),
    "N17 k_quant": (
        ["N17"],
        builder({"int4_algo_config": "k_quant"}),
        builder({"rounding": "mse", "int4_is_symmetric": False}),
    ),
    "N17 k_quant is never symmetric": (
        ["N17", "N17"],
        builder({"int4_algo_config": "k_quant", "int4_is_symmetric": True}),
        builder({"rounding": "mse", "int4_is_symmetric": False}),
    ),
    "N17 operators": (
        ["N17"],
        builder({"int4_op_types_to_quantize": ["MatMul"]}),
        builder({}),
    ),
    "N17 operators, embeddings among them": (
        ["N17"],
        builder({"int4_op_types_to_quantize": ["MatMul", "Gather"]}),
        builder({"quantize_embeddings": True}),
    ),
    "N17 extra_options": (
        ["N17", "N17", "N17", "N17", "N17", "N17", "N17"],
        builder(
            {
                "extra_options": {
                    "block_size": "64",
                    "int4_accuracy_level": 4,
                    "is_symmetric": "0",
                    "exclude_embeds": "true",
                    "int4_op_types_to_quantize": "MatMul/Gather",
                    "algo_config": None,
                }
            }
        ),
        builder(
            {
                "int4_block_size": 64,
                "int4_accuracy_level": 4,
                "int4_is_symmetric": False,
                "exclude_embeds": True,
                "quantize_embeddings": True,
            }
        ),
    ),
    "N17 null": (
        [],
        builder({"int4_algo_config": None, "int4_is_symmetric": None, "extra_options": None}),
        builder({}),
    ),
    "N18 Rtn": (
        ["N18", "N18"],
        chain(("LoRA", {}), ("Rtn", {"bits": 4, "sym": True}), ("ModelBuilder", {})),
        chain(
            ("LoRA", {}),
            (
                "ModelBuilder",
                {
                    "precision": "int4",
                    "int4_block_size": 128,
                    "int4_is_symmetric": True,
                    "rounding": "rtn",
                },
            ),
        ),
    ),
    "N18 KQuant": (
        ["N18"],
        chain(
            ("KQuant", {"bits": 8, "lm_head": True, "embeds": True, "overrides": {}}),
            ("ModelBuilder", {"precision": "int8", "int4_block_size": 32}),
        ),
        chain(
            (
                "ModelBuilder",
                {
                    "precision": "int8",
                    "int4_block_size": 32,
                    "int4_is_symmetric": False,
                    "rounding": "mse",
                    "quantize_embeddings": True,
                },
            ),
        ),
    ),
    "N18 OnnxBlockWiseRtnQuantization": (
        ["N18"],
        chain(
            ("ModelBuilder", {"precision": "fp16"}),
            ("OnnxBlockWiseRtnQuantization", {"block_size": 32, "axis": 1, "accuracy_level": 4}),
        ),
        chain(
            (
                "ModelBuilder",
                {
                    "precision": "int4",
                    "int4_block_size": 32,
                    "int4_is_symmetric": True,
                    "rounding": "rtn",
                    "int4_accuracy_level": 4,
                },
            ),
        ),
    ),
    "N18 OnnxKQuantQuantization": (
        ["N18"],
        chain(("ModelBuilder", {"precision": "fp32"}), ("OnnxKQuantQuantization", {})),
        chain(
            (
                "ModelBuilder",
                {
                    "precision": "int4",
                    "int4_block_size": 32,
                    "int4_is_symmetric": False,
                    "rounding": "mse",
                },
            ),
        ),
    ),
    "N10 true": (
        ["N10"],
        {"engine": {"search_strategy": True}},
        {"engine": {"search_strategy": {"execution_order": "joint", "sampler": "sequential"}}},
    ),
}


@pytest.mark.parametrize(("has", "read_as"), [(False, "auto"), (True, "paged_adamw_32bit")])
def test_paged_optimizers_where_there_is_a_gpu(
    has: bool, read_as: str, upgraded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "has_bitsandbytes_optimizers", lambda: has)
    for written in ("paged_adamw", "paged_adamw_32bit"):
        root, told = upgraded(lora({"training_args": {"optim": written}}))
        assert root == lora({"training_args": {"optim": read_as}})
        assert len(told) == (written != read_as)
    root, told = upgraded(lora({"training_args": {"optim": "adamw_8bit"}}))
    assert root == lora({"training_args": {"optim": "adamw_8bit"}}), "no other is as it is"


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case: str, upgraded: Any) -> None:
    rules, old, canonical = CASES[case]
    root, told = upgraded(old)
    assert root == canonical
    assert [note.rule for note in told] == rules


FILES = ["page/olive-config.json", "page/olive-config-cloud.json", "phi3-emotion/olive-config.json"]
REPEATED = ("N7",)  # says what is done with a field, and changes none


@pytest.mark.parametrize("case", [*CASES, *FILES])
def test_what_is_upgraded_stays_as_it_is(case: str, upgraded: Any) -> None:
    config = CASES[case][1] if case in CASES else json.loads((EXAMPLES / case).read_text())
    root, _ = upgraded(config)
    once = json.loads(json.dumps(root))
    again, told = upgraded(once)
    assert again == once
    assert [note for note in told if note.rule not in REPEATED] == []


@pytest.mark.parametrize("case", FILES)
def test_every_entry_still_knows_where_it_was_written(case: str) -> None:
    root = read(EXAMPLES / case)
    upgrade(root)
    lines = (EXAMPLES / case).read_text().count("\n") + 1

    def check(value: Any) -> None:
        if isinstance(value, dict) and isinstance(value, Map):
            assert set(value.origins) == set(value)
        origins = getattr(value, "origins", [])
        for origin in origins.values() if isinstance(origins, dict) else origins:
            file, _, line = origin.where.rpartition(":")
            assert (file, 1 <= int(line) <= lines) == (Path(case).name, True)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                check(inner)

    check(root)


def test_a_note_says_line_place_and_reading(upgraded: Any) -> None:
    _, told = upgraded(lora({"lora_r": 4}))
    assert told[0] == Note("N6", "config.json:5", "passes.lora.lora_r is read as r")


def test_an_option_without_effect_is_a_warning(upgraded: Any) -> None:
    _, told = upgraded(lora({"double_quant": True}))
    text = "passes.lora.double_quant has no effect under LoRA; for a 4-bit base write QLoRA"
    assert told == [Note("N8", "config.json:5", text, "warning")]


@pytest.mark.parametrize("name", [n for n, known in TRAINING.items() if isinstance(known, Refusal)])
def test_what_the_trainer_cannot_be_asked_for_is_a_fault(name: str, upgraded: Any) -> None:
    known = TRAINING[name]
    assert isinstance(known, Refusal)
    (fault,) = upgraded(lora({"training_args": {name: "x"}}))[1]
    text = f'passes.lora.training_args.{name} {known.what} ("x"), which is not done here'
    assert fault == Note("N14", "config.json:6", text, "fault", known.remedy)
    (note,) = upgraded(lora({"training_args": {name: None}}))[1]
    assert note.level == "note", "null asks for nothing"


@pytest.mark.parametrize(("name", "value"), [("modules_to_save", ["lm_head"]), ("bias", "all")])
def test_what_an_adapter_cannot_be_asked_for_is_a_fault(
    name: str, value: Any, upgraded: Any
) -> None:
    (fault,) = upgraded(lora({name: value}))[1]
    known = LORA[name]
    assert isinstance(known, Refusal)
    assert (fault.level, fault.remedy) == ("fault", known.remedy)
    assert fault.text.startswith(f"passes.lora.{name} {known.what}")


def test_what_the_trainer_does_otherwise_is_a_warning(upgraded: Any) -> None:
    root, told = upgraded(lora({"training_args": {"full_determinism": True, "ddp_timeout": 1800}}))
    why = "full_determinism has no effect: on a CPU the same seed gives the same bytes"
    assert {note.level for note in told if why in note.text} == {"warning"}
    assert {note.level for note in told if "ddp_timeout" in note.text} == {"note"}
    assert root["passes"]["lora"]["training_args"] == {}


def test_a_provider_that_no_device_takes_is_a_warning(upgraded: Any) -> None:
    _, told = upgraded(
        {
            "systems": {"here": {"accelerators": ["cpu"]}},
            "engine": {"execution_providers": ["CUDAExecutionProvider"]},
        }
    )
    text = "engine.execution_providers: CUDAExecutionProvider runs on none of the devices listed"
    assert ("warning", text) in [(note.level, note.text) for note in told]


def test_an_old_name_beside_the_new_one_is_a_fault(upgraded: Any) -> None:
    _, told = upgraded(lora({"lora_r": 4, "r": 8}))
    text = "passes.lora.lora_r is 4, but passes.lora.r (config.json:6) is 8"
    assert told[0] == Note("N6", "config.json:5", text, "fault", "Keep one of them.")


def test_an_old_name_that_says_the_same_as_the_new_one_is_dropped(upgraded: Any) -> None:
    root, told = upgraded(lora({"lora_r": 4, "r": 4}))
    assert root["passes"]["lora"] == {"type": "LoRA", "r": 4, "lora_dropout": 0.0}
    assert [note.level for note in told] == ["note"]


def faults(told: list[Note]) -> list[tuple[str, str]]:
    return [(note.text, note.remedy) for note in told if note.level == "fault"]


@pytest.mark.parametrize("name", WORDS)
def test_what_the_builder_cannot_be_asked_for_is_a_fault(name: str, upgraded: Any) -> None:
    known = WORDS[name]
    assert isinstance(known, Refusal)
    for fields, path in (({name: ["x"]}, name), ({"extra_options": {name: ["x"]}}, name)):
        if name in ("metadata_only", "search") and "extra_options" in fields:
            continue  # of Olive's own
        _, told = upgraded(builder(fields))
        text = f'passes.b.{path} {known.what} (["x"]), which is not done here'
        where = "passes.b.extra_options" if "extra_options" in fields else "passes.b"
        assert faults(told) == [(text.replace("passes.b", where, 1), known.remedy)]
    (note,) = upgraded(builder({name: None}))[1]
    assert note.level == "note", "null asks for nothing"


@pytest.mark.parametrize("written", ["k_quant_mixed", "rtn_last", "k_quant_last"])
def test_layers_on_grids_of_their_own_are_a_fault(written: str, upgraded: Any) -> None:
    root, told = upgraded(builder({"int4_algo_config": written}))
    text = (
        f'passes.b.int4_algo_config gives some layers more bits than others ("{written}"), which '
        "is not done here"
    )
    remedy = 'Write "rounding": "mse" (the least squared error) or "rtn" (to nearest).'
    assert faults(told) == [(text, remedy)]
    assert root == builder({})


@pytest.mark.parametrize(
    ("fields", "text", "remedy"),
    [
        (
            {"int4_algo_config": {"a": 1}},
            'passes.b.int4_algo_config is not known ({"a": 1}), which is not done here',
            'Write "rounding": "mse" (the least squared error) or "rtn" (to nearest).',
        ),
        (
            {"int4_algo_config": "k_quant", "rounding": "rtn"},
            'passes.b.int4_algo_config is "mse", but passes.b.rounding (config.json:7) is "rtn"',
            "Keep one of them.",
        ),
        (
            {"int4_op_types_to_quantize": ["Conv"]},
            'passes.b.int4_op_types_to_quantize is ["Conv"], which is not done here',
            'Write "quantize_embeddings": true for Gather; MatMul is always among them.',
        ),
        (
            {"extra_options": {"hf_token": "hf_ofsomebody"}},
            (
                "passes.b.extra_options.hf_token is an option of ONNX Runtime GenAI's builder "
                "without a field"
            ),
            BUILDER_ALONE,
        ),
        (
            {"int4_block_size": 32, "extra_options": {"block_size": "64"}},
            (
                "passes.b.extra_options.block_size is 64, but passes.b.int4_block_size "
                "(config.json:6) is 32"
            ),
            "Keep one of them.",
        ),
    ],
)
def test_a_word_of_the_builder_that_is_not_honoured(
    fields: dict[str, Any], text: str, remedy: str, upgraded: Any
) -> None:
    assert faults(upgraded(builder(fields))[1]) == [(text, remedy)]


INSTEAD = (
    '"precision": "int4", "int4_block_size": 128, "int4_is_symmetric": false, "rounding": "rtn"'
)


@pytest.mark.parametrize(
    ("config", "text", "remedy"),
    [
        (
            chain(("Rtn", {}), ("LoRA", {})),
            (
                'passes.Rtn.type "Rtn" rounds weights, which ModelBuilder does as it exports, and '
                "none follows it"
            ),
            f'Write a pass {{"type": "ModelBuilder", {INSTEAD}}} in its place.',
        ),
        (
            chain(("OnnxKQuantQuantization", {}), ("ModelBuilder", {"precision": "fp32"})),
            (
                'passes.OnnxKQuantQuantization.type "OnnxKQuantQuantization" rounds weights, which '
                "ModelBuilder does as it exports, and none comes before it"
            ),
            f'Write a pass {{"type": "ModelBuilder", {INSTEAD}}} in its place.'.replace(
                "128", "32"
            ).replace("rtn", "mse"),
        ),
        (
            chain(("Rtn", {}), ("ModelBuilder", {"precision": "fp16"})),
            (
                'passes.Rtn.type "Rtn" asks for precision "int4", but '
                'passes.ModelBuilder.precision (config.json:8) is "fp16"'
            ),
            f"Write {INSTEAD} there.",
        ),
        (
            chain(("Rtn", {"bits": 3}), ("ModelBuilder", {})),
            "passes.Rtn.bits is 3; weights are exported in 4 or 8 bits",
            'Write "bits": 4 or 8.',
        ),
        (
            chain(("Rtn", {"overrides": {"a": {"bits": 8}}}), ("ModelBuilder", {})),
            (
                'passes.Rtn.overrides gives some layers another grid ({"a": {"bits": 8}}), which '
                "is not done here"
            ),
            "Leave it out.",
        ),
        (
            chain(("Rtn", {"sise": 1}), ("ModelBuilder", {})),
            "passes.Rtn.sise has no counterpart (1), which is not done here",
            "Leave it out.",
        ),
    ],
)
def test_a_pass_that_rounds_weights_and_cannot_be_honoured(
    config: dict[str, Any], text: str, remedy: str, upgraded: Any
) -> None:
    root, told = upgraded(config)
    assert faults(told) == [(text, remedy)]
    assert "Rtn" not in root["passes"], "it is told once"


def test_what_a_pass_that_rounds_weights_is_read_as(upgraded: Any) -> None:
    _, told = upgraded(chain(("Rtn", {}), ("ModelBuilder", {})))
    assert [(note.level, note.text) for note in told] == [
        ("note", f'passes.Rtn.type "Rtn" is read as fields of passes.ModelBuilder: {INSTEAD}'),
        (
            "warning",
            (
                'passes.Rtn.type "Rtn" leaves the head as it is; ModelBuilder quantizes it as the '
                "other layers"
            ),
        ),
    ]
