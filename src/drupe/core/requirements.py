"""What drupe and its extras ask for, as the installed metadata says."""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from drupe.core.libraries import FAMILIES

# The extra that holds the siblings of ONNX Runtime for a provider, in place of "cpu".
OF_PROVIDERS = {"cuda": "gpu", "dml": "directml"}


def holds(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement is one of this machine under `extra` ("": without any)."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


@cache
def asked_for(extra: str = "", distribution: str = "drupe") -> tuple[Requirement, ...]:
    """Return what an extra of a distribution asks for ("": the distribution itself)."""
    written = importlib.metadata.requires(distribution) or []
    asked = [Requirement(line) for line in written]
    return tuple(each for each in asked if holds(each, extra) and not (extra and holds(each, "")))


def specifier(distribution: str, extra: str) -> SpecifierSet:
    """Return the versions of a distribution that an extra of drupe allows.

    A sibling of a family has releases of its own: the extra that names it speaks.
    """
    for name in (extra, *OF_PROVIDERS.values()):
        for requirement in asked_for(name):
            if folded(requirement.name) == folded(distribution):
                return requirement.specifier
    return SpecifierSet()


def folded(name: str) -> str:
    """Return a distribution's name as all of its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def family_of(distribution: str) -> str | None:
    """Return the library of which an environment may hold one sibling alone, or None."""
    siblings = (library for library, names in FAMILIES.items() if folded(distribution) in names)
    return next(siblings, None)


def pinned(allowed: SpecifierSet) -> str | None:
    """Return the one version that `allowed` names, or None where it leaves a choice."""
    for each in allowed:
        if each.operator in ("==", "===") and not each.version.endswith(".*"):
            return each.version
    return None


def exclude_each_other(one: SpecifierSet, other: SpecifierSet) -> bool:
    """Return whether no version is allowed by both, as far as those that they name can tell."""
    both = one & other
    named = {each.version.removesuffix(".*") for each in both}
    tried = {
        text
        for version in map(Version, named)
        for text in (str(version), version.public, f"{version.base_version}.0.1", _after(version))
    }
    return bool(named) and not any(both.contains(text, prereleases=True) for text in tried | {"0"})


def _after(version: Version) -> str:
    """Return a version behind all that begin like this one."""
    *first, last = version.release
    return ".".join(map(str, [*first, last + 1]))
