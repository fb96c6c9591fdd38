"""The smooth part of a family's surface: non-negative least squares on blocks of channels, the block's size found.

    ms ~ a + sum_i b_i B_i + sum_ij c_ij B_i B_j + d prod_i B_i + ragged terms,    B_i = ceil(c_i / s_i) * s_i

A runtime computes whole blocks of s channels, hence the ceil; where a count is not a multiple of s it may run other,
slower code, hence the ragged terms. The blocks are chosen by leave-one-out error. All errors are relative.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = (1, 2, 4, 8, 16, 32, 64)
"""Candidates for a coordinate's step."""

_ROUNDINGS = ((1, 1), *((s, t) for step in STEPS[1:] for s, t in ((step, 1), (1, step), (step, step))))
"""(block, multiple that runs fast) pairs, the simplest first."""

_RIDGE = 1e-3
_PRIOR_CONSTANT = 0.3
_TIE = 1.02
"""A simpler rounding is kept unless another is better by this factor, and for no rounding at all by `_TIE_PLAIN`."""
_TIE_PLAIN = 1.06


@dataclass(frozen=True)
class Trend:
    """A fitted trend.

    Attributes:
        blocks: for each coordinate the size of a block.
        multiples: for each coordinate the multiple off which the runtime is slower (1: none).
        reference: channels at which every feature but the ragged ones is 1.
        coefficients: in ms, never negative.
        freedom: effective number of parameters.
    """

    blocks: Ints
    multiples: Ints
    reference: Floats
    coefficients: Floats
    freedom: float

    @property
    def steps(self) -> tuple[int, ...]:
        """For each coordinate the step worth keeping to (1: any count is as good)."""
        return tuple(int(step) for step in np.maximum(self.blocks, self.multiples))

    def rounded(self, channels: Ints) -> tuple[Floats, Floats]:
        """Blocks and raggedness of channel counts `[m, k]`: counts rounded up, and 1 where not a multiple."""
        return _round(channels, self.blocks, self.multiples)

    def at(self, channels: Ints) -> Floats:
        """The trend in ms at channel counts `[m, k]`; positive."""
        rounded, ragged = self.rounded(channels)
        features = _features(rounded / self.reference, ragged)
        value: Floats = features @ self.coefficients
        floor = 1e-3 * float(self.coefficients.sum())
        return np.maximum(value, floor, dtype=np.float64)


@dataclass(frozen=True)
class Hints:
    """What is believed of a surface before it is measured: likely times at some channel counts.

    Attributes:
        channels: `[p, k]`.
        ms: `[p]`, positive; together they weigh as much as `HINTS_WEIGH` measured points.
    """

    channels: Ints
    ms: Floats


HINTS_WEIGH = 1.5


Rounding = tuple[Ints, Ints]
"""For each coordinate the size of a block, and the multiple off which the runtime is slower."""


def fit_trend(channels: Ints, ms: Floats, hints: Hints | None = None, rounding: Rounding | None = None) -> Trend:
    """Fit a trend to measured points.

    Args:
        channels: `[n, k]`, n >= 1; k may be 0.
        ms: `[n]`, positive.
        hints: what is believed beforehand; few points follow it, many do not need it.
        rounding: where it is known already, else it is chosen.
    """
    count, coordinates = channels.shape
    reference = _reference(channels)
    blocks, multiples = choose_rounding([(channels, ms)]) if rounding is None else rounding
    typical = float(np.exp(np.log(ms).mean()))

    def relative(at: Ints, own_ms: Floats) -> Floats:
        rounded, ragged = _round(at, blocks, multiples)
        return _features(rounded / reference, ragged) * (typical / own_ms)[:, None]

    design = relative(channels, ms)
    prior = _prior(coordinates, design.shape[1])
    base, aim = _RIDGE * np.eye(len(prior)), _RIDGE * prior
    if hints is not None:
        hinted = relative(hints.channels, hints.ms)
        base = base + HINTS_WEIGH / len(hinted) * hinted.T @ hinted
        aim = aim + HINTS_WEIGH / len(hinted) * hinted.sum(axis=0)
    weights = np.ones(count)
    for _ in range(3 if count > design.shape[1] else 1):
        weighted = design * weights[:, None]
        gram = weighted.T @ design + base
        solution = solve_non_negative(gram, weighted.sum(axis=0) + aim)
        misses = np.abs(design @ solution - 1)
        limit = max(3 * float(np.median(misses)), 1e-3)
        weights = limit / np.maximum(misses, limit)  # one disturbed run must not bend the surface (Huber)
    active = solution > 0
    inner = gram[np.ix_(active, active)]
    freedom = float(np.trace(np.linalg.solve(inner, inner - base[np.ix_(active, active)])))
    return Trend(blocks, multiples, reference, solution * typical, freedom)


def solve_non_negative(gram: Floats, moment: Floats) -> Floats:
    """Minimise x'Gx/2 - m'x over x >= 0 for a positive definite G.

    Source:
        Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23; in the form of Bro and de Jong, 1997.
    """
    size = len(moment)
    free = np.zeros(size, dtype=bool)
    x = np.zeros(size)
    tolerance = 1e-10 * float(np.abs(moment).max(initial=1.0))
    for _ in range(3 * size + 1):
        slope = np.where(free, -np.inf, moment - gram @ x)
        if slope.max() <= tolerance:
            break
        free[slope.argmax()] = True
        while True:
            target = np.zeros(size)
            target[free] = np.linalg.solve(gram[np.ix_(free, free)], moment[free])
            falling = free & (target <= 0)
            if not falling.any():
                break
            fraction = float(np.min(x[falling] / np.maximum(x[falling] - target[falling], 1e-300)))
            x += fraction * (target - x)
            free &= x > 1e-14
            x[~free] = 0.0
        x = target
    return x


def _round(channels: Ints, blocks: Ints, multiples: Ints) -> tuple[Floats, Floats]:
    counts = np.maximum(channels, 1)
    rounded = (-(-counts // blocks) * blocks).astype(np.float64)
    return rounded, (counts % multiples != 0).astype(np.float64)


def _features(blocks: Floats, ragged: Floats) -> Floats:
    """Columns `[..., n, p]` from scaled blocks and raggedness `[..., n, k]`: 1, singles, pairs, product, ragged."""
    coordinates = blocks.shape[-1]
    product = blocks.prod(axis=-1, keepdims=True)
    columns = [np.ones_like(product), blocks]
    columns += [blocks[..., [i]] * blocks[..., [j]] for i, j in combinations(range(coordinates), 2)]
    if coordinates > 2:
        columns.append(product)
    columns += [ragged * product, ragged if coordinates == 1 else ragged * blocks]
    return np.concatenate(columns, axis=-1)


def _prior(coordinates: int, size: int) -> Floats:
    """Coefficients that hold where the points say nothing: a part is constant, the rest goes with the product."""
    prior = np.zeros(size)
    prior[0] = _PRIOR_CONSTANT if coordinates else 1.0
    if coordinates:
        prior[size - 2 * coordinates - 1] = 1 - _PRIOR_CONSTANT
    return prior


def choose_rounding(surfaces: Sequence[tuple[Ints, Floats]]) -> Rounding:
    """Choose blocks and multiples, one coordinate after another until none changes.

    Args:
        surfaces: (channels `[n, k]`, ms `[n]`) of those that share their rounding, with the same k; those with too few
            points to tell have no say.
    """
    coordinates = surfaces[0][0].shape[1]
    chosen = np.ones((2, coordinates), dtype=np.int64)
    telling = [(channels, ms) for channels, ms in surfaces if len(ms) >= 4 + 4 * coordinates]
    if not telling or not coordinates:
        return chosen[0], chosen[1]
    count = sum(len(ms) for _, ms in telling)
    candidates = np.asarray(_ROUNDINGS, dtype=np.int64)
    tie = np.full(len(candidates), _TIE + 1 / count)
    tie[0] = _TIE_PLAIN + 2 / count  # the best of many candidates is always a little better by chance
    for _ in range(3):
        before = chosen.copy()
        for coordinate in range(coordinates):
            trials = np.repeat(chosen[:, None, None, :], len(candidates), axis=1)
            trials[:, :, 0, coordinate] = candidates.T
            logs = np.zeros(len(candidates))
            for channels, ms in telling:
                logs += len(ms) / count * np.log(_leave_one_out(channels, ms, _reference(channels), trials))
            scores = np.exp(logs)
            best = int(np.flatnonzero(scores <= tie * scores.min())[0])
            chosen[:, coordinate] = candidates[best]
        if (chosen == before).all():
            break
    return chosen[0], chosen[1]


def _reference(channels: Ints) -> Floats:
    """The geometric middle of the channel counts."""
    middle: Floats = np.exp(np.log(np.maximum(channels, 1)).mean(axis=0))
    return middle


def _leave_one_out(channels: Ints, ms: Floats, reference: Floats, trials: Ints) -> Floats:
    """Mean relative leave-one-out error of unconstrained ridge fits, one for each rounding in `[2, t, 1, k]`."""
    rounded, ragged = _round(channels[None], trials[0], trials[1])
    features = _features(rounded / reference, ragged)
    design = features * (np.exp(np.log(ms).mean()) / ms)[:, None]
    size = design.shape[-1]
    rest = 1 - design @ _prior(channels.shape[1], size)
    transposed = design.swapaxes(-1, -2)
    inverse = np.linalg.inv(transposed @ design + _RIDGE * np.eye(size))
    projected = design @ inverse
    leverage = np.minimum((projected * design).sum(axis=-1), 0.99)
    residual = rest - (projected @ (transposed @ rest[..., None]))[..., 0]
    error: Floats = np.abs(residual / (1 - leverage)).mean(axis=-1)
    return error
