"""What one family costs: the sum of the kernels that the runtime makes of it, each with a surface of its own.

    ms(c) = sum over kernels k of form(c):  surface_k(c)

The form (which kernels run) changes by jumps, with the alignment of the unit's channel counts and of its neighbours';
the kernels' surfaces are simple. Where the form is known (from compiling the network) the sum is exact; else forms that
were seen at channel counts of like alignment share in it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lut.records import Form, Measurement, UnitFamily
from lut.surface import EstimateArrays, Points, Surface, combine
from lut.trend import Floats, Hints, Ints, Rounding, choose_rounding
from lut.work import fit_work, work

_FINEST = 16
"""Runtimes lay channels out in blocks of up to so many: a larger power of two changes no form."""
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
        self._kernels: dict[str, list[tuple[tuple[int, ...], float, float]]] = defaultdict(list)
        for row in told:
            for kernel, ms in row.kernels:
                self._kernels[kernel].append((row.spec.channels, max(ms, 1e-6), row.noise or 0.0))
        self._forms = [row.form for row in told]
        seen = np.array([row.spec.channels for row in told], dtype=np.int64)
        self._seen = seen.reshape(len(told), self.points.channels.shape[1])
        self._surfaces: dict[str, Surface] = {}

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that were seen, the most frequent first."""
        counts: dict[Form, int] = defaultdict(int)
        for form in self._forms:
            counts[form] += 1
        return tuple(sorted(counts, key=lambda form: (-counts[form], form)))

    @property
    def kernels(self) -> Mapping[str, int]:
        """How many rows each kernel has."""
        return {kernel: len(rows) for kernel, rows in self._kernels.items()}

    def kernel_points(self, kernel: str) -> Points:
        """A kernel's measured points."""
        return combine(self._kernels[kernel])

    @cached_property
    def whole(self) -> Surface:
        """The surface of the units' whole times, whatever their forms: smoother than the truth, good for steps."""
        return Surface(self.points)

    def surface(self, kernel: str) -> Surface | None:
        """The surface of one kernel in this family; None where no family has a row of it."""
        if kernel not in self._surfaces:
            channels = self.points.channels
            hints = self._pool.hints(self.family, kernel, channels)
            if kernel in self._kernels:
                rounding = self._pool.rounding(self.family, kernel)
                self._surfaces[kernel] = Surface(self.kernel_points(kernel), hints, rounding)
            elif hints is not None:
                middle = channels[[len(channels) // 2]]
                ms = self._pool.times(self.family, kernel, middle)
                assert ms is not None
                guessed = Points(middle, ms, np.full(1, 0.5), np.ones(1, dtype=np.int64))
                self._surfaces[kernel] = Surface(guessed, hints)
            else:
                return None
        return self._surfaces[kernel]

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
            return replace(found, ms=self.whole.left_out_ms(channels)) if left_out else found
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
        for form, at, share in parts:
            total, half, worst = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at), dtype=np.int8)
            apart = np.zeros(len(at))
            for kernel in form:
                surface = self.surface(kernel)
                assert surface is not None
                found = surface.estimate_many(channels[at])
                total += surface.left_out_ms(channels[at]) if left_out else found.ms
                own = (found.high_ms - found.low_ms) / 2
                half += own
                apart += own**2
                seen = kernel in self._kernels
                worst = np.maximum(worst, found.basis if seen else np.int8(2))
            width = np.sqrt(_TOGETHER * half**2 + (1 - _TOGETHER) * apart)
            ms[at] += share * total
            squares[at] += share * total**2
            spread[at] += share * width
            basis[at] = np.maximum(basis[at], worst)
        between = np.sqrt(np.maximum(squares - ms**2, 0))  # which form it is, is not known
        factor = np.exp(np.minimum((spread + 1.645 * between) / ms, 5.0))
        basis = np.where(guessed & (basis == 0), np.int8(1), basis).astype(np.int8)
        return EstimateArrays(ms, ms / factor, ms * factor, basis)

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
        self._rows: dict[str, dict[str, list[tuple[tuple[int, ...], float]]]] = defaultdict(lambda: defaultdict(list))
        self._families: dict[str, UnitFamily] = {}
        for row in rows:
            self._families[row.spec.family.key] = row.spec.family
            for kernel, ms in row.kernels:
                self._rows[kernel][row.spec.family.key].append((row.spec.channels, max(ms, 1e-6)))
        self._fits: dict[str, Floats | None] = {}
        self._roundings: dict[tuple[str, str, int], Rounding] = {}

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
        own = self._rows[kernel].get(family.key, [])
        if own:
            at = np.array([place for place, _ in own], dtype=np.int64).reshape(len(own), family.coordinates)
            there = self.times(family, kernel, at)
            assert there is not None
            ratios = np.log(np.array([value for _, value in own]) / there)
            ms = ms * float(np.exp(np.median(ratios) * len(own) / (len(own) + 0.2)))
        return Hints(channels, ms)

    def rounding(self, family: UnitFamily, kernel: str) -> Rounding:
        """The blocks of channels in which the kernel computes: its own property, found in all families that have it."""
        key = (kernel, family.operation, family.coordinates)
        if key not in self._roundings:
            surfaces = []
            for other, own in self._rows[kernel].items():
                like = self._families[other]
                if (like.operation, like.coordinates) == key[1:]:
                    points = combine([(channels, ms, 0.0) for channels, ms in own])
                    surfaces.append((points.channels, points.ms))
            self._roundings[key] = choose_rounding(surfaces)
        return self._roundings[key]

    def _fit(self, kernel: str) -> Floats | None:
        if kernel not in self._rows:
            return None
        designs, times = [], []
        for key, own in self._rows[kernel].items():
            at = np.array([place for place, _ in own], dtype=np.int64)
            at = at.reshape(len(own), self._families[key].coordinates)
            designs.append(work(self._families[key], at))
            times.append(np.array([value for _, value in own]))
        return fit_work(np.concatenate(designs), np.concatenate(times))
