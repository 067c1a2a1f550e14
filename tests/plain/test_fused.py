"""When a merge and the export behind it are one step: by the config alone, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.chain import INPUT
from drupe.cli.plan import as_values
from drupe.config.faults import FILLED_IN
from drupe.config.load import load
from drupe.core.cache import Result
from drupe.core.errors import DrupeError
from drupe.core.job import INSIDE
from drupe.core.journal import Measured, journal_file, write_down
from drupe.core.merging import Merging
from drupe.core.model import Model
from drupe.engine import stage_of
from drupe.export.passes import ExportGenAI
from drupe.finetune.passes import MergeAdapterWeights
from drupe.outcome import Outcome
from drupe.output import model_folder, report
from drupe.plan import Plan, draft
from drupe.preflight.estimates import estimates, operation_name
from drupe.report.page import page
from drupe.report.table import rows
from tests.plain.checkpoints import make_checkpoint, safetensors
from tests.plain.conftest import Workspace

HIDDEN, INNER, VOCABULARY = 32, 64, 16
LAYER = "model.layers.0"
LLAMA = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    "lm_head.weight": (VOCABULARY, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    f"{LAYER}.input_layernorm.weight": (HIDDEN,),
    f"{LAYER}.post_attention_layernorm.weight": (HIDDEN,),
    **{f"{LAYER}.self_attn.{side}_proj.weight": (HIDDEN, HIDDEN) for side in "qkvo"},
    **{f"{LAYER}.mlp.{side}_proj.weight": (INNER, HIDDEN) for side in ("gate", "up")},
    f"{LAYER}.mlp.down_proj.weight": (HIDDEN, INNER),
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
ALONE = ["merge", "merge: proof", "builder", "builder: proof"]
FUSED = ["builder", "merge: proof", "builder: proof"]
NOTE = "merge is done while builder runs: nobody asks for the Hugging Face checkpoint in between"


@pytest.fixture
def merging(workspace: Workspace) -> Workspace:
    """An adapter of a Llama, to be merged and exported; nothing is measured."""
    base = make_checkpoint(workspace.folder / "base", **CONFIG)
    (base / "model.safetensors").write_bytes(safetensors(LLAMA, "F32"))
    adapter = workspace.folder / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    name = f"base_model.model.{LAYER}.self_attn.q_proj.lora_{{}}.weight"
    shapes = {name.format("A"): (2, HIDDEN), name.format("B"): (HIDDEN, 2)}
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(shapes, "F32"))
    rows_file = workspace.folder / "rows.json"
    rows_file.write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    workspace.config = {
        "input_model": {"type": "HfModel", "model_path": "base", "adapter_path": "adapter"},
        "data_configs": [
            {
                "name": "rows",
                "load_dataset_config": {"data_name": "json", "data_files": "rows.json"},
                "pre_process_data_config": {"text_template": "{text}"},
            }
        ],
        "evaluators": {
            "all": {"metrics": [{"name": "loss", "type": "Perplexity", "data_config": "rows"}]}
        },
        "systems": {"here": {"type": "LocalSystem"}, "there": {"type": "LocalSystem"}},
        "passes": {
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "engine": {
            "host": "here",
            "evaluator": "all",
            "evaluate": "none",
            "cache_dir": "cache",
            "output_dir": "output",
        },
    }
    return workspace


def names(planned: Plan) -> list[str]:
    return [step.name for step in planned.steps if step.role != "metric"]


def changed(merging: Workspace, **values: Any) -> Plan:
    """Plan with values at paths: "engine evaluate", "passes builder exporter"."""
    for path, value in values.items():
        *sections, last = path.split("__")
        place = merging.config
        for section in sections:
            place = place[section]
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return merging.plan()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, FUSED),
        ({"engine__evaluate": "ends"}, FUSED),
        ({"engine__evaluate": "every-step"}, ALONE),
        ({"engine__evaluate": "every-step", "engine__evaluator": None, "evaluators": {}}, FUSED),
        ({"passes__builder__exporter": "native"}, FUSED),
        ({"passes__builder__exporter": "genai"}, ALONE),
        ({"passes__builder__precision": "fp32"}, FUSED),
        ({"passes__merge__base": "original"}, FUSED),
        ({"passes__builder__host": "there"}, ALONE),
        ({"passes__merge__host": "there", "passes__builder__host": "there"}, FUSED),
        ({"engine__packaging_config": [{"type": "Zipfile", "name": "out"}]}, FUSED),
    ],
    ids=str,
)
def test_they_are_one_step_where_nobody_asks_for_the_merged_checkpoint(
    values: dict[str, Any], expected: list[str], merging: Workspace
) -> None:
    planned = changed(merging, **values)
    assert names(planned) == expected
    assert (NOTE in planned.notes) == (expected == FUSED)
    assert planned.stages == (INPUT, "merge", "builder")
    assert model_folder(planned).parent.name == "merge-builder", "as it is where both are steps"


def test_a_family_of_the_builders_is_merged_first(merging: Workspace) -> None:
    file = merging.folder / "base" / "config.json"
    file.write_text(json.dumps({**CONFIG, "architectures": ["NemotronForCausalLM"]}))
    assert names(merging.plan()) == ALONE


def test_a_merge_alone_and_one_with_something_else_behind_it_stay_a_step(
    merging: Workspace,
) -> None:
    merging.passes(merge={"type": "MergeAdapterWeights"})
    assert names(merging.plan()) == ["merge", "merge: proof"]
    merging.passes(merge={"type": "MergeAdapterWeights"}, weigh={"type": "Weigh"})
    assert names(merging.plan()) == ["merge", "merge: proof", "weigh"]


def test_a_pass_that_is_derived_from_the_merge_is_not_done_inside() -> None:
    class Other(MergeAdapterWeights):
        """May do anything."""

    step = ExportGenAI.model_validate({"precision": "int4", "target": {}, "exporter": "native"})
    assert step.with_inside(Other()) is None
    both = step.with_inside(MergeAdapterWeights(base="original"))
    assert both is not None
    assert both.merging == Merging(base="original")


def test_what_the_one_step_reads_and_hangs_on(merging: Workspace) -> None:
    builder, of_merge, of_export = merging.plan().steps
    assert builder.reads == (INPUT,)
    assert builder.inside is not None
    assert (builder.inside.name, builder.inside.registered) == ("merge", "MergeAdapterWeights")
    assert (of_merge.stage, of_merge.reads) == ("merge", (INPUT, INPUT))
    assert (of_export.stage, of_export.reads) == ("builder", ("builder", INPUT))
    assert "safetensors" in builder.parts["libraries"], "with those of the merge"
    assert builder.parts["fields"]["merging"] == {"base": "auto"}
    other = changed(merging, passes__merge__base="original").steps
    assert not {step.key for step in other} & {builder.key, of_merge.key, of_export.key}
    apart = {step.name: step for step in changed(merging, engine__evaluate="every-step").steps}
    assert apart["builder"].key != builder.key
    assert "merging" not in apart["builder"].parts["fields"], "keys of the export alone are as ever"
    assert "merging" not in apart["builder: proof"].parts["fields"]


def test_a_plan_tells_it_to_programs(merging: Workspace) -> None:
    planned = merging.plan()
    steps = as_values(planned, estimates(planned), [], [], {})["steps"]
    assert [(step["name"], step["fused"], step["inside"]) for step in steps] == [
        ("builder", True, "merge"),
        ("merge: proof", False, None),
        ("builder: proof", False, None),
    ]


def test_no_merged_checkpoint_is_in_the_estimates(merging: Workspace) -> None:
    fused = estimates(merging.plan())
    apart = estimates(changed(merging, engine__evaluate="every-step"))
    disk = [
        sum(found[name].output_bytes or 0 for name in found if "loss" not in name)
        for found in (fused, apart)
    ]
    merged = apart["merge"].output_bytes or 0
    assert merged > 0
    assert disk[0] == disk[1] - merged
    assert (fused["builder"].seconds or 0) > (apart["builder"].seconds or 0)


def test_the_journal_tells_them_apart(merging: Workspace) -> None:
    """A step that merges too says nothing of one that exports alone."""
    [name] = {operation_name(step) for step in merging.plan().steps if step.name == "builder"}
    assert name.endswith("-int4-cpu-merging")
    taken = Measured(name, 5e4, 5 * 10**4, 42.0, 10**6, 10**3)
    write_down(taken, journal_file())
    assert estimates(merging.plan())["builder"].measured
    assert not estimates(changed(merging, engine__evaluate="every-step"))["builder"].measured


def test_what_is_in_the_way_of_the_merge_is_told_once_and_of_the_merge(merging: Workspace) -> None:
    settings = {"peft_type": "LORA", "r": 2, "bias": "all"}
    (merging.folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    planned = draft(load(merging.write()))
    [told] = planned.blockers
    assert "merge (MergeAdapterWeights)" in told.where
    assert 'bias="all"' in told.what


def test_what_is_in_the_way_of_the_export_is_told_of_the_export(merging: Workspace) -> None:
    shapes = {name: shape for name, shape in LLAMA.items() if "up_proj" not in name}
    weights = merging.folder / "base" / "model.safetensors"
    weights.write_bytes(safetensors(shapes, "F32"))
    planned = draft(load(merging.write()))
    [told] = planned.blockers
    assert "builder (ModelBuilder)" in told.where
    assert "mlp.up_proj.weight" in told.what


def test_an_adapter_is_not_exported_without_a_merge(merging: Workspace) -> None:
    merging.passes(builder={"type": "ModelBuilder", "precision": "int4"})
    with pytest.raises(DrupeError, match="works on hf, but what comes before gives hf-adapter"):
        merging.plan()


def test_nobody_writes_the_field_that_the_plan_fills_in(merging: Workspace) -> None:
    assert Merging in FILLED_IN
    merging.config["passes"]["builder"]["merging"] = {"base": "auto"}
    with pytest.raises(DrupeError, match=r"merging is filled in by drupe, not written"):
        merging.plan()


def results_of(planned: Plan, folder: Path) -> dict[str, Result]:
    """Return what a run puts down: a score where one is wanted, else a file of 4 MB."""
    found = {}
    facts = {INSIDE: {"base": "original"}, "size_bytes": 1}
    for number, step in enumerate(planned.steps):
        place = folder / str(number)
        place.mkdir(parents=True)
        score = {"metric": "merge_proof", "value": 0.1, "passed": True}
        if step.role == "pass":
            (place / "model.onnx").write_bytes(bytes(4 * 10**6))
        else:
            (place / "score.json").write_text(json.dumps(score))
        model = Model(step.operation.gives, place, "d")
        found[step.name] = Result(step.key, model, 2.0, 3 * 10**6, facts, {}, hit=False)
    return found


def test_the_report_tells_where_the_merge_was_done(merging: Workspace, tmp_path: Path) -> None:
    planned = merging.plan()
    results = results_of(planned, tmp_path / "results")
    stages = tuple(stage_of(planned, name, results) for name in planned.stages)
    outcome = Outcome(planned, stages, model_folder(planned), 1.0)
    base, merged, exported = report(outcome)["stages"]
    assert (merged["kind"], merged["within"], merged["digest"]) == ("hf", "builder", None)
    assert merged["facts"] == {"base": "original"}
    assert merged["proof"]["passed"] is True
    assert (exported["within"], exported["facts"]) == (None, {"size_bytes": 1})
    assert base["within"] is None
    shown = rows(outcome)
    assert shown[1] == ["merged", "not written", "in builder", ""]
    assert shown[2] == ["int4 ONNX", "4 MB", "2.0 s", "3 MB"]
    text = page(outcome, {**report(outcome), "written": "2026-01-01T00:00:00Z"})
    assert "ran, and never written" in text
    assert "2.0 s together" in text
