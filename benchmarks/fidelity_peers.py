"""What others predict a network's latency by, fitted to the same whole networks that our profiling measured.

linear in FLOPs:   ms = a + b * multiply-adds
linear in memory:  ms = a + b * bytes read and written
interpolation:     ms piecewise linear in multiply-adds through the measured networks (ModelOpt's way)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lut.records import NetworkMeasurement
from profiler.network import Network

FLOPS, MEMORY, BETWEEN = "linear in FLOPs", "linear in memory", "interpolated by FLOPs"
ISOLATED, SCALED = "sum of isolated units", "the same, calibrated"
PEERS = (FLOPS, MEMORY, BETWEEN, ISOLATED, SCALED)
"""All, in the report's order; the last two are made by `isolated`."""

Floats = NDArray[np.float64]


def predict_whole(
    network: Network, rows: Sequence[NetworkMeasurement], widths: Sequence[Mapping[str, int]]
) -> dict[str, Floats]:
    """Predictions `[m]` of the peers that look at whole networks only, by peer.

    Args:
        network: the unpruned one.
        rows: measured whole networks of this structure, failures too (which are left out).
        widths: where.
    """
    measured = [row for row in rows if row.failure is None and row.median_ms]
    ms = np.array([row.median_ms for row in measured], dtype=np.float64)
    at = [dict(row.widths) for row in measured]
    macs, asked_macs = _macs(network, at), _macs(network, widths)
    traffic, asked_traffic = _traffic(network, at), _traffic(network, widths)
    return {
        FLOPS: fit_line(macs, ms)(asked_macs),
        MEMORY: fit_line(traffic, ms)(asked_traffic),
        BETWEEN: interpolate(macs, ms, asked_macs),
    }


def _macs(network: Network, widths: Sequence[Mapping[str, int]]) -> Floats:
    return np.array([network.macs(each) for each in widths], dtype=np.float64)


def _traffic(network: Network, widths: Sequence[Mapping[str, int]]) -> Floats:
    return np.array([network.memory(each).traffic_bytes for each in widths], dtype=np.float64)


class Line:
    """`a + b * x`."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, x: Floats) -> Floats:
        """Values `[m]`, never below a thousandth of a millisecond."""
        found: Floats = np.maximum(self.a + self.b * x, 1e-3)
        return found


def fit_line(x: Floats, ms: Floats) -> Line:
    """Least squares on relative errors, which is what the figures judge: kinder to the peers than on milliseconds."""
    scale = float(x.max()) or 1.0
    design = np.stack([np.ones_like(x), x / scale], axis=1) / ms[:, None]
    (a, b), *_ = np.linalg.lstsq(design, np.ones_like(ms))
    return Line(float(a), float(b) / scale)


def interpolate(x: Floats, ms: Floats, asked: Floats) -> Floats:
    """Piecewise linear through the points, constant beyond the outermost; points at one place count as their mean."""
    places, which = np.unique(x, return_inverse=True)
    means = np.bincount(which, weights=ms) / np.bincount(which)
    return np.asarray(np.interp(asked, places, means), dtype=np.float64)
