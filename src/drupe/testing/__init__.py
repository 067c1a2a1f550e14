"""What drupe ships to authors of plug-ins: contracts that their passes keep, as tests."""

from drupe.testing.contract import PassContract

__all__ = ["PassContract"]
