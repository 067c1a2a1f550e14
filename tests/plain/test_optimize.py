"""`drupe optimize`: what its words become."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import optimize
from drupe.config.load import load
from drupe.core.errors import Refused
from drupe.cost.machine import CPU, Machine
from drupe.cost.rules import choose

MACHINE = Machine("x86_64", frozenset({"avx2", "avx512_vnni"}), 2, 24 * 10**9)


def arguments(tmp_path: Path, *words: str) -> argparse.Namespace:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    parser = argparse.ArgumentParser()
    optimize.add_arguments(parser)
    return parser.parse_args([str(model), "-o", "best", *words])


def config(tmp_path: Path, *words: str, fields: tuple[str, ...] = ()) -> dict[str, Any]:
    return optimize.config_of(arguments(tmp_path, *words), list(fields), choose(MACHINE))


def numbers(made: dict[str, Any]) -> dict[str, tuple[str, str, int | None, float | None]]:
    """Return {metric's name: (type, number, priority, what the goal asks)}."""
    found = {}
    for metric in made["evaluators"]["limits"]["metrics"]:
        [told] = metric["sub_types"]
        goal = told.get("goal", {}).get("value")
        found[metric["name"]] = (metric["type"], told["name"], told.get("priority"), goal)
    return found


def test_without_a_limit_and_rows_the_rules_make_one_export(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made["engine"] == {"evaluate": "none"}
    assert made["passes"]["export"] == {
        "type": "ModelBuilder",
        "precision": "int4",
        "int4_block_size": 32,
        "int4_accuracy_level": 4,
        "rounding": "mse",
    }


def test_without_rows_quality_is_the_divergence_on_texts_that_come_along(tmp_path: Path) -> None:
    made = config(tmp_path, "--max-size", "1.5GB")
    assert numbers(made) == {
        "quality": ("KLDivergence", "kl", 1, None),
        "speed": ("Throughput", "p50", 2, None),
        "size": ("Size", "bytes", 3, 1.5e9),
    }
    [data] = made["data_configs"]
    rows = Path(data["load_dataset_config"]["data_files"]).read_text(encoding="utf-8")
    assert all(json.loads(line)["text"] for line in rows.splitlines())
    strategy = {"sampler": "economy", "max_iter": 6}
    assert made["engine"]["search_strategy"] == strategy


def test_a_limited_loss_leaves_the_lead_to_speed(tmp_path: Path) -> None:
    words = ("--max-loss", "1.5%", "--data", "rows.jsonl", "--max-latency", "20ms")
    words += ("--min-tokens-per-second", "30", "--max-memory", "2GB", "--evaluations", "3")
    made = config(tmp_path, *words)
    assert numbers(made) == {
        "quality": ("Perplexity", "perplexity", 3, 1.5),
        "speed": ("Throughput", "p50", 1, 30),
        "size": ("Size", "bytes", 2, None),
        "latency": ("Latency", "per_token", None, 20),
        "memory": ("PeakMemory", "peak_bytes", None, 2e9),
    }
    [quality, *_] = made["evaluators"]["limits"]["metrics"]
    assert quality["sub_types"][0]["goal"]["type"] == "percent-max-degradation"
    assert made["engine"]["search_strategy"]["max_iter"] == 3


def test_rows_with_a_template_are_judged_by_their_answers(tmp_path: Path) -> None:
    made = config(tmp_path, "--data", "rows.jsonl", fields=("text_template",))
    assert numbers(made)["quality"] == ("Accuracy", "accuracy_score", 1, None)


def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    given = arguments(tmp_path, "--max-size", "1GB")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    given.base, given.model = given.model, str(adapter)
    made = optimize.config_of(given, [], choose(MACHINE))
    assert list(made["passes"]) == ["merge", "export"]


def test_the_config_is_one_that_can_be_searched(tmp_path: Path) -> None:
    made = config(tmp_path, "--max-size", "1.5GB")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(made))
    workflow = load(file)
    assert workflow.search is not None
    assert workflow.search.space.size == 10
    assert [objective.unit for objective in workflow.search.objectives][-1] == "bytes"


@pytest.mark.parametrize(
    ("words", "where", "what"),
    [
        (("--max-loss", "1%"), "--max-loss", "is a part of what MODEL reaches on rows"),
        (("--max-loss", "1", "--data", "a"), "--max-loss", 'is "1": should be a part of a hundred'),
        (("--max-size", "much"), "--max-size", 'is "much": should be a size with its unit'),
        (("--max-latency", "fast"), "--max-latency", 'is "fast": should be the time of a token'),
    ],
)
def test_a_limit_that_makes_no_sense(
    words: tuple[str, ...], where: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as fault:
        config(tmp_path, *words)
    assert fault.value.where == where
    assert what in fault.value.what


def test_an_option_of_nothing_is_refused(tmp_path: Path) -> None:
    given = arguments(tmp_path, "--data", "rows.jsonl")
    assert optimize._part("--text-template", given) == "pre_process_data_config.text_template"
    with pytest.raises(Refused, match=r'^--max-sice: is no option of this, .*"--max-size'):
        optimize._part("--max-sice", given)


def test_what_the_builder_exports_is_asked_only_for_what_it_knows(tmp_path: Path) -> None:
    given = arguments(tmp_path, "--max-size", "1GB")
    assert optimize.exporter(given) == "native"
    Path(given.model, "config.json").write_text('{"architectures": ["PhiForCausalLM"]}')
    assert optimize.exporter(given) == "genai"
    made = optimize.config_of(given, [], optimize.known_to("genai", choose(MACHINE)))
    own = {"rounding", "int4_is_symmetric", "quantize_embeddings"}
    assert not any(own & set(each) for each in made["passes"]["export"])


def test_int8_is_never_left_to_a_slow_kernel(tmp_path: Path) -> None:
    old = Machine("x86_64", frozenset(), 2, 8 * 10**9)
    made = optimize.config_of(arguments(tmp_path, "--max-size", "1GB"), [], choose(old))
    told = {each["precision"]: each.get("int4_accuracy_level") for each in made["passes"]["export"]}
    assert told == {"int4": 0, "int8": None, "fp32": None}


def test_the_machine_and_the_reasons_are_told() -> None:
    told = [said.text for said in optimize.reasons(MACHINE, choose(MACHINE))]
    assert told[0].startswith("This machine: x86_64 (avx2, avx512_vnni), 2 cores, 24 GB")
    assert any(line.startswith("int4_block_size 32: ") for line in told)
    assert optimize.chosen(MACHINE, "cpu")["provider"].value == CPU
    with pytest.raises(Refused, match=r'^--target: "gpu" is no target'):
        optimize.chosen(MACHINE, "gpu")
