"""What means something else than it did in Olive, or nothing; what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.rule import Note, maps, pass_entries
from drupe.config.source import Map


def rows_split_before_tokenizing(config: Map) -> Iterator[Note]:
    """N7: Olive split the finished blocks; one phrase could then be on both sides."""
    for entry in pass_entries(config.get("passes")):
        if entry.get("eval_dataset_size"):
            origin = entry.origins["eval_dataset_size"]
            yield Note("N7", origin.where, f"{origin.path} splits the rows, before tokenizing")


def four_bit_options(config: Map) -> Iterator[Note]:
    """N8: options of QLoRA have no effect under LoRA."""
    for entry in pass_entries(config.get("passes")):
        if entry.get("type") == "LoRA":
            for key in ("double_quant", "quant_type", "compute_dtype"):
                if key in entry:
                    origin = entry.drop(key)
                    text = f"{origin.path} has no effect under LoRA; for a 4-bit base write QLoRA"
                    yield Note("N8", origin.where, text, "warning")


def is_of_2024(config: Map) -> bool:
    """Return whether a config, not yet upgraded, uses words that Olive gave up in 2024."""
    return any(_marks_of_2024(config))


def _marks_of_2024(config: Map) -> Iterator[bool]:
    model, engine = config.get("input_model"), config.get("engine")
    if isinstance(model, Map):
        yield str(model.get("type")).lower() == "pytorchmodel"
        yield from ("hf_config" in each for each in (model, *maps(model)))
    yield isinstance(engine, Map) and "execution_providers" in engine
    for system in maps(config.get("systems")):
        for each in (system, *maps(system)):
            listed = each.get("accelerators")
            yield isinstance(listed, list) and any(isinstance(name, str) for name in listed)
    for data in maps(config.get("data_configs")):
        yield "params_config" in data or "components" in data
        fields = data.get("pre_process_data_config")
        if isinstance(fields, Map):
            for each in (fields, *maps(fields)):
                yield any(key in each for key in ("dataset_type", "corpus_strategy"))
                yield "source_max_len" in each
    for entry in pass_entries(config.get("passes")):
        for each in (entry, *maps(entry)):
            yield any(key in each for key in ("lora_r", "lora_alpha"))


def _dataset_type(fields: Map, kind: Any) -> Iterator[Note]:
    """Drop dataset_type; of pairs, say in fields of today what they are made of."""
    if kind is None:
        return
    told = fields.drop("dataset_type")
    if kind == "pair":
        for side in ("input", "output"):
            column = fields.get(f"{side}_col")
            if isinstance(column, str):
                origin = fields.drop(f"{side}_col")
                fields.put(f"{side}_template", "{" + column + "}", origin)
        if "pair_format" not in fields:
            own = "custom" if "input_template" in fields else "default"
            fields.put("pair_format", own, told)
            yield Note("N15", told.where, f"no pair_format is read as {own}")
    elif kind != "corpus":
        text = f'{told.path} is "{kind}"; "corpus" and "pair" are known'
        yield Note("N15", told.where, text, "fault", "Write one of them.")


def defaults_of_2024(config: Map) -> Iterator[Note]:
    """N15: what a config of 2024 left out had other defaults then."""
    for data in maps(config.get("data_configs")):
        fields = data.get("pre_process_data_config")
        if not isinstance(fields, Map):
            continue
        origin = data.origins["pre_process_data_config"]
        kind = fields.get("dataset_type")
        yield from _dataset_type(fields, kind)
        if "strategy" not in fields:
            fields.put("strategy", "line-by-line", origin)
            yield Note("N15", origin.where, "no corpus_strategy is read as line-by-line")
        if str(fields["strategy"]).startswith("join") and "joiner" not in fields:
            fields.put("joiner", None, origin)
            text = "no joiner: nothing stands between two rows (today: a blank line)"
            yield Note("N15", origin.where, text)
    for entry in pass_entries(config.get("passes")):
        if entry.get("type") in ("LoRA", "QLoRA", "LoftQ") and "lora_dropout" not in entry:
            origin = entry.origins["type"]
            entry.put("lora_dropout", 0.0, origin)
            yield Note("N15", origin.where, "no lora_dropout is read as 0 (today: 0.05)")
