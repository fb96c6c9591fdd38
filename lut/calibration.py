"""From the sum of a network's units to the network: `measured ~ scale * sum + overhead`, fitted to whole networks.

The sum of units is off by a steady factor, and a run costs something beside its units.
"""

import math
from collections.abc import Sequence

import numpy as np

from lut.records import Calibration
from lut.trend import Floats

_PRIOR_SPREAD = 0.05
_PRIOR_NETWORKS = 2
_UNKNOWN_SPREAD = 0.15
_LEAST_FOR_OVERHEAD = 4
_LEAST_RANGE = 1.3


def calibrate(pairs: Sequence[tuple[float, float]]) -> Calibration:
    """Fit scale and overhead to whole networks.

    The overhead is fitted only with four networks or more whose sums differ by 30 % or more, and kept only if it
    predicts left-out networks better; else it is 0 and the scale alone is fitted.

    Args:
        pairs: (sum of units in ms, measured in ms), one a network.
    """
    if not pairs:
        return Calibration()
    sums, measured = np.array(pairs, dtype=np.float64).T
    scale = float(np.median(measured / sums))
    best = Calibration(scale, 0.0, _left_out(sums, measured, with_overhead=False), len(pairs))
    if len(pairs) >= _LEAST_FOR_OVERHEAD and sums.max() >= _LEAST_RANGE * sums.min():
        spread = _left_out(sums, measured, with_overhead=True)
        scale, overhead = _fit_line(sums, measured)
        if spread < 0.95 * best.spread and overhead > 0:
            best = Calibration(scale, overhead, spread, len(pairs))
    return best


def likely_spread(calibration: Calibration) -> float:
    """The relative error (one standard deviation) to expect of a calibrated network: a few networks prove little."""
    if calibration.networks == 0:
        return _UNKNOWN_SPREAD
    known = calibration.networks * calibration.spread**2 + _PRIOR_NETWORKS * _PRIOR_SPREAD**2
    return math.sqrt(known / (calibration.networks + _PRIOR_NETWORKS))


def _fit_line(sums: Floats, measured: Floats) -> tuple[float, float]:
    """Scale > 0 and overhead >= 0 by least squares on relative errors, disturbed networks weighing less (Huber)."""
    design = np.stack([sums, np.ones_like(sums)], axis=1) / measured[:, None]
    weights = np.ones(len(sums))
    for _ in range(5):
        weighted = design * weights[:, None]
        scale, overhead = np.linalg.solve(weighted.T @ design, weighted.sum(axis=0))
        if overhead < 0 or scale <= 0:
            return float(np.median(measured / sums)), 0.0
        misses = np.abs(design @ (scale, overhead) - 1)
        limit = max(2.5 * float(np.median(misses)), 1e-4)
        weights = limit / np.maximum(misses, limit)
    return float(scale), float(overhead)


def _left_out(sums: Floats, measured: Floats, *, with_overhead: bool) -> float:
    """Root mean square of the relative errors of networks that the fit has not seen (of one network alone: 0)."""
    count = len(sums)
    if count == 1:
        return 0.0
    errors = np.zeros(count)
    for index in range(count):
        others = np.arange(count) != index
        if with_overhead:
            scale, overhead = _fit_line(sums[others], measured[others])
        else:
            scale, overhead = float(np.median(measured[others] / sums[others])), 0.0
        errors[index] = (scale * sums[index] + overhead) / measured[index] - 1
    clipped = np.minimum(np.abs(errors), 5 * np.median(np.abs(errors)) + 1e-6)
    return float(np.sqrt((clipped**2).mean()))
