"""Estimates: what a table says of units and of a whole network, and what was fitted to say it."""

from dataclasses import dataclass, field
from typing import Literal

from lut.records.network import UnitSpec

Basis = Literal["measured", "interpolated", "extrapolated"]


@dataclass(frozen=True)
class Calibration:
    """What whole networks cost over the sum of their units: `scale * sum + overhead`, fitted.

    Attributes:
        scale: factor on the sum of units.
        overhead_ms: what a run costs beside its units; negative where short kernels are timed too long.
        spread: relative error of the fit on networks that it had not seen, root mean square (a fraction).
        networks: how many whole networks it was fitted from (0: nothing known, scale 1).
        stretch: what the intervals of the units' sums are multiplied by, so that nine of ten such networks lay inside.
    """

    scale: float = 1.0
    overhead_ms: float = 0.0
    spread: float = 0.0
    networks: int = 0
    stretch: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """A latency with what is known about it; latencies never travel as bare floats.

    `low_ms` to `high_ms` is a 90 % interval.
    """

    ms: float
    low_ms: float
    high_ms: float
    basis: Basis


@dataclass(frozen=True)
class UnitEstimate:
    """One line of a prediction."""

    unit: str
    spec: UnitSpec
    estimate: Estimate


@dataclass(frozen=True)
class Prediction:
    """A whole network's predicted latency: the calibrated sum of its units.

    Attributes:
        total: with the fitted overhead and the interval.
        units: in the network's order; uncalibrated.
        missing: units whose family the table lacks (the total then leaves them out, and says so).
        calibration: what was applied to the sum.
        guessed: units of which was guessed what the runtime makes of them at these widths.
    """

    total: Estimate
    units: tuple[UnitEstimate, ...]
    missing: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    guessed: int = 0

    def count(self, basis: Basis) -> int:
        """How many units are priced on this basis."""
        return sum(unit.estimate.basis == basis for unit in self.units)
