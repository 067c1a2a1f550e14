"""How a search goes: `engine.search_strategy`, in Olive's words of today."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from drupe.config.section import Section


class SamplerConfig(Section):
    """`sampler_config`: of the sampler alone."""

    max_samples: int | None = Field(default=None, ge=1)
    """How many points it proposes at most (in pass-by-pass for each pass); None: all."""
    seed: int = 1
    """Of random and tpe: the same seed gives the same points."""
    multivariate: bool = True
    """Of tpe: whether settings are chosen together."""
    group: bool = True
    """Of tpe: whether settings that are asked together are modelled together."""


class SearchStrategy(Section):
    """Which points are tried, in which order, and when it is enough."""

    execution_order: Literal["joint", "pass-by-pass"] = "joint"
    """joint: all passes' choices together. pass-by-pass: one pass's after another's, each on the
    best of what the passes in front gave."""
    sampler: Literal["sequential", "random", "tpe", "economy"] = "sequential"
    """sequential: every point in order. random: by chance, each once. tpe: Optuna's. economy: few,
    chosen by what can be foretold of exports, which what was measured corrects."""
    sampler_config: SamplerConfig = SamplerConfig()
    output_model_num: int = Field(default=1, ge=1)
    """How many of the best models are delivered."""
    stop_when_goals_met: bool = False
    """End with the first points that keep every goal."""
    max_iter: int | None = Field(default=None, ge=1)
    """How many points are tried at most."""
    max_time: float | None = Field(default=None, gt=0)
    """Seconds after which no further point is begun, those of earlier runs of it counted."""
    tolerate_failures: bool = False
    """Go on when a pass fails on a point; else the first failure ends the search."""

    @property
    def words(self) -> str:
        """How points are tried: "sequential, joint, at most 12"."""
        ends = (
            ("at most", self.max_iter),
            ("at most", self.sampler_config.max_samples),
            ("seconds at most", self.max_time),
        )
        told = [f"{name} {value:g}" for name, value in ends if value is not None]
        return ", ".join([self.sampler, self.execution_order, *told])
