"""The machine that a model is made for: device, execution provider, threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from drupe.core.declared import Declared

Device = Literal["cpu", "gpu", "npu"]

# Olive's and ONNX Runtime's name -> (device, short name as in folder names and `--target`).
PROVIDERS: dict[str, tuple[Device, str]] = {
    "CPUExecutionProvider": ("cpu", "cpu"),
    "CUDAExecutionProvider": ("gpu", "cuda"),
    "DmlExecutionProvider": ("gpu", "dml"),
    "WebGpuExecutionProvider": ("gpu", "webgpu"),
}


class Target(Declared):
    """What a pass that depends on the target is told; the engine fills it in.

    `threads` is what the deployed model uses (None: left to the runtime). It belongs to the
    target, not to the machine that builds.
    """

    provider: str = "CPUExecutionProvider"
    threads: int | None = None

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the provider alone: threads change how fast a result comes, not what it is.

        An export that writes the number down adds it to its own key.
        """
        return {"provider": self.provider}

    @property
    def device(self) -> Device:
        """The device that the provider runs on."""
        return PROVIDERS[self.provider][0]

    @property
    def short_provider(self) -> str:
        """The provider's short name: cpu, cuda, dml, webgpu."""
        return PROVIDERS[self.provider][1]

    @property
    def label(self) -> str:
        """The target's name in folder names, as Olive writes it: cpu-cpu, gpu-cuda."""
        return f"{self.device}-{self.short_provider}"
