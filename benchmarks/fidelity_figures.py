"""Figures of the fidelity sweep, from what is stored: how far predictions are from what was measured after.

The truth of a vector is the geometric mean of its two passes; how far these are apart is the error of measuring twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.fidelity_store import Vector

GOALS = {"mae": 0.03, "p95": 0.08, "tau": 0.95, "coverage": 0.90}
"""The most that errors may be, and the least that rank correlation and coverage may be."""

KINDS = {"free": "free widths", "edge": "step edges", "plan": "real plans"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """How good predictions are; errors are relative to the truth.

    Attributes:
        count: of vectors.
        mae: mean absolute error.
        p95: 95th percentile of the absolute error.
        bias: mean error, with its sign.
        tau: Kendall's, within the network; None for fewer than two vectors.
        coverage: share of the truths inside the intervals, or None where there are none.
    """

    count: int
    mae: float
    p95: float
    bias: float
    tau: float | None
    coverage: float | None = None

    def misses(self) -> list[str]:
        """Which goals are not reached."""
        found = [name for name in ("mae", "p95") if getattr(self, name) > GOALS[name]]
        return found + [name for name in ("tau", "coverage") if (getattr(self, name) or 0.0) < GOALS[name]]


def truths(vectors: Sequence[Vector]) -> Floats:
    """Measured latencies `[n]`."""
    return np.array([np.exp(np.mean(np.log(vector.passes_ms))) for vector in vectors])


def judge(predicted: Sequence[float], measured: Floats) -> Figures:
    """Figures of predictions `[n]`, n at least 1, against what was measured."""
    errors = np.asarray(predicted) / measured - 1
    tau = float(kendalltau(predicted, measured).statistic) if len(measured) > 1 else None
    return Figures(
        count=len(measured),
        mae=float(np.abs(errors).mean()),
        p95=float(np.percentile(np.abs(errors), 95)),
        bias=float(errors.mean()),
        tau=None if tau is None or np.isnan(tau) else tau,
    )


def judge_ours(vectors: Sequence[Vector]) -> Figures:
    """Our figures, with the intervals'."""
    measured = truths(vectors)
    inside = [v.low_ms <= ms <= v.high_ms for v, ms in zip(vectors, measured, strict=True)]
    plain = judge([vector.ms for vector in vectors], measured)
    return Figures(plain.count, plain.mae, plain.p95, plain.bias, plain.tau, float(np.mean(inside)))


def judge_guessed(vectors: Sequence[Vector]) -> Figures:
    """Our figures where it is guessed what the runtime makes of the units."""
    return judge([vector.guessed_ms for vector in vectors], truths(vectors))


def judge_peer(vectors: Sequence[Vector], peer: str) -> Figures | None:
    """A peer's figures, or None where it predicted nothing."""
    if any(peer not in vector.peers_ms for vector in vectors):
        return None
    return judge([vector.peers_ms[peer] for vector in vectors], truths(vectors))


def judge_twice(vectors: Sequence[Vector]) -> Figures:
    """The error of measuring twice: the second pass as a prediction of the first."""
    first, second = (np.array([vector.passes_ms[number] for vector in vectors]) for number in range(2))
    return judge(list(second), first)


def by_kind(vectors: Sequence[Vector]) -> dict[str, float | None]:
    """Our mean absolute error for each kind of vector."""
    found: dict[str, float | None] = {}
    for kind in KINDS:
        own = [vector for vector in vectors if vector.kind == kind]
        found[kind] = judge([vector.ms for vector in own], truths(own)).mae if own else None
    return found


def ratio_figures(sums: Sequence[Sequence[float]], number: int) -> tuple[float, float] | None:
    """Mean and standard deviation of sums of units over whole networks; None for none.

    Args:
        sums: for each network the isolated sum, the sum in place, and the whole.
        number: which of the two sums.
    """
    if not sums:
        return None
    ratios = np.array([each[number] / each[2] for each in sums])
    return float(ratios.mean()), float(ratios.std())
