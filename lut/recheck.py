"""Whether two sets of times of the same specs agree: what `table recheck` says, and how `table merge` finds conflicts.

For spec i, measured in both sets, r_i = ln(new_i / old_i) with the standard deviation

    s_i^2 = noise_old^2 + noise_new^2 + run^2 (1/n_old + 1/n_new) + (tick / old)^2 + (tick / new)^2

where `run` is the spread from one run to the next and `tick` the clock's, which medians of few coarse samples hide. The
factor between the sets is the median of r weighted by 1 / s^2, so that neither a few odd rows nor tiny units decide.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lut.records import Measurement, NetworkMeasurement

Floats = NDArray[np.float64]
Row = TypeVar("Row", Measurement, NetworkMeasurement)

SAME_WITHIN = 0.05
"""A factor between two sets of at most this is taken for the drift of one machine."""
RUN = 0.02
"""Relative spread of a unit's median from run to run on a quiet machine."""
TICK_MS = 0.3e-3
"""Standard deviation of a time read from a clock that ticks in microseconds."""
WITHIN = 2.0
"""How many standard deviations are within noise."""
OUTLIER = 4.0
"""How many standard deviations noise does not explain."""
USUAL_OUTLIERS = 0.02
"""Share of outliers between two good sets of one machine: neighbours change a unit's time now and then."""
CHANCE = 1e-3
"""A finding that good sets show this seldom is no accident."""
MANY = 0.1
"""Fewer outliers than this share are told, but decide nothing: of many rows some are always odd."""
SURE = 3.0
"""A factor is believed from so many of its standard errors on."""
SHARE_WITHIN = 0.75
"""At least this share of rows must be within noise for old rows to hold."""

_NORMAL_MAD = 1.4826
_MEDIAN_ERROR = math.sqrt(math.pi / 2)

Kind = Literal["holds", "holds up to a factor", "does not hold", "cannot be told"]


@dataclass(frozen=True)
class Pairs:
    """Times of the same things from two sets, one an entry.

    Attributes:
        keys: what was timed.
        old_ms, new_ms: `[n]`, positive.
        deviation: `[n]`, standard deviation of ln(new / old) that noise explains.
    """

    keys: tuple[Hashable, ...]
    old_ms: Floats
    new_ms: Floats
    deviation: Floats

    def at(self, indices: Sequence[int]) -> "Pairs":
        """Those entries alone, in that order."""
        keys = tuple(self.keys[index] for index in indices)
        chosen = np.asarray(indices, dtype=np.int64)
        return Pairs(keys, self.old_ms[chosen], self.new_ms[chosen], self.deviation[chosen])


@dataclass(frozen=True)
class Comparison:
    """How two sets of times stand to each other.

    Attributes:
        count: specs in both.
        ratio: new over old, the weighted median.
        ratio_error: its relative standard error, by the noise and by how much the ratios differ.
        noise_error: the same by the noise alone.
        spread: robust relative standard deviation of the ratios around it.
        within: how many new times are within noise of the old ones as they are.
        within_factor: how many are, once the old ones are multiplied by the ratio.
        outliers: indices of those that noise does not explain even then, the farthest first.
        beyond: indices of those that noise does not explain as they are, the farthest first.
    """

    count: int
    ratio: float
    ratio_error: float
    noise_error: float
    spread: float
    within: int
    within_factor: int
    outliers: tuple[int, ...]
    beyond: tuple[int, ...]

    @property
    def off(self) -> bool:
        """Whether there is a factor between the sets that noise and drift do not explain."""
        logarithm = abs(math.log(self.ratio))
        return logarithm > math.log1p(SAME_WITHIN) and logarithm > SURE * self.ratio_error

    @property
    def too_many_beyond(self) -> bool:
        """Whether more single times are apart than good sets show."""
        return too_many(len(self.beyond), self.count)

    @property
    def conflict(self) -> bool:
        """Whether both sets cannot come from one device in one state."""
        return self.off or self.too_many_beyond


@dataclass(frozen=True)
class Verdict:
    """What a recheck found, in a word and in a sentence."""

    kind: Kind
    because: str
    comparison: Comparison


def pair_up(old: Sequence[Measurement], new: Sequence[Measurement], *, forms: bool = True) -> Pairs:
    """Pair units' rows of the same spec, place and cache; failures have no part in it.

    Args:
        old: rows of any specs, several of one spec taken together by their median.
        new: rows likewise.
        forms: keep rows apart for which the runtime told that it ran other kernels, if all rows tell.
    """
    told = forms and all(row.kernels for side in (old, new) for row in side if row.failure is None)

    def key(row: Measurement) -> Hashable:
        return (row.spec, row.place, row.config.cache, row.form if told else ())

    return _pair(((key(row), row) for row in old), ((key(row), row) for row in new))


def pair_networks(old: Iterable[NetworkMeasurement], new: Iterable[NetworkMeasurement]) -> Pairs:
    """Pair whole networks' rows of the same network, widths, precision and cache."""

    def key(row: NetworkMeasurement) -> Hashable:
        return (row.network, row.widths, row.precision, row.config.cache)

    return _pair(((key(row), row) for row in old), ((key(row), row) for row in new))


def deviations(old_ms: ArrayLike, new_ms: ArrayLike, old_noise: ArrayLike = 0.0, new_noise: ArrayLike = 0.0) -> Floats:
    """Standard deviation of ln(new / old) that noise explains, of single rows; all `[n]`."""
    old, new = np.asarray(old_ms, dtype=np.float64), np.asarray(new_ms, dtype=np.float64)
    own = np.asarray(old_noise, dtype=np.float64) ** 2 + np.asarray(new_noise, dtype=np.float64) ** 2
    found: Floats = np.sqrt(own + 2 * RUN**2 + (TICK_MS / old) ** 2 + (TICK_MS / new) ** 2)
    return found


def compare(pairs: Pairs) -> Comparison | None:
    """Compare two sets of times; None where they share nothing."""
    if not pairs.keys:
        return None
    logarithms = np.log(pairs.new_ms / pairs.old_ms)
    weights = 1 / pairs.deviation**2
    middle = _weighted_median(logarithms, weights)
    spread = _NORMAL_MAD * _weighted_median(np.abs(logarithms - middle), weights)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    typical = math.sqrt(len(weights) / float(weights.sum()))
    share = (_MEDIAN_ERROR if len(weights) > 2 else 1.0) / math.sqrt(effective)
    apart, apart_factor = np.abs(logarithms) / pairs.deviation, np.abs(logarithms - middle) / pairs.deviation
    return Comparison(
        count=len(logarithms),
        ratio=math.exp(middle),
        ratio_error=max(spread, typical) * share,
        noise_error=typical * share,
        spread=spread,
        within=int((apart <= WITHIN).sum()),
        within_factor=int((apart_factor <= WITHIN).sum()),
        outliers=_farthest(apart_factor),
        beyond=_farthest(apart),
    )


def judge(pairs: Pairs, networks: Pairs | None = None) -> Verdict:
    """Say from a few specs timed anew whether the rest of the old rows still holds.

    Args:
        pairs: of units.
        networks: of the whole networks that these were timed in.

    Raises:
        ValueError: there are none.
    """
    found = compare(pairs)
    if found is None:
        raise ValueError("nothing was timed in both sets")
    percent = f"{100 * abs(found.ratio - 1):.1f} % {'slower' if found.ratio > 1 else 'faster'}"
    within = f"{found.within} of {found.count} within noise" + (
        f", {len(found.beyond)} far off" if found.beyond else ""
    )
    if SURE * found.noise_error > 2 * SAME_WITHIN:
        sure = f"the factor is known to ± {100 * SURE * found.noise_error:.0f} % only"
        return Verdict("cannot be told", f"{sure}: quiet the machine, and check again", found)
    few_within = found.within_factor < SHARE_WITHIN * found.count
    if few_within or too_many(len(found.outliers), found.count):
        odd = found.count - found.within_factor
        return Verdict("does not hold", f"{odd} of {found.count} are apart in ways that no factor explains", found)
    if abs(math.log(found.ratio)) <= math.log1p(SAME_WITHIN) and found.within >= SHARE_WITHIN * found.count:
        whole = None if networks is None else compare(networks)
        if whole is not None and whole.off:
            apart = f"{100 * abs(whole.ratio - 1):.1f} % {'slower' if whole.ratio > 1 else 'faster'}"
            return Verdict("does not hold", f"units hold, but whole networks are {apart}: not all is in units", found)
        return Verdict("holds", f"new times are {percent} by the median, {within}", found)
    same = f"{found.within_factor} of {found.count} within noise of that"
    return Verdict("holds up to a factor", f"new times are {percent} throughout, {same}", found)


def too_many(outliers: int, count: int) -> bool:
    """Whether good sets of that many specs practically never show so many outliers."""
    return outliers >= MANY * count and _at_least(outliers, count) < CHANCE


def spread_over_cost(costs_ms: Sequence[float], count: int) -> list[int]:
    """Choose indices spread evenly over the ranks of those that make up 99 % of the cost, the dearest first."""
    order = sorted(range(len(costs_ms)), key=lambda index: -costs_ms[index])
    shares = np.cumsum([costs_ms[index] for index in order])
    enough = max(int(np.searchsorted(shares, 0.99 * shares[-1])) + 1, min(count, len(order))) if order else 0
    places = np.unique(np.linspace(0, enough - 1, min(count, enough)).round().astype(np.int64))
    return [order[int(place)] for place in places]


def adopt(row: Row, spread: float) -> Row:
    """A row of an older fingerprint as one of a newer: marked by having a time but no samples of its own.

    Args:
        row: as it was measured.
        spread: of the recheck's ratios; the copy is less certain by that.
    """
    noise = math.hypot(row.noise or 0.0, spread)
    return row if row.failure is not None else replace(row, samples_ms=(), noise=min(noise, 0.99))


def is_adopted(row: Measurement | NetworkMeasurement) -> bool:
    """Whether `adopt` made it (a unit that the runtime merged into another has no samples either, but noise 1)."""
    return row.median_ms is not None and not row.samples_ms and (row.noise is None or row.noise < 1)


def _pair(
    old: Iterable[tuple[Hashable, Measurement | NetworkMeasurement]],
    new: Iterable[tuple[Hashable, Measurement | NetworkMeasurement]],
) -> Pairs:
    before, after = _by_key(old), _by_key(new)
    shared = [key for key in before if key in after]
    sides = [np.array([side[key] for key in shared], dtype=np.float64).reshape(-1, 3) for side in (before, after)]
    (old_ms, old_noise, old_rows), (new_ms, new_noise, new_rows) = (side.T for side in sides)
    noise = np.sqrt(old_noise**2 + RUN**2 / old_rows), np.sqrt(new_noise**2 + RUN**2 / new_rows)
    ticks = (TICK_MS / old_ms) ** 2 + (TICK_MS / new_ms) ** 2
    return Pairs(tuple(shared), old_ms, new_ms, np.sqrt(noise[0] ** 2 + noise[1] ** 2 + ticks))


def _by_key(
    rows: Iterable[tuple[Hashable, Measurement | NetworkMeasurement]],
) -> dict[Hashable, tuple[float, float, int]]:
    """For each key the median time, its noise and the number of rows."""
    together: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for key, row in rows:
        if row.failure is None and row.median_ms is not None and row.median_ms > 0:
            together[key].append((row.median_ms, RUN if row.noise is None else min(row.noise, 1.0)))
    return {
        key: (float(np.median([ms for ms, _ in own])), float(np.median([noise for _, noise in own])), len(own))
        for key, own in together.items()
    }


def _farthest(apart: Floats) -> tuple[int, ...]:
    order = np.argsort(-apart, kind="stable")
    return tuple(int(index) for index in order if apart[index] > OUTLIER)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    shares = np.cumsum(weights[order])
    below = int(np.searchsorted(shares, 0.5 * shares[-1] * (1 - 1e-9)))
    at_half = math.isclose(shares[below], 0.5 * shares[-1], rel_tol=1e-9) and below + 1 < len(values)
    return float(np.mean(values[order[below : below + 2]]) if at_half else values[order[below]])


def _at_least(found: int, count: int) -> float:
    """Probability of so many outliers or more between two good sets (binomial)."""
    usual, rare = math.log(USUAL_OUTLIERS), math.log1p(-USUAL_OUTLIERS)
    total = math.lgamma(count + 1)
    return 1 - math.fsum(
        math.exp(total - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * usual + (count - k) * rare)
        for k in range(found)
    )
