"""Olive's words read into ours: one pure function a rule, applied in this order.

Each rule takes the config as far as it is upgraded, changes what it is about, and tells what it
changed in one `Note`. The numbers are those by which a rule is told and tested.

    rule    from                                          to
    N11     {"type": T, "config": {...}}                  {"type": T, ...}
    N1      data_configs: {name: {...}}                   data_configs: [{"name": name, ...}]
    N2      {component}_config: {"params": {...}}         {component}_config: {...}
    N4      PyTorchModel + hf_config                      HfModel
    N3      accelerators: ["gpu"] + execution_providers   [{device, execution_providers}]
    N6      lora_r, source_max_len, corpus_strategy, ...  r, max_seq_len, strategy, ...
    N7      eval_dataset_size                             the same, split before tokenizing
    N8      double_quant under LoRA                       no effect: dropped with a warning
    N9      group_by_length, warmup_ratio, ...            what today's transformers calls it
    N10     search_strategy: false                        no search
    N15     strategy or joiner left out                   the default of the dialect
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from drupe.config.source import Items, Map, Origin
from drupe.core.target import PROVIDERS


@dataclass(frozen=True)
class Note:
    """What a rule did, for the user: one line.

    A "fault" is what no rule can decide: the config says two things at once.
    """

    rule: str
    line: int
    text: str
    level: Literal["note", "warning", "fault"] = "note"


Rule = Callable[[Map], Iterator[Note]]


def upgrade(config: Map) -> list[Note]:
    """Rewrite `config` in place into the canonical schema; return what was done."""
    return [note for rule in RULES for note in rule(config)]


def flat_components(config: Map) -> Iterator[Note]:
    """N11: the nested `config` of models, systems and passes is their fields."""
    owners = [
        config.get("input_model"),
        *_maps(config.get("systems")),
        *_maps(config.get("passes")),
    ]
    for owner in owners:
        if isinstance(owner, Map) and isinstance(owner.get("config"), Map):
            nested = owner["config"]
            owner.drop("config")
            yield from _move_all("N11", nested, owner)


def data_configs_as_list(config: Map) -> Iterator[Note]:
    """N1: data_configs was an object of named entries until Olive 0.5."""
    named = config.get("data_configs")
    if isinstance(named, Map):
        origin = config.origins["data_configs"]
        listed = Items()
        for name in list(named):
            entry = named[name]
            if isinstance(entry, Map) and "name" not in entry:
                entry.put("name", name, named.origins[name])
            listed.add(entry, named.origins[name])
        config.put("data_configs", listed, origin)
        yield Note("N1", origin.line, "data_configs is read as a list, the names from its keys")


def flat_params(config: Map) -> Iterator[Note]:
    """N2: the components of a data config hold their parameters directly."""
    for data in _maps(config.get("data_configs")):
        for component in _maps(data):
            params = component.get("params")
            if isinstance(params, Map):
                origin = component.drop("params")
                yield from _move_all("N2", params, component)
                yield Note("N2", origin.line, f"{origin.path} is read as the component's own keys")


def hugging_face_model(config: Map) -> Iterator[Note]:
    """N4: PyTorchModel with hf_config is today's HfModel."""
    model = config.get("input_model")
    if not isinstance(model, Map) or not isinstance(model.get("hf_config"), Map):
        return
    origin = model.origins["hf_config"]
    described = model["hf_config"]
    model.drop("hf_config")
    names = {
        "model_name": "model_path",
        "model_loading_args": "load_kwargs",
        "from_pretrained_args": "load_kwargs",
    }
    for key in list(described):
        new = names.get(key, key)
        # A local or registry model_path outweighs model_name, which then names the tokenizer.
        if key == "model_name" and new in model:
            described.drop(key)
        else:
            yield from _move("N4", described, key, model, new)
    if str(model.get("type", "")).lower() == "pytorchmodel":
        model.put("type", "HfModel", model.origins["type"])
    yield Note("N4", origin.line, f"{origin.path} is read as an HfModel")


def accelerators(config: Map) -> Iterator[Note]:
    """N3: devices as strings, with the execution providers in the engine, until Olive 0.5.

    Each provider goes to the listed devices that it runs on.
    """
    engine, systems = config.get("engine"), _maps(config.get("systems"))
    listed = [
        each["accelerators"] for each in systems if isinstance(each.get("accelerators"), Items)
    ]
    providers: list[str] = []
    origin = Origin(1, "")
    written = engine.get("execution_providers") if isinstance(engine, Map) else None
    if isinstance(engine, Map) and isinstance(written, list) and any(listed):
        providers = [name for name in written if isinstance(name, str)]
        origin = engine.drop("execution_providers")
    taken: set[str] = set()
    for devices in listed:
        for index, entry in enumerate(devices):
            where = devices.origins[index]
            if isinstance(entry, str):
                devices[index] = _map({"device": entry}, where)
            elif not isinstance(entry, Map):
                continue
            given = _give_providers(devices[index], providers, origin)
            named = devices[index].get("execution_providers")
            taken.update(name for name in providers if isinstance(named, list) and name in named)
            if given or isinstance(entry, str):
                offering = f" with {', '.join(given)}" if given else ""
                device = devices[index]["device"]
                yield Note("N3", where.line, f'"{device}" is read as a device{offering}')
    for name in providers:
        if name not in taken:
            text = f"{origin.path}: {name} runs on none of the devices listed"
            yield Note("N3", origin.line, text, "warning")


def _give_providers(entry: Map, providers: list[str], origin: Origin) -> list[str]:
    """Give an accelerator those of the engine's providers that it runs, if it names none."""
    device = entry.get("device")
    fitting = [name for name in providers if PROVIDERS.get(name, ("",))[0] == device]
    if not fitting or "execution_providers" in entry:
        return []
    entry.put("execution_providers", fitting, origin)
    return fitting


PASS_NAMES = {
    "lora_r": "r",
    "lora_alpha": "alpha",
}
DATA_NAMES = {
    "source_max_len": "max_seq_len",
    "corpus_strategy": "strategy",
}
TRAINING_NAMES = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
}


def renamed_fields(config: Map) -> Iterator[Note]:
    """N6: fields that have another name today."""
    for data in _maps(config.get("data_configs")):
        yield from _rename(data.get("pre_process_data_config"), DATA_NAMES)
    for entry in _maps(config.get("passes")):
        yield from _rename(entry, PASS_NAMES)
        yield from _rename(entry.get("training_args"), TRAINING_NAMES)


def _rename(fields: Any, names: dict[str, str]) -> Iterator[Note]:
    if not isinstance(fields, Map):
        return
    for old, new in names.items():
        if old in fields and new not in fields:
            origin = fields.origins[old]
            fields.move(old, fields, new)
            yield Note("N6", origin.line, f"{origin.path} is read as {new}")


def corpus_only(config: Map) -> Iterator[Note]:
    """N6: dataset_type "corpus" is what is meant when nothing is said."""
    for data in _maps(config.get("data_configs")):
        fields = data.get("pre_process_data_config")
        if isinstance(fields, Map) and fields.get("dataset_type") == "corpus":
            fields.drop("dataset_type")
            if "strategy" not in fields:
                fields.put("strategy", "line-by-line", data.origins["pre_process_data_config"])
                line = data.origins["pre_process_data_config"].line
                yield Note("N15", line, "no corpus_strategy is read as line-by-line")


def rows_split_before_tokenizing(config: Map) -> Iterator[Note]:
    """N7: Olive split the finished blocks; one phrase could then be on both sides."""
    for entry in _maps(config.get("passes")):
        if entry.get("eval_dataset_size"):
            origin = entry.origins["eval_dataset_size"]
            yield Note("N7", origin.line, f"{origin.path} splits the rows, before tokenizing")


def four_bit_options(config: Map) -> Iterator[Note]:
    """N8: options of QLoRA have no effect under LoRA."""
    for entry in _maps(config.get("passes")):
        if entry.get("type") == "LoRA":
            for key in ("double_quant", "quant_type", "compute_dtype"):
                if key in entry:
                    origin = entry.drop(key)
                    yield Note(
                        "N8",
                        origin.line,
                        f"{origin.path} has no effect under LoRA; for a 4-bit base write QLoRA",
                        "warning",
                    )


def training_arguments(config: Map) -> Iterator[Note]:
    """N9: training arguments that transformers 5 calls otherwise or does not have."""
    for entry in _maps(config.get("passes")):
        arguments = entry.get("training_args")
        if not isinstance(arguments, Map):
            continue
        if isinstance(arguments.get("group_by_length"), bool):
            grouped = arguments["group_by_length"]
            origin = arguments.drop("group_by_length")
            strategy = "group_by_length" if grouped else "random"
            arguments.put("train_sampling_strategy", strategy, origin)
            yield Note("N9", origin.line, f"{origin.path} is read as train_sampling_strategy")
        if "overwrite_output_dir" in arguments:
            origin = arguments.drop("overwrite_output_dir")
            text = (
                f"{origin.path} has no effect: a result is never overwritten, but kept by its key"
            )
            yield Note("N9", origin.line, text, "warning")


def no_search(config: Map) -> Iterator[Note]:
    """N10: false, null and {} say that nothing is searched."""
    engine = config.get("engine")
    if isinstance(engine, Map) and engine.get("search_strategy", True) in (False, None, {}):
        engine.drop("search_strategy")
    return
    yield


RULES: tuple[Rule, ...] = (
    flat_components,
    data_configs_as_list,
    flat_params,
    hugging_face_model,
    accelerators,
    renamed_fields,
    corpus_only,
    rows_split_before_tokenizing,
    four_bit_options,
    training_arguments,
    no_search,
)


def _move_all(rule: str, source: Map, to: Map) -> Iterator[Note]:
    for key in list(source):
        yield from _move(rule, source, key, to, key)


def _move(rule: str, source: Map, key: str, to: Map, new: str) -> Iterator[Note]:
    """Move an entry to where one may stand already: objects become one, other values clash."""
    if new not in to:
        source.move(key, to, new)
        return
    value, known = source[key], to[new]
    if isinstance(value, Map) and isinstance(known, Map):
        yield from _move_all(rule, value, known)
    elif value != known:
        text = (
            f"{source.origins[key].path} is {_short(value)}, but {to.origins[new].path} in line "
            f"{to.origins[new].line} is {_short(known)}"
        )
        yield Note(rule, source.origins[key].line, text, "fault")
    source.drop(key)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _maps(values: Any) -> list[Map]:
    if isinstance(values, Map):
        return [value for value in values.values() if isinstance(value, Map)]
    items = values if isinstance(values, list) else ()
    return [value for value in items if isinstance(value, Map)]


def _map(values: dict[str, Any], origin: Origin) -> Map:
    made = Map()
    for key, value in values.items():
        made.put(key, value, origin)
    return made
