"""The rows of a table: what was measured of units and of whole networks, and how carefully."""

from dataclasses import dataclass
from typing import Literal

from lut.records.network import UnitSpec

Place = Literal["in place", "corrected", "isolated"]
Form = tuple[str, ...]
"""What a runtime made of a unit: its kernels' names, sorted. It depends on the widths, the neighbours' among them."""


@dataclass(frozen=True)
class MeasureConfig:
    """How long and how carefully to measure.

    Attributes:
        warmup_s: time spent running before the first sample is kept.
        min_time_s: least time spent sampling.
        max_time_s: most time spent sampling, whatever the noise.
        min_samples: least number of samples.
        max_samples: most samples kept.
        noise_target: stop once the noise (standard error of the median over the median) is at or under it.
        timeout_s: after this the child process is stopped, and the row is a failure.
        cache: "warm" runs back to back; "cold" evicts the caches between samples.
    """

    warmup_s: float = 0.05
    min_time_s: float = 0.2
    max_time_s: float = 2.0
    min_samples: int = 20
    max_samples: int = 2000
    noise_target: float = 0.01
    timeout_s: float = 120.0
    cache: Literal["warm", "cold"] = "warm"


@dataclass(frozen=True)
class Measurement:
    """One row of the table: a unit's time, or why there is none.

    Attributes:
        spec: what was measured.
        config: how.
        samples_ms: raw samples kept, one inference each.
        median_ms: their median, or None for a failure, and for a unit that was compiled ahead of time and never run.
        noise: standard error of the median over the median (a fraction).
        place: "in place" (inside a whole network's run), "isolated", or "corrected": isolated times that whole networks
            have set right.
        weights_bytes, activation_bytes, workspace_bytes: where the runtime tells, else None.
        clocks_mhz: clock while measuring, where known.
        discarded: samples thrown away as disturbed.
        failure: why there is no time; a failure is a row.
        kernels: what the runtime ran for the unit, each with its share of the median in ms; empty where it tells none.
    """

    spec: UnitSpec
    config: MeasureConfig
    samples_ms: tuple[float, ...]
    median_ms: float | None
    noise: float | None
    place: Place = "in place"
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    workspace_bytes: int | None = None
    clocks_mhz: float | None = None
    discarded: int = 0
    failure: str | None = None
    kernels: tuple[tuple[str, float], ...] = ()

    @property
    def memory_alone(self) -> bool:
        """Whether the row is a compiler's that tells memory and, not being a failure, no time."""
        return self.failure is None and self.median_ms is None and self.weights_bytes is not None

    @property
    def form(self) -> Form:
        """The kernels' names, sorted; empty where the runtime tells none."""
        return tuple(sorted(name for name, _ in self.kernels))


@dataclass(frozen=True)
class NetworkMeasurement:
    """The same for a whole network at given widths.

    Attributes:
        network: hash of the unpruned network's structure and input shapes.
        widths: sorted (group, channels kept) pairs.
        median_ms: of whole runs; None for a failure, and for a network that was compiled ahead of time and never run.
        units_ms: sum of the units' in-place times in the same run, or None where the runtime tells none.
        precision: of the network as a whole ("fp32" …), or None where it was not told.
        forms: (unit, form) pairs: what the runtime made of each unit at these widths; empty where it tells nothing.
        weights_bytes, activation_bytes, workspace_bytes: as a compiler announces them (the workspace lies inside the
            activations), else None.
    """

    network: str
    widths: tuple[tuple[str, int], ...]
    config: MeasureConfig
    samples_ms: tuple[float, ...]
    median_ms: float | None
    noise: float | None
    units_ms: float | None = None
    discarded: int = 0
    failure: str | None = None
    precision: str | None = None
    forms: tuple[tuple[str, Form], ...] = ()
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    workspace_bytes: int | None = None
