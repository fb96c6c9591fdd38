"""One device's measurements in memory, read-only: what a unit costs at any channel counts, and in which steps."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lut.envelope import lower_envelope
from lut.errors import MissingFamilyError
from lut.family import Family, Pool
from lut.records import (
    DeviceFingerprint,
    Estimate,
    Form,
    Measurement,
    NetworkMeasurement,
    Place,
    Unit,
    UnitFamily,
    UnitSpec,
)
from lut.surface import EstimateArrays, Points
from lut.trend import Floats

_BEST_FIRST: tuple[Place, ...] = ("in place", "corrected", "isolated")
_STEP_SHARE = 0.8
"""A group's step is the smallest that serves units of this share of the group's cost."""


class LatencyTable:
    """One fingerprint's rows; surfaces are fitted when first asked for. A family without a row raises; nothing is 0."""

    def __init__(
        self,
        fingerprint: DeviceFingerprint,
        measurements: Iterable[Measurement],
        *,
        networks: Iterable[NetworkMeasurement] = (),
        precision: str | None = None,
        name: str = "the table",
        path: Path | None = None,
    ) -> None:
        """Sort rows by family.

        Where a family has rows measured in place, its isolated rows (which pay for borders that a network does not
        have) are left out of its surface, and counted in `set_aside`; and so where it has corrected ones.

        Args:
            fingerprint: of the device.
            measurements: rows of any families, failures among them.
            networks: whole-network rows.
            precision: which the rows were chosen for, where they were.
            name: for messages: the file's.
            path: of the file that the rows were read from.
        """
        self.fingerprint = fingerprint
        self.precision = precision
        self.name = name
        self.path = path
        self.measurements = list(measurements)
        self.networks = list(networks)
        self.failures: list[Measurement] = []
        self.set_aside = 0
        rows: dict[str, list[Measurement]] = defaultdict(list)
        for row in self.measurements:
            if row.memory_alone:
                continue
            if row.failure is not None or row.median_ms is None or not row.median_ms > 0:
                self.failures.append(row)
                continue
            rows[row.spec.family.key].append(row)
        for key, own in rows.items():
            best = min((row.place for row in own), key=_BEST_FIRST.index)
            rows[key] = [row for row in own if row.place == best]
            self.set_aside += len(own) - len(rows[key])
        pool = Pool([row for own in rows.values() for row in own])
        self._families = {key: Family(own[0].spec.family, own, pool) for key, own in rows.items()}

    @property
    def families(self) -> tuple[UnitFamily, ...]:
        """The families that have at least one latency."""
        return tuple(found.family for found in self._families.values())

    @cached_property
    def failure_counts(self) -> dict[str, int]:
        """How many rows failed, by family key."""
        return dict(Counter(row.spec.family.key for row in self.failures))

    def __contains__(self, family: UnitFamily) -> bool:
        return family.key in self._families

    def family(self, family: UnitFamily) -> Family:
        """A family's rows and the surfaces of its kernels.

        Raises:
            MissingFamilyError: it has no measured point.
        """
        if family.key not in self._families:
            raise self.missing([family])
        return self._families[family.key]

    def points(self, family: UnitFamily) -> Points:
        """A family's distinct measured points, each unit as a whole.

        Raises:
            MissingFamilyError: it has none.
        """
        return self.family(family).points

    def estimate(self, spec: UnitSpec) -> Estimate:
        """What a unit costs.

        Raises:
            MissingFamilyError: its family has no measured point.
        """
        return self.estimate_many(spec.family, [spec.channels])[0]

    def estimate_many(
        self,
        family: UnitFamily,
        channels: ArrayLike,
        forms: Sequence[Form | None] | None = None,
        *,
        left_out: bool = False,
    ) -> EstimateArrays:
        """What a unit costs at channel counts `[m, k]`; one call for many points is much cheaper than many calls.

        Args:
            family: the unit's.
            channels: where.
            forms: what the runtime makes of the unit at each, None where that is not known (it is then guessed from
                the alignment of the channel counts).
            left_out: at measured points say what would be said had they not been measured.

        Raises:
            MissingFamilyError: the family has no measured point.
            ValueError: the channels have another shape.
        """
        own = self.family(family)
        counts = np.asarray(channels, dtype=np.int64)
        coordinates = own.points.channels.shape[1]
        if counts.ndim != 2 or counts.shape[1] != coordinates:
            raise ValueError(f"{family} has {coordinates} channel counts; got an array of shape {counts.shape}")
        return own.estimate_many(counts, forms, left_out=left_out)

    def envelope(
        self, family: UnitFamily, channels: Sequence[int], coordinate: int
    ) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        """The lower envelope along one coordinate: what a unit costs that may be padded with dead channels.

        Args:
            family: the unit's.
            channels: of all coordinates; that of `coordinate` is the widest that is looked at.
            coordinate: which one varies.

        Returns:
            Counts from 1 to the widest, the envelope in ms at each, and the count at or above it that attains it.

        Raises:
            MissingFamilyError: the family has no measured point.
        """
        counts = np.arange(1, channels[coordinate] + 1, dtype=np.int64)
        places = np.tile(np.asarray(channels, dtype=np.int64), (len(counts), 1))
        places[:, coordinate] = counts
        ms, attained = lower_envelope(self.estimate_many(family, places).ms)
        return counts, ms, counts[attained]

    def step(self, family: UnitFamily, coordinate: int) -> int:
        """The step found in one of a family's coordinates: only whole multiples are worth keeping (1: any count is).

        Raises:
            MissingFamilyError: the family has no measured point.
        """
        return self.family(family).whole.steps[coordinate]

    def extended(
        self, measurements: Iterable[Measurement], networks: Iterable[NetworkMeasurement] = ()
    ) -> "LatencyTable":
        """A table with these rows beside its own; the file it came from is not changed."""
        return LatencyTable(
            self.fingerprint,
            [*self.measurements, *measurements],
            networks=[*self.networks, *networks],
            precision=self.precision,
            name=self.name,
            path=self.path,
        )

    def width_step(self, group: str, units: Iterable[Unit], widths: Mapping[str, int] | None = None) -> int:
        """The step in a group's width that is worth keeping to, decided by the units that cost most.

        Units whose family the table lacks have no say.

        Args:
            group: name of the channel group.
            units: the network's; those that do not depend on the group are passed over.
            widths: where to weigh the units; without it each counts at its largest measured point.
        """
        costs: dict[int, float] = defaultdict(float)
        for unit in units:
            if group not in unit.groups or unit.family not in self:
                continue
            family = self.family(unit.family)
            channels = family.points.channels.max(axis=0) if widths is None else unit.channels(widths)
            steps = [
                step // math.gcd(step, count)
                for step, coordinate in zip(family.steps, unit.coordinates, strict=True)
                for name, count in coordinate.terms
                if name == group
            ]
            costs[max(steps)] += float(self.estimate_many(unit.family, [channels]).ms[0])
        served = 0.0
        for step in sorted(costs):
            served += costs[step]
            if served >= _STEP_SHARE * sum(costs.values()):
                return step
        return 1

    def missing(self, families: Iterable[UnitFamily]) -> MissingFamilyError:
        """The error that names families without a latency (for the caller to raise)."""
        lines = []
        for family in dict.fromkeys(families):
            failed = self.failure_counts.get(family.key, 0)
            lines.append(f"{family}" + (f" ({failed} tries failed)" if failed else ""))
        return MissingFamilyError(
            f"{self.name} has no latency of: {'; '.join(lines)}.\nMeasure: latprune profile TASK --table {self.name}"
        )
