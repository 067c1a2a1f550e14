"""What is installed, held against what drupe's own metadata asks for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, distributions, version

from packaging.requirements import Requirement

from drupe.core.libraries import FAMILIES, installed_version
from drupe.core.requirements import holds
from drupe.doctor.finding import Finding

DEVELOPMENT = "development"


def packages(distribution: Distribution) -> Iterator[Finding]:
    """Look at the extras of drupe's `distribution`, and at what cannot stand side by side."""
    asked = [Requirement(line) for line in distribution.requires or ()]
    yield _drupe_itself(distribution.version, [each for each in asked if holds(each, "")])
    for extra in distribution.metadata.get_all("Provides-Extra") or ():
        if extra != DEVELOPMENT:
            wanted = [each for each in asked if holds(each, extra) and not holds(each, "")]
            yield _extra(extra, wanted)
    yield from _families()
    yield from _two_olives()


def _unfit(requirements: list[Requirement]) -> list[str]:
    """Return in words the installed packages whose version is ruled out."""
    unfit = []
    for each in requirements:
        found = installed_version(each.name)
        if found is not None and not each.specifier.contains(found, prereleases=True):
            unfit.append(f"{each.name} {found} (needs {each.specifier})")
    return unfit


def _drupe_itself(own_version: str, requirements: list[Requirement]) -> Finding:
    unfit = _unfit(requirements)
    if unfit:
        remedy = "pip install --upgrade drupe"
        return Finding("drupe", "broken", f"{own_version}, but {', '.join(unfit)}", remedy)
    return Finding("drupe", "fine", own_version)


def _extra(extra: str, requirements: list[Requirement]) -> Finding:
    subject, remedy = f"[{extra}]", f'pip install "drupe[{extra}]"'
    if not requirements:
        return Finding(subject, "note", "holds nothing for this system")
    absent = [each.name for each in requirements if installed_version(each.name) is None]
    unfit = _unfit(requirements)
    if absent:
        found = f"not installed: {', '.join(absent)} absent"
        rivals = _rivals(absent)
        if rivals:  # installed as the remedy says, it would overwrite what works
            remedy = f"In an environment without {' and '.join(rivals)}: {remedy}"
        return Finding(subject, "note", "; ".join([found, *unfit]), remedy)
    if unfit:
        return Finding(subject, "broken", ", ".join(unfit), remedy.replace("install", "install -U"))
    versions = ", ".join(f"{each.name} {version(each.name)}" for each in requirements)
    return Finding(subject, "fine", versions)


def _rivals(names: list[str]) -> list[str]:
    """Return what is installed and would be overwritten if `names` were installed too."""
    families = [members for members in FAMILIES.values() if set(members) & set(names)]
    return [
        member
        for members in families
        for member in members
        if member not in names and installed_version(member) is not None
    ]


def _families() -> Iterator[Finding]:
    """Tell families of which two members are installed: they overwrite each other's files."""
    installed = {(found.metadata["Name"] or "").lower() for found in distributions()}
    for library, members in FAMILIES.items():
        there = [member for member in members if member in installed]
        if len(there) > 1:
            yield Finding(
                library,
                "broken",
                f"{' and '.join(there)} overwrite each other's files",
                f"pip uninstall {' '.join(there)}; then install one of them "
                "(drupe[cpu] and drupe[gpu] exclude each other)",
            )


def _two_olives() -> Iterator[Finding]:
    """Tell when Microsoft's Olive is beside our command of its name: one of them is hidden."""
    if installed_version("drupe-olive") and installed_version("olive-ai"):
        yield Finding(
            "olive",
            "broken",
            "drupe-olive and olive-ai both write the command `olive`; the later one stands",
            "pip uninstall drupe-olive (or olive-ai), then install the other one again",
        )
