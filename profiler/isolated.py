"""Times of units where a runtime tells none of single layers: from packed copies, with whole engines as the arbiter.

Packed: an engine holds k copies of a unit, each with an input and an output of its own, in one line.

    ms(k) = launch + k (unit + border)        border: layout changes at the copies' inputs and outputs

The slope over k is free of the launch; an engine of borders alone gives theirs. What is left is still not the unit's
time in a network: caches are hotter, neighbours do not fuse. So whole engines at several widths correct it:

    ms(engine) = overhead + s sum over units u of n(engine, u) alone(u) (1 + e(u)),    e ~ N(0, spread²)

s is common to all units (caches, clocks); e is a unit's own, or that of all units of a kind. Solved by weighted least
squares. `profiler/packed_profile.py` fills a table with it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut.errors import BackendError

SPREAD = 0.1
"""How far units' times alone typically lie from those in place, apart from what is common to all."""

MOST_OVER_THE_FIRST = 1.5
"""How much more than an engine of one copy, launch and all, another copy may cost: all may outgrow a cache."""
SURE = 3.0
"""Standard errors by which a time must be off to be called wrong."""


@dataclass(frozen=True)
class Packed:
    """An engine of several copies: how many, its median, and the noise of that (a fraction)."""

    copies: int
    median_ms: float
    noise: float


@dataclass(frozen=True)
class TimeAlone:
    """A time and its standard error, in ms; below 0 only by error."""

    ms: float
    error_ms: float


@dataclass(frozen=True)
class Whole:
    """A whole engine: how often it holds each unit (by any key), its median, and the noise of that."""

    counts: Mapping[str, int]
    median_ms: float
    noise: float


@dataclass(frozen=True)
class Arbitrated:
    """What whole engines say of units' times alone.

    Attributes:
        units: times in place, by key.
        overhead_ms: of an engine.
        scale: of times in place over times alone, common to all units.
        residual: root mean square of what is left of the engines' times, as a fraction of them.
    """

    units: Mapping[str, TimeAlone]
    overhead_ms: float
    scale: float
    residual: float

    def predict_ms(self, counts: Mapping[str, int]) -> float:
        """The time of an engine of these units."""
        return self.overhead_ms + sum(count * self.units[key].ms for key, count in counts.items())


def slope(packed: Sequence[Packed]) -> TimeAlone:
    """The time of one copy more, by weighted least squares over engines of different numbers of copies.

    Raises:
        ValueError: fewer than two numbers of copies.
    """
    if len({each.copies for each in packed}) < 2:
        raise ValueError("a slope needs engines of at least two numbers of copies")
    copies = np.array([each.copies for each in packed], dtype=np.float64)
    times = np.array([each.median_ms for each in packed])
    weights = 1 / _errors(times, [each.noise for each in packed]) ** 2
    middle = np.average(copies, weights=weights)
    spread = float(np.sum(weights * (copies - middle) ** 2))
    found = float(np.sum(weights * (copies - middle) * times)) / spread
    return TimeAlone(found, 1 / math.sqrt(spread))


def is_line(packed: Sequence[Packed]) -> bool:
    """Whether engines of copies can stand on one line: a copy more costs something, and hardly more than the first.

    Args:
        packed: of at least two numbers of copies.
    """
    found = slope(packed)
    first = min(packed, key=lambda each: each.copies)
    most = MOST_OVER_THE_FIRST * first.median_ms / first.copies
    return -SURE * found.error_ms <= found.ms <= most + SURE * found.error_ms


def time_alone(unit: Sequence[Packed], borders: Sequence[Packed] = ()) -> TimeAlone:
    """A unit's time without launch and borders.

    Args:
        unit: engines of copies of it.
        borders: engines of as many inputs and outputs with nothing between; empty where the unit's borders need no
            layout change.

    Raises:
        ValueError: fewer than two numbers of copies of either.
    """
    whole = slope(unit)
    if not borders:
        return whole
    border = slope(borders)
    return TimeAlone(whole.ms - border.ms, math.hypot(whole.error_ms, border.error_ms))


def arbitrate(
    alone: Mapping[str, TimeAlone],
    wholes: Sequence[Whole],
    *,
    kinds: Mapping[str, str] | None = None,
    spread: float = SPREAD,
) -> Arbitrated:
    """Correct units' times alone by whole engines.

    Args:
        alone: by key; times not above 0 are taken as their error.
        wholes: engines of these units, at several widths.
        kinds: which kind each unit is of, by key: those of one kind share e(u). None: each is a kind of its own.
        spread: see `SPREAD`; larger trusts single engines more.

    Raises:
        BackendError: there are fewer than two engines, or units in them were not timed alone.
    """
    missing = sorted({key for whole in wholes for key in whole.counts} - set(alone))
    if missing:
        raise BackendError(f"{len(missing)} units of whole engines were not timed alone, first {missing[0]}.")
    if len(wholes) < 2:
        raise BackendError("At least two whole engines are needed to tell overhead and units apart.")
    kind = {key: key for key in alone} if kinds is None else kinds
    place = {name: number for number, name in enumerate(sorted({kind[key] for key in alone}))}
    base = {key: max(time.ms, time.error_ms) for key, time in alone.items()}
    own = np.hypot(spread, _relative_errors(alone, base, kind, place))
    times = np.array([whole.median_ms for whole in wholes])
    shares = np.zeros((len(wholes), len(place)))
    for number, whole in enumerate(wholes):
        for key, count in whole.counts.items():
            shares[number, place[kind[key]]] += count * base[key]
    # Unknowns: overhead, s, and s e(u) of every kind; the last are drawn to 0 by as many rows more.
    errors = _errors(times, [whole.noise for whole in wholes])
    rows = np.column_stack([np.ones(len(wholes)), shares.sum(axis=1), shares]) / errors[:, None]
    drawn = np.column_stack([np.zeros((len(place), 2)), np.diag(1 / own)])
    matrix = np.vstack([rows, drawn])
    target = np.concatenate([times / errors, np.zeros(len(place))])
    solution, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    covariance = np.linalg.pinv(matrix.T @ matrix)
    overhead, scale, single = float(solution[0]), float(solution[1]), solution[2:]
    members = Counter(kind[key] for key in alone)
    units = {}
    for key, ms in base.items():
        at = place[kind[key]]
        gradient = np.zeros(len(solution))
        gradient[[1, 2 + at]] = ms
        error = math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))
        if members[kind[key]] > 1:  # its own error is then no part of the solution
            error = math.hypot(error, scale * alone[key].error_ms)
        units[key] = TimeAlone(float(ms * (scale + single[at])), error)
    left = times - (overhead + shares @ (scale + single))
    return Arbitrated(units, overhead, scale, float(np.sqrt(np.mean((left / times) ** 2))))


def _relative_errors(
    alone: Mapping[str, TimeAlone], base: Mapping[str, float], kind: Mapping[str, str], place: Mapping[str, int]
) -> NDArray[np.float64]:
    """Errors of the kinds' summed times alone, as fractions of them, `[kinds]`."""
    sums, squares = np.zeros(len(place)), np.zeros(len(place))
    for key, time in alone.items():
        sums[place[kind[key]]] += base[key]
        squares[place[kind[key]]] += time.error_ms**2
    found: NDArray[np.float64] = np.sqrt(squares) / sums
    return found


def _errors(times: np.ndarray, noises: Sequence[float]) -> np.ndarray:
    """Standard errors in ms; one that is told as 0 counts as a thousandth."""
    return times * np.maximum(np.asarray(noises, dtype=np.float64), 1e-3)
