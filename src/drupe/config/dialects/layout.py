"""Where things stand: nested or flat, named or listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from drupe.config.dialects.rule import Note, maps, move, move_all, pass_entries, section
from drupe.config.source import Items, Map

ENGINE_KEYS = (
    *("host", "target", "evaluator", "evaluate", "search_strategy", "cache_dir", "output_dir"),
    *("log_severity_level", "execution_providers", "cache_quota", "evaluate_input_model"),
    "no_samples",
    *("clean_cache", "clean_evaluation_cache", "plot_pareto_frontier", "output_name"),
    *("ort_log_severity_level", "ort_py_log_severity_level", "log_to_file", "packaging_config"),
    *("no_artifacts", "enable_shared_cache", "cache_config"),
)
COMPONENTS = {
    "load_dataset": "load_dataset_config",
    "pre_process_data": "pre_process_data_config",
    "post_process_data": "post_process_data_config",
    "dataloader": "dataloader_config",
}
LOAD_KEYS = ("data_name", "data_dir", "data_files", "subset", "split")
LOADER_KEYS = ("batch_size", "shuffle")


def flat_components(config: Map) -> Iterator[Note]:
    """N11: the nested `config` of models, systems, passes and resources is their fields."""
    owners = [
        config.get("input_model"),
        *maps(config.get("systems")),
        *pass_entries(config.get("passes")),
    ]
    for owner in owners:
        yield from _flatten(owner)


def _flatten(owner: Any) -> Iterator[Note]:
    if isinstance(owner, Map) and isinstance(owner.get("config"), Map):
        nested = owner["config"]
        owner.drop("config")
        yield from move_all("N11", nested, owner)


def engine_at_the_top(config: Map) -> Iterator[Note]:
    """N11: fields of the engine may stand at the top level (since Olive 0.7)."""
    for key in [key for key in config if key in ENGINE_KEYS]:
        engine = section(config, "engine", config.origins[key])
        yield from move("N11", config, key, engine, key)


def named_components(config: Map) -> Iterator[Note]:
    """N11: a system or evaluator that is described where it is used is given that place's name."""
    engine = config.get("engine")
    if not isinstance(engine, Map):
        return
    for key, listed in (("host", "systems"), ("target", "systems"), ("evaluator", "evaluators")):
        if isinstance(engine.get(key), Map):
            described, origin = engine[key], engine.origins[key]
            entries = section(config, listed, origin)
            name = f"engine_{key}"
            entries.put(name, described, origin)
            engine.put(key, name, origin)
            yield Note("N11", origin.where, f'{origin.path} is read as "{name}" of {listed}')


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
        yield Note("N1", origin.where, "data_configs is read as a list, the names from its keys")


def components_by_name(config: Map) -> Iterator[Note]:
    """N2: until Olive 0.6.1 a data config had `components` and one `params_config` for all.

    A user's code stood beside them; it makes the text, so it is a setting of that.
    """
    for data in maps(config.get("data_configs")):
        for name in ("user_script", "script_dir"):
            if name in data:
                owner = section(data, "pre_process_data_config", data.origins[name])
                within = owner.get("params")
                yield from move(
                    "N2", data, name, within if isinstance(within, Map) else owner, name
                )
        if isinstance(data.get("components"), Map):
            components = data["components"]
            origin = data.drop("components")
            for old in [name for name in components if name in COMPONENTS]:
                yield from move("N2", components, old, data, COMPONENTS[old])
            yield from move_all("N2", components, data)  # what is unknown is told as such
            yield Note("N2", origin.where, f"{origin.path} is read as {{component}}_config")
        if isinstance(data.get("params_config"), Map):
            yield from _params_config(data)


def _params_config(data: Map) -> Iterator[Note]:
    """Give each flat key to the component that knows it; `component_kwargs` go before."""
    given = data["params_config"]
    origin = data.drop("params_config")
    special = given.get("component_kwargs")
    if isinstance(special, Map):
        given.drop("component_kwargs")
        for old in [name for name in special if isinstance(special[name], Map)]:
            owner = section(data, COMPONENTS.get(old, old), special.origins[old])
            for key in list(special[old]):
                _outweigh(special[old], key, owner)
                if key in given:
                    given.drop(key)
    for key in list(given):
        component = "load_dataset" if key in LOAD_KEYS else "pre_process_data"
        component = "dataloader" if key in LOADER_KEYS else component
        owner = section(data, COMPONENTS[component], given.origins[key])
        _outweigh(given, key, owner["params"] if isinstance(owner.get("params"), Map) else owner)
    yield Note("N2", origin.where, f"{origin.path} is read as the components' own keys")


def _outweigh(source: Map, key: str, to: Map) -> None:
    """Move an entry to where it takes the place of one that may stand there."""
    if key in to:
        to.drop(key)
    source.move(key, to)


def flat_params(config: Map) -> Iterator[Note]:
    """N2: the components of a data config hold their parameters directly."""
    for data in maps(config.get("data_configs")):
        for component in maps(data):
            params = component.get("params")
            if isinstance(params, Map):
                origin = component.drop("params")
                yield from move_all("N2", params, component)
                yield Note("N2", origin.where, f"{origin.path} is read as the component's own keys")


def one_pass_an_entry(config: Map) -> Iterator[Note]:
    """N12: an entry of `passes` may list alternatives; one alone is the pass itself."""
    passes = config.get("passes")
    if not isinstance(passes, Map):
        return
    for name, listed in list(passes.items()):
        if isinstance(listed, Items) and len(listed) == 1:
            passes.put(name, listed[0], passes.origins[name])
    yield from ()


def packages_as_list(config: Map) -> Iterator[Note]:
    """N11: packaging_config is one package or a list of them, each flat."""
    engine = config.get("engine")
    if not isinstance(engine, Map) or "packaging_config" not in engine:
        return
    value, origin = engine["packaging_config"], engine.origins["packaging_config"]
    if not value:
        engine.drop("packaging_config")
        yield Note("N11", origin.where, f"{origin.path} asks for nothing, and is left out")
        return
    if isinstance(value, Map):
        listed = Items()
        listed.add(value, origin)
        engine.put("packaging_config", listed, origin)
        value = listed
    if not isinstance(value, Items):
        return
    for each in value:
        yield from _flatten(each)


def flat_resources(config: Map) -> Iterator[Note]:
    """N11: a resource that is a file, a folder or a name is written as that alone."""
    for owner, key in _resources(config):
        resource = owner[key]
        if not isinstance(resource, Map):
            continue
        yield from _flatten(resource)
        yield from _flatten(resource.get("azureml_client"))
        local = {"file": "path", "folder": "path", "string_name": "name"}
        named = local.get(str(resource.get("type")))
        if named is not None and isinstance(resource.get(named), str) and len(resource) == 2:
            owner.put(key, resource[named], resource.origins[named])


def _resources(config: Map) -> Iterator[tuple[Map, str]]:
    owners: list[tuple[Any, str]] = [
        (config.get("input_model"), "model_path"),
        (config.get("input_model"), "adapter_path"),
    ]
    for data in maps(config.get("data_configs")):
        owners += [(data.get("load_dataset_config"), key) for key in ("data_files", "data_dir")]
    for owner, key in owners:
        if isinstance(owner, Map) and key in owner:
            yield owner, key


def data_root(config: Map) -> Iterator[Note]:
    """N6: `data_root` is the folder of the data files (until Olive 0.6)."""
    root = config.get("data_root")
    if not isinstance(root, str):
        return
    origin = config.drop("data_root")
    for data in maps(config.get("data_configs")):
        load = data.get("load_dataset_config")
        if not isinstance(load, Map):
            continue
        files = load.get("data_files")
        if isinstance(files, str):
            load.put("data_files", _below(root, files), load.origins["data_files"])
        elif isinstance(files, Items):
            files[:] = [_below(root, each) if isinstance(each, str) else each for each in files]
    yield Note("N6", origin.where, f"{origin.path} is read into each data_files")


def _below(root: str, file: str) -> str:
    return file if PurePath(file).is_absolute() else f"{root.rstrip('/')}/{file}"
