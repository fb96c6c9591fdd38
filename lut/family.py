"""What one family costs: the sum of the kernels that the runtime makes of it, each with a surface of its own.

    ms(c) = sum over kernels k of form(c):  surface_k(c)

The form (which kernels run) changes by jumps, with the alignment of the unit's channel counts and of its neighbours';
the kernels' surfaces are simple. Where the form is known (from compiling the network) the sum is exact; else forms that
were seen at channel counts of like alignment share in it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lut.records import Form, Measurement, UnitFamily
from lut.surface import BASES, WIDEST, Z90, EstimateArrays, Points, Surface, combine
from lut.trend import Floats, Hints, Ints, Rounding, choose_rounding
from lut.work import fit_work, work

_FINEST = 16
"""Runtimes lay channels out in blocks of up to so many: a larger power of two changes no form."""
_FINER = (8, 4, 2, 1)
_AGREEING = 0.9
"""Share of the rows of an alignment that must have the forms of well aligned ones."""
_UNLIKE = 0.05
"""How much less a form counts that was seen one step of alignment away, in one coordinate."""

_NEGLIGIBLE = 0.02
"""A form that is less likely than this is left out of the mix."""

_TOGETHER = 0.5
"""Assumed correlation between the errors of one unit's kernels."""


class Family:
    """One family's measured rows; surfaces are fitted when first asked for."""

    def __init__(self, family: UnitFamily, rows: Sequence[Measurement], pooled: "Pool") -> None:
        """Sort finished rows, at least one, by kernel; `pooled` says what the kernels cost in other families."""
        self.family = family
        self.points = combine([(row.spec.channels, row.median_ms or 0.0, row.noise or 0.0) for row in rows])
        self._pool = pooled
        told = [row for row in rows if row.kernels]
        self._forms = [row.form for row in told]
        seen = np.array([row.spec.channels for row in told], dtype=np.int64)
        self._seen = seen.reshape(len(told), self.points.channels.shape[1])
        self._surfaces: dict[str, Surface | None] = {}

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that were seen, the most frequent first."""
        return tuple(form for form, _ in Counter(sorted(self._forms)).most_common())

    @cached_property
    def whole(self) -> Surface:
        """The surface of the units' whole times, whatever their forms: what there is where no kernels are told."""
        return Surface(self.points)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """For each coordinate the step worth keeping to (1: any count is as good).

        It is the larger of two: the block of the kernel that takes most time where counts are aligned, and the
        alignment off which the runtime makes other kernels of the unit.
        """
        if not self._forms:
            return self.whole.steps
        aligned = (self._seen % _FINEST == 0).all(axis=1)
        times: dict[str, float] = defaultdict(float)
        for form in [form for form, at in zip(self._forms, aligned, strict=True) if at] or self._forms:
            for kernel in form:
                points = self._pool.points(self.family, kernel)
                assert points is not None
                times[kernel] += float(np.median(points.ms))
        blocks, multiples = self._pool.rounding(self.family, max(times, key=lambda kernel: times[kernel]))
        own = np.maximum(blocks, multiples)
        return tuple(max(int(step), self._form_step(i)) for i, step in enumerate(own))

    def _form_step(self, coordinate: int) -> int:
        """The least power of two at whose multiples the forms are those of well aligned counts."""
        counts = self._seen[:, coordinate]
        usual = {form for form, count in zip(self._forms, counts, strict=True) if count % _FINEST == 0}
        if not usual:
            return 1
        step = _FINEST
        for finer in _FINER:
            own = [
                form in usual for form, count in zip(self._forms, counts, strict=True) if count % (2 * finer) == finer
            ]
            if sum(own) < _AGREEING * len(own):
                break
            step = finer if own else step
        return step

    def surface(self, kernel: str) -> Surface | None:
        """The surface of one kernel in this family; None where no family has a row of it."""
        if kernel not in self._surfaces:
            self._surfaces[kernel] = self._fit(kernel)
        return self._surfaces[kernel]

    def _fit(self, kernel: str) -> Surface | None:
        channels = self.points.channels
        hints = self._pool.hints(self.family, kernel, channels)
        points = self._pool.points(self.family, kernel)
        if points is not None:
            return Surface(points, hints, self._pool.rounding(self.family, kernel))
        if hints is None:
            return None
        middle = slice(len(channels) // 2, len(channels) // 2 + 1)
        guessed = Points(channels[middle], hints.ms[middle], np.full(1, 0.5), np.ones(1, dtype=np.int64))
        return Surface(guessed, hints)

    def estimate_many(
        self, channels: Ints, forms: Sequence[Form | None] | None = None, *, left_out: bool = False
    ) -> EstimateArrays:
        """Estimate at channel counts `[m, k]`.

        Args:
            channels: where.
            forms: what the runtime makes of the unit at each, or None where that is not known.
            left_out: at measured points say what would be said had they not been measured.
        """
        if not self._forms:
            found = self.whole.estimate_many(channels)
            return replace(found, ms=self.whole.left_out_ms(channels, found)) if left_out else found
        parts: list[tuple[Form, NDArray[np.int64], Floats]] = []
        told = list(forms) if forms is not None else [None] * len(channels)
        numbers: dict[Form | None, list[int]] = defaultdict(list)
        for number, form in enumerate(told):
            numbers[form].append(number)
        guessed: NDArray[np.bool_] = np.zeros(len(channels), dtype=bool)
        for form, own in numbers.items():
            at = np.array(own, dtype=np.int64)
            if form is not None and all(self.surface(kernel) is not None for kernel in form):
                parts.append((form, at, np.ones(len(at))))
                continue
            shares, seen_there = self._shares(channels[at])
            guessed[at] = ~seen_there
            parts += [(seen, at[share > 0], share[share > 0]) for seen, share in shares.items()]
        return self._sum(channels, parts, guessed, left_out=left_out)

    def _sum(
        self,
        channels: Ints,
        parts: Sequence[tuple[Form, NDArray[np.int64], Floats]],
        guessed: NDArray[np.bool_],
        *,
        left_out: bool,
    ) -> EstimateArrays:
        count = len(channels)
        ms, squares, spread = np.zeros(count), np.zeros(count), np.zeros(count)
        basis = np.zeros(count, dtype=np.int8)
        found = {
            kernel: self._kernel(kernel, channels, left_out=left_out)
            for kernel in dict.fromkeys(kernel for form, _, _ in parts for kernel in form)
        }
        for form, at, share in parts:
            times = np.stack([found[kernel].ms[at] for kernel in form])
            halves = np.stack([found[kernel].high_ms[at] - found[kernel].low_ms[at] for kernel in form]) / 2
            total = times.sum(axis=0)
            apart = (halves**2).sum(axis=0)
            ms[at] += share * total
            squares[at] += share * total**2
            spread[at] += share * np.sqrt(_TOGETHER * halves.sum(axis=0) ** 2 + (1 - _TOGETHER) * apart)
            basis[at] = np.maximum(basis[at], np.stack([found[kernel].basis[at] for kernel in form]).max(axis=0))
        between = np.sqrt(np.maximum(squares - ms**2, 0))  # which form it is, is not known
        factor = np.exp(np.minimum((spread + Z90 * between) / ms, WIDEST))
        basis = np.where(guessed & (basis == 0), np.int8(1), basis).astype(np.int8)
        return EstimateArrays(ms, ms / factor, ms * factor, basis)

    def _kernel(self, kernel: str, channels: Ints, *, left_out: bool) -> EstimateArrays:
        """One kernel's times at channel counts `[m, k]`; extrapolated where this family never ran it."""
        surface = self.surface(kernel)
        assert surface is not None
        found = surface.estimate_many(channels)
        if left_out:
            found = replace(found, ms=surface.left_out_ms(channels, found))
        if self._pool.points(self.family, kernel) is None:
            found = replace(found, basis=np.full(len(channels), BASES.index("extrapolated"), dtype=np.int8))
        return found

    def _shares(self, channels: Ints) -> tuple[dict[Form, Floats], NDArray[np.bool_]]:
        """How likely each seen form is at channel counts `[m, k]`, by the alignment of those at which it was seen.

        Returns:
            Shares `[m]` by form, and where the very counts were seen (other forms then have no share).
        """
        distance = np.zeros((len(channels), len(self._seen)))
        for coordinate in range(channels.shape[1]):
            one, other = _alignment(channels[:, coordinate]), _alignment(self._seen[:, coordinate])
            distance += np.abs(one[:, None] - other[None, :])
        same = (channels[:, None, :] == self._seen[None, :, :]).all(axis=2)
        seen_there = same.any(axis=1)
        weights = np.where(seen_there[:, None], same, _UNLIKE**distance)
        weights /= weights.sum(axis=1, keepdims=True)
        numbers: dict[Form, list[int]] = defaultdict(list)
        for number, form in enumerate(self._forms):
            numbers[form].append(number)
        shares = np.stack([weights[:, own].sum(axis=1) for own in numbers.values()], axis=1)
        shares[shares < _NEGLIGIBLE] = 0.0
        shares /= shares.sum(axis=1, keepdims=True)
        return dict(zip(numbers, shares.T, strict=True)), seen_there


def _alignment(counts: Ints) -> Ints:
    """Which power of two divides the counts, at most that of `_FINEST`."""
    lowest = np.minimum(counts & -counts, _FINEST)
    powers: Ints = np.log2(np.maximum(lowest, 1)).astype(np.int64)
    return powers


class Pool:
    """What kernels cost in all families: non-negative least squares on the work that units do, one fit a kernel."""

    def __init__(self, rows: Sequence[Measurement]) -> None:
        """Take the rows; a kernel is fitted when first asked for."""
        self._rows: dict[str, dict[str, list[tuple[tuple[int, ...], float, float]]]] = {}
        self._families: dict[str, UnitFamily] = {}
        for row in rows:
            self._families[row.spec.family.key] = row.spec.family
            for kernel, ms in row.kernels:
                own = self._rows.setdefault(kernel, {}).setdefault(row.spec.family.key, [])
                own.append((row.spec.channels, max(ms, 1e-6), row.noise or 0.0))
        self._points: dict[tuple[str, str], Points] = {}
        self._fits: dict[str, Floats | None] = {}
        self._roundings: dict[tuple[str, str, int], Rounding] = {}

    def points(self, family: UnitFamily, kernel: str) -> Points | None:
        """A kernel's measured points in one family; None where it has none."""
        own = self._rows.get(kernel, {}).get(family.key)
        if own is None:
            return None
        place = (kernel, family.key)
        if place not in self._points:
            self._points[place] = combine(own)
        return self._points[place]

    def times(self, family: UnitFamily, kernel: str, channels: Ints) -> Floats | None:
        """Milliseconds `[m]` that the kernel would take by what it costs elsewhere; None where no row has it."""
        if kernel not in self._fits:
            self._fits[kernel] = self._fit(kernel)
        fit = self._fits[kernel]
        if fit is None:
            return None
        return np.maximum(work(family, channels) @ fit, 1e-6)

    def hints(self, family: UnitFamily, kernel: str, channels: Ints) -> Hints | None:
        """The same as hints for the trend, in scale with the family's own points."""
        ms = self.times(family, kernel, channels)
        if ms is None:
            return None
        own = self.points(family, kernel)
        if own is not None:
            there = self.times(family, kernel, own.channels)
            assert there is not None
            ratio, count = float(np.median(np.log(own.ms / there))), len(own.ms)
            ms = ms * np.exp(ratio * count / (count + 0.2))
        return Hints(channels, ms)

    def rounding(self, family: UnitFamily, kernel: str) -> Rounding:
        """The blocks of channels in which the kernel computes: its own property, found in all families that have it."""
        key = (kernel, family.operation, family.coordinates)
        if key not in self._roundings:
            like = [self._families[other] for other in self._rows[kernel]]
            points = [self.points(other, kernel) for other in like if (other.operation, other.coordinates) == key[1:]]
            self._roundings[key] = choose_rounding([(found.channels, found.ms) for found in points if found])
        return self._roundings[key]

    def _fit(self, kernel: str) -> Floats | None:
        if kernel not in self._rows:
            return None
        designs, times = [], []
        for key in self._rows[kernel]:
            family = self._families[key]
            points = self.points(family, kernel)
            assert points is not None
            designs.append(work(family, points.channels))
            times.append(points.ms)
        return fit_work(np.concatenate(designs), np.concatenate(times))
