"""Olive's words of a search: how points are tried, and what a field chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.rule import Note, map_of, move, pass_entries, section, short
from drupe.config.source import Items, Map

CHOICE = "search"  # {"search": [16, 32]}: a choice of values, in our own words
EVERY, USUAL = "SEARCHABLE_VALUES", "DEFAULT_VALUE"
PARAMETER = "olive_parameter_type"
OF_SAMPLER = ("num_samples", "max_samples", "seed", "with_replacement", "multivariate", "group")
DEFAULTS = {"execution_order": "joint", "sampler": "sequential"}
SAMPLERS = {"exhaustive": "sequential"}


def search_strategy(config: Map) -> Iterator[Note]:
    """N10: false, null and {} search nothing, true every point; 2023's words are today's."""
    engine = config.get("engine")
    if not isinstance(engine, Map) or "search_strategy" not in engine:
        return
    written, origin = engine["search_strategy"], engine.origins["search_strategy"]
    if written in (False, None, {}):
        engine.drop("search_strategy")
    elif written is True:
        engine.put("search_strategy", map_of(dict(DEFAULTS), origin), origin)
        text = f"{origin.path} is read as execution_order joint, sampler sequential: every point"
        yield Note("N10", origin.where, text)
    elif isinstance(written, Map):
        yield from _strategy(written)


def _strategy(strategy: Map) -> Iterator[Note]:
    for key in [key for key in strategy if key in OF_SAMPLER]:
        options = section(strategy, "sampler_config", strategy.origins[key])
        yield from move("N10", strategy, key, options, key)
    for key in ("execution_order", "sampler"):
        if isinstance(strategy.get(key), str):
            name = strategy[key].lower()
            strategy.put(key, SAMPLERS.get(name, name), strategy.origins[key])
    if "include_pass_params" in strategy:
        origin = strategy.drop("include_pass_params")
        text = f"{origin.path} has no effect: what is searched is what the config writes"
        yield Note("N10", origin.where, text)
    if isinstance(strategy.get("sampler_config"), Map):
        yield from _options(strategy["sampler_config"])


def _options(options: Map) -> Iterator[Note]:
    if "num_samples" in options:
        origin = options.origins["num_samples"]
        yield from move("N10", options, "num_samples", options, "max_samples")
        yield Note("N10", origin.where, f"{origin.path} is read as max_samples")
    if options.get("max_samples") == 0 and options["max_samples"] is not False:
        origin = options.drop("max_samples")
        yield Note("N10", origin.where, f"{origin.path} 0 is read as every point")
    if "with_replacement" in options:
        asked = options["with_replacement"]
        origin = options.drop("with_replacement")
        if asked:
            text = f"{origin.path} asks for points to be tried twice, which gives nothing new"
            yield Note("N10", origin.where, text, "warning")


def choices(config: Map) -> Iterator[Note]:
    """N20: what a field of a pass chooses from, in Olive's words, as {"search": [...]}."""
    for entry in pass_entries(config.get("passes")):
        yield from _choices(entry)
        if entry.get("disable_search") is True and _has_choice(entry):
            origin = entry.origins["disable_search"]
            text = f"{origin.path} is true, but the pass has values to choose from"
            yield Note("N20", origin.where, text, "fault", "Keep one of the two.")


def _has_choice(value: Any) -> bool:
    if not isinstance(value, Map):
        return False
    return (len(value) == 1 and CHOICE in value) or any(map(_has_choice, value.values()))


def _choices(owner: Map) -> Iterator[Note]:
    for key in list(owner):
        value, origin = owner[key], owner.origins[key]
        if value == EVERY:
            owner.put(key, map_of({CHOICE: "all"}, origin), origin)
            yield Note("N20", origin.where, f'{origin.path} is read as {{"{CHOICE}": "all"}}')
        elif value == USUAL:
            owner.drop(key)
            yield Note("N20", origin.where, f"{origin.path} is left at its default")
        elif isinstance(value, Map) and PARAMETER in value:
            yield from _parameter(owner, key, value)
        elif isinstance(value, Map):
            yield from _choices(value)


def _parameter(owner: Map, key: str, parameter: Map) -> Iterator[Note]:
    origin = owner.origins[key]
    support: Any = parameter.get("support")
    if parameter.get("type") == "Boolean":
        support = [False, True]
    if parameter.get("type") not in ("Categorical", "Boolean") or not isinstance(support, list):
        owner.drop(key)
        text = f"{origin.path} is a {short(parameter.get('type'))} of Olive, which is not read"
        remedy = "Write a list of alternatives of the pass, each with its own values."
        yield Note("N20", origin.where, text, "fault", remedy)
        return
    made = Map(origin)
    known = parameter.origins.get("support", origin)
    if not isinstance(support, Items):
        items = Items()
        for each in support:
            items.add(each, known)
        support = items
    made.put(CHOICE, support, known)
    owner.put(key, made, origin)
    yield Note("N20", origin.where, f'{origin.path} is read as {{"{CHOICE}": {short(support)}}}')
