"""Whether this machine has a GPU that torch can train on, found without importing torch.  Light."""

from __future__ import annotations

from pathlib import Path

from drupe.core.libraries import installed_version

DRIVER = Path("/proc/driver/nvidia/version")  # there while NVIDIA's driver is loaded
# What wheels without CUDA say in their versions: torch 2.9.0+cpu.
WITHOUT_CUDA = ("+cpu", "+xpu", "+rocm")


def trains_on_cuda(driver: Path = DRIVER) -> bool:
    """Return whether the driver is loaded and the installed torch is one that may use it."""
    torch = installed_version("torch")
    return (
        torch is not None and driver.is_file() and not any(kind in torch for kind in WITHOUT_CUDA)
    )


def has_bitsandbytes_optimizers(driver: Path = DRIVER) -> bool:
    """Return whether the optimizers of bitsandbytes run here: they need a GPU."""
    return trains_on_cuda(driver) and installed_version("bitsandbytes") is not None
