"""`--set passes.lora.lora_r=16`: an overlay in the words of the file, laid over the file.

The overlay is upgraded by the same rules, so a name may be Olive's or ours, nested or flat,
whatever the file itself uses; what it says goes before what the file says.

A verb of one step reads its options so too (`--learning-rate 1e-4`): its faults name the option.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from drupe.config.source import Items, Map, Origin, plain
from drupe.core.errors import Fault, nearest

# Sections whose entries have names that must be there: a misspelt one would make a new entry.
NAMED = ("systems", "data_configs", "evaluators", "passes")
OPTION, COMMAND_LINE = "--set", "the command line"


def overlay(
    settings: Iterable[str], typed: Mapping[str, str] | None = None
) -> tuple[Map, list[Fault]]:
    """Return the settings as one config, and the faults of those that are none.

    typed: the option by which a path was set ("--learning-rate"), where it was not --set.
    """
    root, faults = Map(Origin(OPTION, "")), []
    for setting in settings:
        path, equals, text = setting.partition("=")
        steps = [step for step in re.split(r"[.\[\]]+", path) if step]
        if not equals or not steps:
            what = f'"{setting}" is not a path and a value'
            faults.append(Fault(OPTION, what, "Write: --set passes.lora.r=16"))
            continue
        option = (typed or {}).get(path)
        owner = root
        for depth, step in enumerate(steps[:-1], 1):
            if not isinstance(owner.get(step), Map):
                place = ".".join(steps[:depth])
                origin = Origin(OPTION if option is None else COMMAND_LINE, place)
                owner.put(step, Map(origin), origin)
            owner = owner[step]
        origin = Origin(OPTION, path) if option is None else Origin(option, field_of(option))
        owner.put(steps[-1], plain(_value(text), origin), origin)
    return root, faults


def field_of(option: str) -> str:
    """Return the name of the field that an option is: "--learning-rate" is learning_rate."""
    return option.removeprefix("--").replace("-", "_")


def _value(text: str) -> object:
    """Return what is written as JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def lay_over(root: Map, settings: Map) -> Iterator[Fault]:
    """Put what `settings` says in the place of what `root` says; yield what has no place."""
    for section in NAMED:
        entries = settings.get(section)
        if not isinstance(entries, Map) or entries.whole:
            continue
        known = _names(root.get(section))
        listed = isinstance(root.get(section), Items)
        for name in [name for name in entries if name not in known]:
            if listed and name.isdigit():
                continue
            origin = entries.drop(name)
            what = f'{origin.path} is not there: {section} has no "{name}"{nearest(name, known)}'
            yield Fault(origin.where, what, f"Known: {', '.join(known) or 'none'}.")
    yield from _merge(root, settings)


def _merge(root: Map, settings: Map) -> Iterator[Fault]:
    for key, value in settings.items():
        known = root.get(key)
        if isinstance(value, Map) and value.whole:
            root.put(key, value, settings.origins[key])
        elif isinstance(value, Map) and isinstance(known, Map):
            yield from _merge(known, value)
        elif isinstance(value, Map) and isinstance(known, Items):
            yield from _merge_items(known, value)
        else:
            root.put(key, value, settings.origins[key])


def _merge_items(items: Items, settings: Map) -> Iterator[Fault]:
    """Find the items that are meant by their names or their numbers (from 0)."""
    names = _names(items)
    for key, value in settings.items():
        origin = settings.origins[key]
        index = names.index(key) if key in names else int(key) if key.isdigit() else -1
        if not 0 <= index < len(items):
            what = f'{origin.path} is not there: the list has {len(items)} items, no "{key}"'
            yield Fault(origin.where, what, "Name an item, or give its number from 0.")
        elif isinstance(value, Map) and not value.whole and isinstance(items[index], Map):
            yield from _merge(items[index], value)
        else:
            items[index], items.origins[index] = value, origin


def _names(entries: object) -> list[str]:
    if isinstance(entries, Items):
        return [str(each.get("name")) if isinstance(each, Map) else "" for each in entries]
    return list(entries) if isinstance(entries, Map) else []
