"""A whole network's latency at given widths: the calibrated sum of its units' estimates.

    total = scale * sum_u ms_u(widths) + overhead

Scale and overhead come from whole networks in the table (`lut/calibration.py`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from lut.calibration import calibrate, likely_spread
from lut.records import Basis, Calibration, Estimate, NetworkMeasurement, Prediction, Unit, UnitEstimate
from lut.surface import BASES
from lut.table import LatencyTable
from lut.trend import Floats, Ints

_CORRELATION = 0.3
"""Assumed between the errors of a network's units: the same drift, the same model's shortcomings."""

_Z90 = 1.645


class Predictor:
    """Predicts one network at many widths; remembers what it has estimated.

    Attributes:
        units: the priced ones, in the network's order.
        missing: names of the units that the table cannot price.
        table: what prices them.
        network: hash of the network, to find its own whole-network rows.
    """

    def __init__(
        self, units: Iterable[Unit], table: LatencyTable, *, network: str | None = None, allow_missing: bool = False
    ) -> None:
        """Look up the units' families.

        Raises:
            MissingFamilyError: the table lacks families, and `allow_missing` is off; names all of them.
        """
        every = tuple(units)
        self.table = table
        self.network = network
        self.units = tuple(unit for unit in every if unit.family in table)
        self.missing = tuple(unit.name for unit in every if unit.family not in table)
        if self.missing and not allow_missing:
            raise table.missing(unit.family for unit in every if unit.family not in table)
        self._numbers = {unit.name: number for number, unit in enumerate(self.units)}
        self._known: dict[tuple[str, tuple[int, ...]], Estimate] = {}
        self._touching: dict[str, list[int]] = {}
        for number, unit in enumerate(self.units):
            for group in unit.groups:
                self._touching.setdefault(group, []).append(number)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that the latency depends on."""
        return tuple(self._touching)

    @cached_property
    def calibration(self) -> Calibration:
        """Fitted from this network's own rows, or without any from all networks' whose units were timed in place."""
        measured = [row for row in self.table.networks if row.failure is None and row.median_ms]
        pairs: list[tuple[float, float]] = []
        if not self.missing:
            own = [row for row in measured if row.network == self.network and self._covers(row)]
            sums = self._sums_ms([dict(row.widths) for row in own])
            pairs = [(float(total), row.median_ms or 0.0) for total, row in zip(sums, own, strict=True) if total > 0]
        if not pairs:
            pairs = [(row.units_ms, row.median_ms or 0.0) for row in measured if row.units_ms]
        return calibrate(pairs)

    def estimate(self, unit: int | str, widths: Mapping[str, int]) -> Estimate:
        """One unit's estimate (by number among `units`, or by name), uncalibrated."""
        found = self.units[self._numbers[unit] if isinstance(unit, str) else unit]
        place = (found.family.key, found.channels(widths))
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self.table.estimate_many(found.family, [place[1]])[0]
        return known

    def unit_ms(self, unit: int | str, widths: Mapping[str, int]) -> float:
        """One unit's latency (by number among `units`, or by name), uncalibrated."""
        return self.estimate(unit, widths).ms

    def unit_many_ms(self, unit: int | str, channels: ArrayLike) -> Floats:
        """One unit's latencies `[m]` at channel counts `[m, k]`, uncalibrated and not remembered."""
        found = self.units[self._numbers[unit] if isinstance(unit, str) else unit]
        return self.table.estimate_many(found.family, channels).ms

    def latency_ms(self, widths: Mapping[str, int]) -> float:
        """The network's latency, calibrated."""
        total = sum(self.unit_ms(number, widths) for number in range(len(self.units)))
        return self.calibration.scale * total + self.calibration.overhead_ms

    def latencies_ms(self, widths: Sequence[Mapping[str, int]]) -> Floats:
        """The network's latency at each of many widths, `[m]`, calibrated; all at once."""
        return self.calibration.scale * self._sums_ms(widths) + self.calibration.overhead_ms

    def change_ms(self, widths: Mapping[str, int], group: str, new_width: int) -> float:
        """By how much the network's latency changes when one group's width does (calibrated; negative is faster).

        The group is differenced as a whole, in all units that it touches, at the current widths of the others.
        """
        after = {**widths, group: new_width}
        touched = self._touching.get(group, ())
        return self.calibration.scale * sum(self.unit_ms(n, after) - self.unit_ms(n, widths) for n in touched)

    def predict(self, widths: Mapping[str, int]) -> Prediction:
        """The network's latency with its interval, and its units'."""
        units = tuple(
            UnitEstimate(unit.name, unit.spec(widths), self.estimate(number, widths))
            for number, unit in enumerate(self.units)
        )
        calibration = self.calibration
        ms = calibration.scale * sum(unit.estimate.ms for unit in units) + calibration.overhead_ms
        worst: Basis = max((unit.estimate.basis for unit in units), key=BASES.index, default="extrapolated")
        own = calibration.scale * _spread_ms([unit.estimate for unit in units])
        half = math.hypot(own, _Z90 * likely_spread(calibration) * ms)
        # a latency cannot fall below nothing: wide intervals are wide by factors
        factor = math.exp(half / ms) if ms else 1.0
        return Prediction(Estimate(ms, ms / factor, ms * factor, worst), units, self.missing, calibration)

    def _covers(self, row: NetworkMeasurement) -> bool:
        known = {group for group, _ in row.widths}
        return all(group in known for group in self._touching)

    def _sums_ms(self, widths: Sequence[Mapping[str, int]]) -> Floats:
        total = np.zeros(len(widths))
        if not widths:
            return total
        for unit in self.units:
            channels: Ints = np.array([unit.channels(each) for each in widths], dtype=np.int64)
            channels = channels.reshape(len(widths), len(unit.coordinates))
            distinct, back = np.unique(channels, axis=0, return_inverse=True)
            total += self.table.estimate_many(unit.family, distinct).ms[back.reshape(-1)]
        return total


def predict(
    units: Iterable[Unit],
    widths: Mapping[str, int],
    table: LatencyTable,
    *,
    network: str | None = None,
    allow_missing: bool = False,
) -> Prediction:
    """Predict a network's latency at the groups' widths.

    Args:
        units: the network's.
        widths: channels kept of every group that a unit depends on.
        table: of the device.
        network: the network's hash, so that it is calibrated by its own whole-network rows.
        allow_missing: leave units out that the table cannot price, and name them in the result.

    Raises:
        MissingFamilyError: the table lacks families; names all of them.
    """
    return Predictor(units, table, network=network, allow_missing=allow_missing).predict(widths)


def _spread_ms(estimates: Sequence[Estimate]) -> float:
    """Half-width of the sum's 90 % interval, the units' errors partly correlated."""
    halves = np.array([(estimate.high_ms - estimate.low_ms) / 2 for estimate in estimates])
    together = _CORRELATION * halves.sum() ** 2 + (1 - _CORRELATION) * (halves**2).sum()
    return math.sqrt(float(together))
