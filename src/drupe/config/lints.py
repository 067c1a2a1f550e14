"""What a config says that will not do what its writer expects, each with the remedy.

A lint is a warning. What is unready is sound, and cannot be run as it is: a plan refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from drupe.config import placeholders
from drupe.config.faults import Place
from drupe.config.source import Map
from drupe.config.target import Systems
from drupe.config.workspace import Workspace
from drupe.core.errors import Fault

Found = tuple[Place, str]


def lints(root: Map, systems: Systems, used: Collection[str]) -> Iterator[Found]:
    """Yield the place and the words of each lint; systems that are not used are left out."""
    yield from placeholders.told(root)
    for name in used:
        for inner, words in systems[name].lints():
            yield ("systems", name, *inner), words


def unready(
    root: Map,
    systems: Systems,
    used: Collection[str],
    data: Collection[str],
    workspace: Workspace,
) -> Iterator[Fault]:
    """Yield what keeps the config from being run as it is.

    used: the systems on which steps run. data: the data configs that these read.
    """
    places = set()
    for place, fault in placeholders.blocking(root, systems, used, data, workspace):
        places.add(place)
        yield fault
    for name in used:
        for unfit in systems[name].faults():
            place = ("systems", name, *unfit.place)
            if place not in places:
                fault = placeholders.fault_at(root, place, unfit.what, unfit.remedy)
                yield Fault(unfit.line, unfit.what, unfit.remedy) if unfit.line else fault
