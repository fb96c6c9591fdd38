"""From the sum of a network's units to the network: `measured ~ scale * sum + overhead`, fitted to whole networks.

The overhead is what a run costs beside its units; it is negative where short kernels are timed too long, for a clock
that rounds or a profiler that costs, which tells most in small networks.
"""

import math

import numpy as np

from lut.records import Calibration
from lut.surface import WIDEST, Z90
from lut.trend import Floats

_PRIOR_SPREAD = 0.05
_PRIOR_NETWORKS = 2
_UNKNOWN_SPREAD = 0.15
_LEAST_FOR_OVERHEAD = 4
_LEAST_RANGE = 1.3
_LEAST_SHARE = 0.5
_LEAST_TO_JUDGE = 8
"""Networks from which on the intervals are judged by errors, and not by what is usual."""
_LEAST_HALF = 0.01
"""No interval is narrower than this on either side: what is measured twice differs by as much."""


def calibrate(
    sums: Floats, measured: Floats, halves: Floats | None = None, informed: Floats | None = None
) -> Calibration:
    """Fit scale and overhead to whole networks.

    The overhead is fitted only with four networks or more whose sums differ by 30 % or more, and kept only if it
    predicts left-out networks better; else it is 0 and the scale alone is fitted.

    Predictions without a network's own rows shrink towards what is usual, so that the smallest networks come out too
    small, and an overhead seems to be missing. What a run really costs beside its units shows with their rows as well:
    a positive overhead is believed only if it does.

    Args:
        sums: of the units in ms, `[n]`, one a network; predicted without its own rows where `halves` are given.
        measured: in ms, `[n]`.
        halves: half-widths in ms of the sums' 90 % intervals, `[n]`, to be judged by the errors.
        informed: the sums predicted with each network's own rows, `[n]`.
    """
    count = len(sums)
    if not count:
        return Calibration()
    scale, overhead = float(np.median(measured / sums)), 0.0
    errors = _left_out(sums, measured, with_overhead=False)
    if count >= _LEAST_FOR_OVERHEAD and sums.max() >= _LEAST_RANGE * sums.min():
        line = _fit_line(sums, measured)
        others = _left_out(sums, measured, with_overhead=True)
        if _size(others) < 0.95 * _size(errors):
            (scale, overhead), errors = line, others
    if overhead > 0 and informed is not None:
        known = calibrate(informed, measured)
        scale, overhead = known.scale, known.overhead_ms
    stretch = 1.0
    if halves is not None and count >= _LEAST_TO_JUDGE:
        ratios = np.abs(errors) / np.hypot(scale * halves / _line(scale, overhead, sums), _LEAST_HALF)
        stretch = float(np.quantile(ratios, min(0.9 * (1 + 1 / count), 1.0)))
    return Calibration(scale, overhead, _size(errors), count, stretch)


def calibrated(calibration: Calibration, sums: Floats) -> Floats:
    """Networks' latencies in ms, `[n]`, from the sums of their units; positive."""
    return _line(calibration.scale, calibration.overhead_ms, sums)


def _line(scale: float, overhead: float, sums: Floats) -> Floats:
    """The line, which never falls under half of what the scale alone says: a latency is more than nothing."""
    found: Floats = np.maximum(scale * sums + overhead, _LEAST_SHARE * scale * sums)
    return found


def likely_half(calibration: Calibration, half: float) -> float:
    """Half-width of a network's 90 % interval (a fraction), from that of its units' sum and from what is known."""
    if calibration.networks == 0:
        likely = math.hypot(half, Z90 * _UNKNOWN_SPREAD)
    elif calibration.networks >= _LEAST_TO_JUDGE:
        likely = max(calibration.stretch * math.hypot(half, _LEAST_HALF), _LEAST_HALF)
    else:
        known = calibration.networks * calibration.spread**2 + _PRIOR_NETWORKS * _PRIOR_SPREAD**2
        likely = math.hypot(half, Z90 * math.sqrt(known / (calibration.networks + _PRIOR_NETWORKS)))
    return min(likely, WIDEST)


def _fit_line(sums: Floats, measured: Floats) -> tuple[float, float]:
    """Scale > 0 and overhead by least squares on relative errors, disturbed networks weighing less (Huber)."""
    design = np.stack([sums, np.ones_like(sums)], axis=1) / measured[:, None]
    weights = np.ones(len(sums))
    for _ in range(5):
        weighted = design * weights[:, None]
        scale, overhead = np.linalg.solve(weighted.T @ design, weighted.sum(axis=0))
        if scale <= 0 or scale * sums.min() + overhead < _LEAST_SHARE * scale * sums.min():
            return float(np.median(measured / sums)), 0.0
        misses = np.abs(design @ (scale, overhead) - 1)
        limit = max(2.5 * float(np.median(misses)), 1e-4)
        weights = limit / np.maximum(misses, limit)
    return float(scale), float(overhead)


def _left_out(sums: Floats, measured: Floats, *, with_overhead: bool) -> Floats:
    """Relative errors of each network by a fit that has not seen it (of one network alone: 0), `[n]`."""
    count = len(sums)
    errors = np.zeros(count)
    for index in range(count if count > 1 else 0):
        others = np.arange(count) != index
        if with_overhead:
            scale, overhead = _fit_line(sums[others], measured[others])
        else:
            scale, overhead = float(np.median(measured[others] / sums[others])), 0.0
        errors[index] = _line(scale, overhead, sums[[index]])[0] / measured[index] - 1
    return errors


def _size(errors: Floats) -> float:
    """Root mean square, single outliers cut off."""
    clipped = np.minimum(np.abs(errors), 5 * np.median(np.abs(errors)) + 1e-6)
    return float(np.sqrt((clipped**2).mean()))
