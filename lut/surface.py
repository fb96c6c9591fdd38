"""One family's latency as a function of its channel counts, from scattered measured points.

    ms(c) = trend(c) * exp(g(c))

The trend (`lut/trend.py`) says what the points have in common; g is their residuals, interpolated by kriging (a
Gaussian process with an exponential kernel over log2 of blocks and counts), so that the surface passes through measured
points up to their noise and returns to the trend far from them. The interval comes from leave-one-out errors.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from lut.records import Basis, Estimate
from lut.trend import Floats, Hints, Ints, Rounding, Trend, fit_trend

BASES: tuple[Basis, ...] = ("measured", "interpolated", "extrapolated")
"""What the codes in `EstimateArrays.basis` mean."""

_LENGTHS = (0.3, 1.0, 3.0)
_RUN_NOISES = (0.005, 0.015, 0.03)
"""Spreads from run to run that are tried: more than 3 % is never taken for noise."""

_SCOUTS = 96
"""Most points by which the kernel is chosen."""

_NEAR_POINTS = 1500
"""Most points that are kriged (the cost is cubic); the trend takes all."""

Z90 = 1.645
WIDEST = 5.0
"""Largest half-width of an interval, as a logarithm: a factor of 150 already says that nothing is known."""

_WITHIN_BLOCK = 0.25
"""How far counts in the same block stand apart, over how far blocks do."""


@dataclass(frozen=True)
class Points:
    """A family's measured points, one a distinct channel tuple.

    Attributes:
        channels: `[n, k]`.
        ms: `[n]`, positive.
        noise: `[n]`, relative.
        rows: `[n]`, how many measurements each combines.
    """

    channels: Ints
    ms: Floats
    noise: Floats
    rows: Ints


def combine(rows: Sequence[tuple[tuple[int, ...], float, float]]) -> Points:
    """Take together rows (channels, ms, noise) at the same channels: median of the times, larger of the two noises."""
    together: dict[tuple[int, ...], list[tuple[float, float]]] = defaultdict(list)
    for channels, ms, noise in rows:
        together[channels].append((ms, noise))
    coordinates = len(next(iter(together)))
    places = np.array(list(together), dtype=np.int64).reshape(len(together), coordinates)
    values = [_median_and_noise(own) for own in together.values()]
    ms_of, noise_of = np.array(values, dtype=np.float64).T
    return Points(places, ms_of, noise_of, np.array([len(own) for own in together.values()], dtype=np.int64))


def _median_and_noise(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    if len(rows) == 1:
        return rows[0]
    middle = median(ms for ms, _ in rows)
    within = median(noise for _, noise in rows)
    between = 1.4826 * median(abs(ms - middle) for ms, _ in rows) / middle
    return middle, max(within, between) / math.sqrt(len(rows))


@dataclass(frozen=True)
class EstimateArrays:
    """Many estimates at once; all `[m]`. `basis` holds indices into `BASES`."""

    ms: Floats
    low_ms: Floats
    high_ms: Floats
    basis: NDArray[np.int8]

    def __getitem__(self, index: int) -> Estimate:
        """One of them as a record."""
        basis = BASES[int(self.basis[index])]
        return Estimate(float(self.ms[index]), float(self.low_ms[index]), float(self.high_ms[index]), basis)


class Surface:
    """A fitted surface; never changes, never gives 0."""

    def __init__(self, points: Points, hints: Hints | None = None, rounding: Rounding | None = None) -> None:
        """Fit. Costs a few ms for a hundred points, cubic in their number."""
        self.points = points
        self.trend: Trend = fit_trend(points.channels, points.ms, hints, rounding)
        self._low = points.channels.min(axis=0)
        self._high = points.channels.max(axis=0)
        codes = self._code(points.channels)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        count = len(points.ms)
        kept = np.unique(np.linspace(0, count - 1, min(count, _NEAR_POINTS)).astype(np.int64))
        self._places = self._place(points.channels[kept])
        residuals = np.log(points.ms / self.trend.at(points.channels))[kept]
        errors = self._krige(residuals, points.noise[kept], points.rows[kept])
        self._left_out_ms = np.array(points.ms)
        self._left_out_ms[kept] *= np.exp(-np.clip(errors, -WIDEST, WIDEST))

    @property
    def steps(self) -> tuple[int, ...]:
        """For each coordinate the step found (1: none)."""
        return self.trend.steps

    def left_out_ms(self, channels: Ints, found: EstimateArrays) -> Floats:
        """What the surface would say at each of `[m, k]` had that very point not been measured, `[m]` in ms.

        The trend stays as it is: what is left out is the point's pull on its surroundings.

        Args:
            channels: where.
            found: what `estimate_many` says there.
        """
        at = np.minimum(np.searchsorted(self._codes, self._code(channels)), len(self._codes) - 1)
        measured = found.basis == BASES.index("measured")
        ms: Floats = np.where(measured, self._left_out_ms[self._order[at]], found.ms)
        return ms

    def estimate_many(self, channels: Ints) -> EstimateArrays:
        """Estimate at channel counts `[m, k]`. Costs O(m n)."""
        nearness = np.exp(-_distances(self._place(channels), self._places) / self._length)
        ms = self.trend.at(channels) * np.exp(nearness @ self._weights)
        spread = self._scale * self._deviation(nearness)
        basis, outside = self._basis(channels)
        few = 1.0 / (len(self.points.ms) + 1)  # few points cannot tell how wrong they are
        spread += np.where(basis > 0, few, 0.0) + outside * max(0.08, 0.35 / len(self.points.ms))
        factor = np.exp(np.clip(spread, 0.005, WIDEST))
        return EstimateArrays(ms, ms / factor, ms * factor, basis)

    def _krige(self, residuals: Floats, noise: Floats, rows: Ints) -> Floats:
        """Choose length and run-to-run noise, keep weights and the interval's scale; return the left-out errors."""
        count = len(residuals)
        distances = _distances(self._places, self._places)
        scouts = np.unique(np.linspace(0, count - 1, min(count, _SCOUTS)).astype(np.int64))
        near, own_noise, own_rows = distances[np.ix_(scouts, scouts)], noise[scouts], rows[scouts]
        best = np.inf
        for length in _LENGTHS if count > 3 else _LENGTHS[1:2]:
            kernel = np.exp(-near / length)
            for run_noise in _RUN_NOISES:
                own, power = _powers(residuals, run_noise, own_noise, own_rows)
                errors = _left_out(kernel, own / power, residuals[scouts])[1]
                score = float(np.abs(errors).mean())
                if score < 0.99 * best:
                    best, self._length, chosen = score, length, run_noise
        self._own, self._power = _powers(residuals, chosen, noise, rows)
        self._typical = float(np.median(self._own))
        kernel = np.exp(-distances / self._length)
        self._weights, errors = _left_out(kernel, self._own / self._power, residuals)
        np.fill_diagonal(kernel, 0.0)
        freedom = min(self.trend.freedom, 0.9 * count)
        errors *= np.sqrt(count / (count - freedom))
        ratios = np.abs(errors) / self._deviation(kernel)
        level = min(0.9 * (1 + 1 / count), 1.0)
        self._scale = float(np.quantile(ratios, level)) if count >= 10 else max(Z90, float(ratios.max()))
        return errors

    def _deviation(self, nearness: Floats) -> Floats:
        """Standard deviation of a new measurement's log, given the nearest point alone (an upper bound)."""
        known = (nearness**2 / (1 + self._own / self._power)).max(axis=1)
        deviation: Floats = np.sqrt(self._power * (1 - known) + self._typical)
        return deviation

    def _place(self, channels: Ints) -> Floats:
        """Where points stand for the kernel: log2 of the blocks; ragged counts stand apart from whole ones."""
        rounded, ragged = self.trend.rounded(channels)
        counts = np.log2(np.maximum(channels, 1))
        return np.concatenate([np.log2(rounded), _WITHIN_BLOCK * counts, 0.5 * ragged], axis=1)

    def _code(self, channels: Ints) -> Ints:
        """One number for each channel tuple inside the box, different for different tuples (exact below 2^63)."""
        code = np.zeros(len(channels), dtype=np.int64)
        for coordinate in range(channels.shape[1]):
            low, high = self._low[coordinate], self._high[coordinate]
            code = code * (high - low + 1) + (channels[:, coordinate] - low)
        return code

    def _basis(self, channels: Ints) -> tuple[NDArray[np.int8], Floats]:
        """Codes into `BASES`, and how far outside the box of measured points (log2, summed)."""
        counts = np.maximum(channels, 1)
        beyond = np.log2(np.maximum(counts / np.maximum(self._high, 1), 1))
        below = np.log2(np.maximum(np.maximum(self._low, 1) / counts, 1))
        outside: Floats = (beyond + below).sum(axis=1)
        inside = ((channels >= self._low) & (channels <= self._high)).all(axis=1)
        codes = self._code(channels)
        at = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        measured = inside & (self._codes[at] == codes)
        return np.where(measured, 0, np.where(inside, 1, 2)).astype(np.int8), outside


def _powers(residuals: Floats, run_noise: float, noise: Floats, rows: Ints) -> tuple[Floats, float]:
    """Variance of each point's noise, and of what is left for the surface to follow."""
    own = np.maximum(run_noise**2 / rows, np.minimum(noise, 0.1) ** 2)
    sizes = np.abs(residuals)
    variance = float(np.mean(np.minimum(sizes, 4 * np.median(sizes) + 1e-3) ** 2))
    return own, max(variance - float(own.mean()), (0.25 * run_noise) ** 2)


def _left_out(kernel: Floats, nugget: Floats, residuals: Floats) -> tuple[Floats, Floats]:
    """Kriging weights, and each point's error when it is left out."""
    inverse = np.linalg.inv(kernel + np.diag(nugget))
    weights: Floats = inverse @ residuals
    return weights, weights / np.diag(inverse)


def _distances(places: Floats, others: Floats) -> Floats:
    """City-block distances `[m, n]`."""
    total = np.zeros((len(places), len(others)))
    for coordinate in range(places.shape[1]):
        total += np.abs(places[:, coordinate, None] - others[None, :, coordinate])
    return total
