"""Which system runs the steps, and which target the model is made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drupe.config.schema import Accelerator, AzureMLConfig, EngineConfig, LocalSystemConfig
from drupe.core.errors import Refused, nearest
from drupe.core.process import usable_cores
from drupe.core.target import PROVIDERS, Target

Systems = Mapping[str, LocalSystemConfig | AzureMLConfig]
# (place in the config, what is wrong, what to do)
Finding = tuple[tuple[str, ...], str, str]


def findings(engine: EngineConfig, systems: Systems, system: str | None) -> Iterator[Finding]:
    """Yield what is wrong with `engine.host` and `engine.target`."""
    for role in ("host", "target"):
        name = getattr(engine, role)
        if name is not None and name not in systems:
            what = f'names no system: "{name}"{nearest(name, systems)}'
            yield ("engine", role), what, f"Known: {', '.join(systems) or 'none'}."
    host = systems.get(engine.host or "")
    if host is not None and host.type == "AzureML" and system is None:
        yield (
            ("engine", "host"),
            f'"{engine.host}" is an AzureML system, and this version runs steps here only',
            "Run with --system local.",
        )
    provider = _configured_provider(engine, systems)
    if provider not in PROVIDERS:
        what = f"{provider} is not supported{nearest(provider, PROVIDERS)}"
        yield ("engine", "target"), what, f"Known: {', '.join(PROVIDERS)}."


def choose(engine: EngineConfig, systems: Systems, target: str | None) -> Target:
    """Return the target that is asked for, or that the config names, or the CPU.

    target: a provider by its short or long name; without it the first provider of the system
    that `engine.target` names.

    Raises Refused for an unknown `target`.
    """
    provider = _configured_provider(engine, systems) if target is None else _named(target)
    # As many threads as this machine has, where it may well be the target itself.
    threads = usable_cores() if provider == "CPUExecutionProvider" else None
    return Target(provider=provider, threads=threads)


def notes(engine: EngineConfig, systems: Systems) -> Iterator[str]:
    """Yield what the user may not expect of the choice."""
    owner = systems.get(engine.target or "")
    if owner is None:
        return
    offered = [name for each in owner.accelerators for name in each.execution_providers or ()]
    if len(offered) > 1:
        yield (
            f"the model is made for {offered[0]} alone; for {', '.join(offered[1:])} run again "
            "with --target"
        )


def _configured_provider(engine: EngineConfig, systems: Systems) -> str:
    owner = systems.get(engine.target or "")
    if owner is not None and owner.accelerators:
        return _provider_of(owner.accelerators[0])
    return (engine.execution_providers or ["CPUExecutionProvider"])[0]


def _provider_of(accelerator: Accelerator) -> str:
    if accelerator.execution_providers:
        return accelerator.execution_providers[0]
    fitting = (name for name, (device, _) in PROVIDERS.items() if device == accelerator.device)
    return next(fitting, f"a provider for {accelerator.device}")


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
