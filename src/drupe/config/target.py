"""Which systems run the steps, and which target the model is made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drupe.catalog import SYSTEMS
from drupe.config.schema import EngineConfig
from drupe.core.errors import Refused, nearest
from drupe.core.process import usable_cores
from drupe.core.system import HERE_NAME, Accelerator, NamedSystem, System
from drupe.core.target import PROVIDERS, Target

Systems = Mapping[str, System]
# (place in the config, what is wrong, what to do)
Finding = tuple[tuple[str, ...], str, str]


def host(engine: EngineConfig, systems: Systems, asked: str | None) -> NamedSystem:
    """Return the system on which the passes run.

    asked: "local" is this machine whatever the config says, else a name among `systems`.
    """
    return _named_system(asked or engine.host, systems)


def measures(engine: EngineConfig, systems: Systems, asked: str | None) -> NamedSystem:
    """Return the system on which metrics are measured: the target's, else the host."""
    return _named_system(asked or engine.target or engine.host, systems)


def _named_system(name: str | None, systems: Systems) -> NamedSystem:
    if name is None or name not in systems:
        return NamedSystem(HERE_NAME, SYSTEMS.find("LocalSystem")())
    return NamedSystem(name, systems[name])


def findings(engine: EngineConfig, systems: Systems) -> Iterator[Finding]:
    """Yield what is wrong with `engine.host` and `engine.target`."""
    for role in ("host", "target"):
        name = getattr(engine, role)
        if name is not None and name not in systems:
            what = f'names no system: "{name}"{nearest(name, systems)}'
            yield ("engine", role), what, f"Known: {', '.join(systems) or 'none'}."
    provider = _configured_provider(engine, systems)
    if provider not in PROVIDERS:
        owner = _owner(engine, systems)
        offering = owner is not None and systems[owner].accelerators
        place = ("systems", str(owner)) if offering else ("engine", "execution_providers")
        what = f"asks for {provider}, which is not supported{nearest(provider, PROVIDERS)}"
        yield place, what, f"Known: {', '.join(PROVIDERS)}."


def choose(engine: EngineConfig, systems: Systems, target: str | None) -> Target:
    """Return the target that is asked for, or that the config names, or the CPU.

    target: a provider by its short or long name; without it the first provider of the system
    that `engine.target` names, else `engine.host`, else of the only system that there is.

    Raises Refused for an unknown `target`.
    """
    provider = _configured_provider(engine, systems) if target is None else _named(target)
    # As many threads as this machine has, where it may well be the target itself.
    threads = usable_cores() if provider == "CPUExecutionProvider" else None
    return Target(provider=provider, threads=threads)


def notes(engine: EngineConfig, systems: Systems) -> Iterator[str]:
    """Yield what the user may not expect of the choice."""
    offered = _offered(engine, systems)
    if len(offered) > 1:
        yield (
            f"the model is made for {offered[0]} alone; for {', '.join(offered[1:])} run again "
            "with --target"
        )


def _configured_provider(engine: EngineConfig, systems: Systems) -> str:
    return next(iter(_offered(engine, systems)), "CPUExecutionProvider")


def _owner(engine: EngineConfig, systems: Systems) -> str | None:
    """Return the system whose accelerators the model is made for; None: none is named."""
    named = engine.target or engine.host
    if named is None and len(systems) == 1:
        return next(iter(systems))
    return named if named in systems else None


def _offered(engine: EngineConfig, systems: Systems) -> list[str]:
    """Return the providers that the config offers, each once, the first being the one chosen."""
    owner = _owner(engine, systems)
    accelerators = systems[owner].accelerators if owner is not None else []
    offered = [name for each in accelerators for name in _providers_of(each)]
    return list(dict.fromkeys(offered or engine.execution_providers or ()))


def _providers_of(accelerator: Accelerator) -> list[str]:
    if accelerator.execution_providers:
        return accelerator.execution_providers
    fitting = (name for name, (device, _) in PROVIDERS.items() if device == accelerator.device)
    return [next(fitting, f"a provider for {accelerator.device}")]


def _named(target: str) -> str:
    names = {short: long for long, (_, short) in PROVIDERS.items()}
    provider = names.get(target.split("-")[-1], target)
    if provider not in PROVIDERS:
        raise Refused(
            "--target",
            f'"{target}" is not a target{nearest(target, names)}',
            f"Known: {', '.join(names)}.",
        )
    return provider
