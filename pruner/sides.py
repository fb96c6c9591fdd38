"""The two sides of a run, before and after: each a network with what was counted, predicted and measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lut import Predictor
from lut.memory import MemoryBound
from profiler.leftovers import Standing
from profiler.network import Network

BOUND = "ahead-of-time bound"
"""What a compiler's figure is called wherever it is shown: not what a device will allocate."""


@dataclass(frozen=True)
class Side:
    """One side of before and after: a network with what was measured of it."""

    part: nn.Module
    widths: Mapping[str, int]
    measured_ms: float | None
    noise: float | None
    metrics: Mapping[str, float]

    def to_json(
        self,
        network: Network,
        predictor: Predictor | None,
        memory_of: tuple[str, str],
        stood: Standing | None = None,
        *,
        bound: MemoryBound | None = None,
    ) -> dict[str, Any]:
        """The keys that other programs rely on, and more.

        Args:
            network: what stands on this side.
            predictor: of its latency, where there is one.
            memory_of: the runtime and the precision whose memory is told.
            stood: what stands in place of the units of blocks that are gone.
            bound: what a compiler announces; without it memory is counted by the runtime's rules.
        """
        known = stood or Standing()
        liveness = network.liveness(*memory_of)
        memory = liveness.at(self.widths).to_json() | {"io_bytes": liveness.io_bytes(self.widths)}
        if bound is not None:
            memory |= {
                "weights_bytes": bound.weights_bytes,
                "peak_activation_bytes": bound.activation_bytes - bound.workspace_bytes,
                "workspace_bytes": bound.workspace_bytes,
                "total_bytes": bound.total_bytes,
                "io_bytes": bound.io_bytes,
            }
        return {
            "metric": next(iter(self.metrics.values()), None),
            "metrics": dict(self.metrics),
            "predicted_ms": predictor.latency_ms(self.widths, gone=known.gone, left=known.left) if predictor else None,
            "measured_ms": self.measured_ms,
            "noise": self.noise,
            "parameters": sum(parameter.numel() for parameter in self.part.parameters()),
            "macs": network.macs(self.widths),
            **memory,
            "memory_of": memory_of[0],
            "memory_precision": memory_of[1],
            "memory_is": "counted" if bound is None else BOUND,
        }
