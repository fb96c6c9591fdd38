"""A whole network's latency at given widths: the calibrated sum of its units' estimates.

    total = scale * sum_u ms_u(widths) + overhead

Scale and overhead come from whole networks in the table (`lut/calibration.py`).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from lut.calibration import calibrate, calibrated, likely_half
from lut.envelope import lower_envelope
from lut.records import Basis, Calibration, Estimate, Form, NetworkMeasurement, Prediction, Unit, UnitEstimate
from lut.surface import BASES
from lut.table import LatencyTable
from lut.trend import Floats, Ints

_CORRELATION = 0.3
"""Assumed between the errors of a network's units: the same drift, the same model's shortcomings."""

Forms = Mapping[str, Form]
"""By unit: what the runtime makes of it."""


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
        self._known: dict[tuple[str, tuple[int, ...], Form | None], Estimate] = {}
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
        """Fitted from this network's own rows, or without any from all networks' whose units were timed in place.

        Its own rows are compared with what would be predicted had they not been measured.
        """
        measured = [row for row in self.table.networks if row.failure is None and row.median_ms]
        if not self.missing:
            own = [row for row in measured if row.network == self.network and self._covers(row)]
            widths, forms = [dict(row.widths) for row in own], [dict(row.forms) for row in own]
            sums, halves = self._sums_ms(widths, forms, left_out=True)
            if len(own):
                informed, _ = self._sums_ms(widths, forms)
                return calibrate(sums, np.array([row.median_ms for row in own]), halves, informed)
        others = [row for row in measured if row.units_ms]
        return calibrate(np.array([row.units_ms for row in others]), np.array([row.median_ms for row in others]))

    def estimate(self, unit: int | str, widths: Mapping[str, int], form: Form | None = None) -> Estimate:
        """One unit's estimate (by number among `units`, or by name), uncalibrated."""
        return self._estimate(self.units[self._numbers[unit] if isinstance(unit, str) else unit], widths, form)

    def _estimate(self, found: Unit, widths: Mapping[str, int], form: Form | None) -> Estimate:
        place = (found.family.key, found.channels(widths), form)
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self.table.estimate_many(found.family, [place[1]], [form])[0]
        return known

    def unit_ms(self, unit: int | str, widths: Mapping[str, int]) -> float:
        """One unit's latency (by number among `units`, or by name), uncalibrated."""
        return self.estimate(unit, widths).ms

    def unit_many_ms(self, unit: int | str | Unit, channels: ArrayLike) -> Floats:
        """One unit's latencies `[m]` at channel counts `[m, k]`, uncalibrated and not remembered.

        Args:
            unit: by number or name, or one of what is left of the network.
            channels: its counts.
        """
        found = unit if isinstance(unit, Unit) else self.units[self._numbers[unit] if isinstance(unit, str) else unit]
        return self.table.estimate_many(found.family, channels).ms

    def prices(self, unit: Unit) -> bool:
        """Whether the table has a price for a unit, of this network or of what is left of it."""
        return unit.family in self.table

    def there(self, gone: Collection[str], left: Sequence[Unit]) -> tuple[Unit, ...]:
        """The priced units of what is left of the network; `gone` and `left` as in `predict`."""
        own = tuple(unit for unit in self.units if unit.name not in gone)
        return (*own, *(unit for unit in left if self.prices(unit)))

    def latency_ms(
        self,
        widths: Mapping[str, int],
        forms: Forms | None = None,
        gone: Collection[str] = (),
        left: Sequence[Unit] = (),
    ) -> float:
        """The network's latency, calibrated; `forms`, `gone` and `left` as in `predict`."""
        known = forms or {}
        total = sum(self._estimate(unit, widths, known.get(unit.name)).ms for unit in self.there(gone, left))
        return float(calibrated(self.calibration, np.array([total]))[0])

    def latencies_ms(self, widths: Sequence[Mapping[str, int]], forms: Sequence[Forms] | None = None) -> Floats:
        """The network's latency at each of many widths, `[m]`, calibrated; all at once."""
        sums, _ = self._sums_ms(widths, forms)
        return calibrated(self.calibration, sums)

    def uncertainties(self, widths: Sequence[Mapping[str, int]]) -> Floats:
        """How little is known of the latency at each of many widths: the interval's half-width, a fraction, `[m]`."""
        sums, halves = self._sums_ms(widths)
        return halves / sums

    def worth_having(self, group: str, options: Sequence[int], widths: Mapping[str, int]) -> tuple[int, ...]:
        """Those of a group's widths that no wider one undercuts, at the current widths of the others.

        Args:
            group: its name.
            options: ascending widths.
            widths: of all groups.
        """
        touched = self._touching.get(group, ())
        ms = np.zeros(len(options))
        for number in touched:
            unit = self.units[number]
            ms += self.unit_many_ms(number, [unit.channels({**widths, group: option}) for option in options])
        _, attained = lower_envelope(ms)
        return tuple(option for place, option in enumerate(options) if attained[place] == place)

    def predict(
        self,
        widths: Mapping[str, int],
        forms: Forms | None = None,
        gone: Collection[str] = (),
        left: Sequence[Unit] = (),
    ) -> Prediction:
        """The network's latency with its interval, and its units'.

        Args:
            widths: channels kept of every group that a unit depends on.
            forms: what the runtime makes of the units at these widths (`profiler.forms`); units that it leaves out are
                guessed, and counted in the prediction.
            gone: names of units that are there no more, as where a residual block went.
            left: units that stand in their place; one that the table cannot price is missing, as any other.
        """
        known = forms or {}
        there = self.there(gone, left)
        units = tuple(
            UnitEstimate(unit.name, unit.spec(widths), self._estimate(unit, widths, known.get(unit.name)))
            for unit in there
        )
        calibration = self.calibration
        ms = float(calibrated(calibration, np.array([sum(unit.estimate.ms for unit in units)]))[0])
        worst: Basis = max((unit.estimate.basis for unit in units), key=BASES.index, default="extrapolated")
        halves = np.array([[(unit.estimate.high_ms - unit.estimate.low_ms) / 2] for unit in units]).reshape(-1, 1)
        half = calibration.scale * float(_half_of_sum(halves)[0])
        # a latency cannot fall below nothing: wide intervals are wide by factors
        factor = math.exp(likely_half(calibration, half / ms)) if ms else 1.0
        guessed = sum(unit.name not in known and self.table.family(unit.family).forms != () for unit in there)
        total = Estimate(ms, ms / factor, ms * factor, worst)
        missing = [name for name in self.missing if name not in gone]
        missing += [unit.name for unit in left if not self.prices(unit)]
        return Prediction(total, units, tuple(missing), calibration, guessed)

    def _covers(self, row: NetworkMeasurement) -> bool:
        known = {group for group, _ in row.widths}
        return all(group in known for group in self._touching)

    def _sums_ms(
        self, widths: Sequence[Mapping[str, int]], forms: Sequence[Forms] | None = None, *, left_out: bool = False
    ) -> tuple[Floats, Floats]:
        """Sums of the units `[m]`, and half-widths of their intervals `[m]`, uncalibrated."""
        if not widths:
            return np.zeros(0), np.zeros(0)
        total, halves = np.zeros(len(widths)), []
        for unit in self.units:
            channels: Ints = np.array([unit.channels(each) for each in widths], dtype=np.int64)
            channels = channels.reshape(len(widths), len(unit.coordinates))
            known = None if forms is None else [each.get(unit.name) for each in forms]
            found = self.table.estimate_many(unit.family, channels, known, left_out=left_out)
            total += found.ms
            halves.append((found.high_ms - found.low_ms) / 2)
        return total, _half_of_sum(np.array(halves))


def predict(
    units: Iterable[Unit],
    widths: Mapping[str, int],
    table: LatencyTable,
    *,
    forms: Forms | None = None,
    gone: Collection[str] = (),
    left: Sequence[Unit] = (),
    network: str | None = None,
    allow_missing: bool = False,
) -> Prediction:
    """Predict a network's latency at the groups' widths.

    Args:
        units: the network's.
        widths: channels kept of every group that a unit depends on.
        table: of the device.
        forms: what the runtime makes of the units at these widths, where it is known (`profiler.forms` compiles it).
        gone: names of units that are there no more.
        left: units that stand in their place.
        network: the network's hash, so that it is calibrated by its own whole-network rows.
        allow_missing: leave units out that the table cannot price, and name them in the result.

    Raises:
        MissingFamilyError: the table lacks families; names all of them.
    """
    return Predictor(units, table, network=network, allow_missing=allow_missing).predict(widths, forms, gone, left)


def _half_of_sum(halves: Floats) -> Floats:
    """Half-width of the sum's 90 % interval from the units' `[u, m]`, their errors partly correlated: `[m]`."""
    together: Floats = _CORRELATION * halves.sum(axis=0) ** 2 + (1 - _CORRELATION) * (halves**2).sum(axis=0)
    return np.sqrt(together)
