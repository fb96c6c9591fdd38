"""Solve with a few options of each group first, then with those about what was found.

The program of a deep network's memory has fifty thousand columns, and there may be no time for its relaxation alone;
with five options a group it has fifteen hundred. What comes out is a choice among all options, good but without proof.
"""

import time
from collections.abc import Sequence

import numpy as np

from pruner.solvers.greedy import give_back
from pruner.solvers.linear import LinearProgram
from pruner.solvers.problem import Axis, Grid, Ints, Limit, Problem, Solution, Table, TabledCost

SPREAD = (3, 5, 9)
"""Options of a group, evenly apart, in the first programs."""
ENOUGH = 5
"""With no more options than this in any group there is nothing to leave out."""
AROUND = 3
"""Options to either side of the best choice's in those that follow."""
BESIDE = 1
"""Options to either side of those that a bound mixes."""
MOST = 6
"""Programs of that kind, at most: each begins with the best choice so far, until none is better."""
SHARE = 0.5
"""Of the time that is left, for one program."""
LEAST_S = 0.05
WORSE = 1e-9
"""A choice that loses less than another by a smaller fraction is no better."""


def approach(
    problem: Problem, known: Solution, *, gap: float, until: float, near: Sequence[Ints] = (), bound: float = 0.0
) -> Solution:
    """Find a better choice than a known one, if there is time.

    Args:
        problem: to solve.
        known: a choice; the closest where none was found that keeps the limits.
        gap: at which a program is done.
        until: of the monotonic clock; what is left then is not begun.
        near: choices about which to begin, instead of options evenly apart.
        bound: importance that every choice within the limits loses at least; one within `gap` of it is good enough.

    Returns:
        A choice that keeps the limits and loses less, or else the known one.
    """
    best = known
    sizes = [len(losses) for losses in problem.losses]
    if max(sizes, default=0) <= ENOUGH:
        return best
    first = [[_spread(size, few) for size in sizes] for few in SPREAD]
    if near:
        together = np.stack(near, axis=1)
        first = [[_among(size, options) for size, options in zip(sizes, together, strict=True)]]
    for few_options in first:
        best = _better(problem, best, few_options, gap, until)
    for _ in range(MOST):
        if best.met and best.lost - bound <= gap * best.lost:
            return best
        about = [_around(size, int(option)) for size, option in zip(sizes, best.choice, strict=True)]
        found = _better(problem, best, about, gap, until) if best.met else best
        if found.lost >= best.lost * (1 - WORSE):
            return found
        best = found
    return best


def _better(problem: Problem, best: Solution, kept: Sequence[Ints], gap: float, until: float) -> Solution:
    """What the program of fewer options finds, where that is better."""
    left_s = SHARE * (until - time.monotonic())
    if left_s < LEAST_S:
        return best
    kept = [np.union1d(few, [option]) for few, option in zip(kept, best.choice, strict=True)]
    small = restricted(problem, kept)
    start = np.array([int(np.searchsorted(few, at)) for few, at in zip(kept, best.choice, strict=True)], dtype=np.int64)
    program = LinearProgram(small, best.lost if best.met else None)
    found = program.solve(gap=gap, time_limit_s=left_s, start=start if best.met else None)
    if found.choice is None:
        return best
    choice: Ints = np.array([few[option] for few, option in zip(kept, found.choice, strict=True)], dtype=np.int64)
    if problem.exceeded(choice):
        return best
    solution = problem.solution(give_back(problem, choice, 0)[0], best.moves + found.nodes)
    return solution if not best.met or solution.lost < best.lost else best


def _spread(size: int, count: int) -> Ints:
    """So many of a group's options, evenly apart; the first two are always there: gone, and the least of a block's."""
    apart = np.round(np.linspace(0, size - 1, min(size, count)))
    return np.union1d(apart, [0, min(1, size - 1)]).astype(np.int64)


def _among(size: int, options: Ints) -> Ints:
    """Some options with those beside them, the first two and the last."""
    near = np.clip(options[:, None] + np.arange(-BESIDE, BESIDE + 1), 0, size - 1).ravel()
    return np.union1d(near, [0, min(1, size - 1), size - 1]).astype(np.int64)


def _around(size: int, option: int) -> Ints:
    """The options about one, the first two and the last."""
    near = np.arange(max(0, option - AROUND), min(size, option + AROUND + 1))
    return np.union1d(near, [0, min(1, size - 1), size - 1]).astype(np.int64)


def restricted(problem: Problem, kept: Sequence[Ints]) -> Problem:
    """The same problem with fewer options.

    Args:
        problem: with all.
        kept: of each group the options that stay, ascending; the last is always among them, and the first of a block's.
    """

    def part_of(part: Table | Grid) -> Table | Grid:
        if isinstance(part, Table):
            values = part.values[np.ix_(*(kept[group] for group in part.groups))] if part.groups else part.values
            return Table(part.groups, values)
        axes = tuple(
            Axis(
                axis.constant,
                axis.groups,
                tuple(add[kept[group]] for group, add in zip(axis.groups, axis.adds, strict=True)),
                axis.counts,
            )
            for axis in part.axes
        )
        return Grid(axes, part.values)

    def cost_of(cost: TabledCost) -> TabledCost:
        parts = tuple(map(part_of, cost.parts))
        return TabledCost(cost.name, cost.unit, parts, cost.sums, cost.constants, tuple(map(len, kept)))

    return Problem(
        tuple(losses[few] for losses, few in zip(problem.losses, kept, strict=True)),
        tuple(Limit(cost_of(limit.cost), limit.most) for limit in problem.limits),
        cost_of(problem.rank),
        problem.blocks,
    )
