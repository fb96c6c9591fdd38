"""Small random problems with costs that belong to several groups at once, and their solution by trying everything."""

import itertools

import numpy as np
from hypothesis import strategies as st

from pruner.solvers import Limit, Problem
from pruner.solvers.problem import Axis, Floats, Grid, Ints, Table, TabledCost


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    grids: bool = False,
    blocks: bool = False,
    limits: int = 2,
    most_groups: int = 4,
    most_options: int = 5,
) -> Problem:
    """A problem of few groups; costs grow along every axis, and are not negative."""
    count = draw(st.integers(1, most_groups))
    sizes = tuple(draw(st.integers(2, most_options)) for _ in range(count))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    losses = [_descending(generator, size) for size in sizes]
    own: list[tuple[int, ...]] = []
    if blocks and count >= 2:
        inside = tuple(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1)))
        for group in inside:
            losses[group][0] = 0.0
        losses.append(np.array([float(generator.exponential()), 0.0]))
        sizes = (*sizes, 2)
        own = [(count, *inside)]
    posed = []
    for _ in range(draw(st.integers(1, limits))):
        cost = random_cost(generator, sizes, sums=draw(st.integers(1, 3)), grids=grids, block=own[0] if own else ())
        full = cost.at(np.array(sizes) - 1)
        posed.append(Limit(cost, draw(st.floats(0.02, 1.1)) * full))
    return Problem(tuple(losses), tuple(posed), posed[0].cost, tuple(own))


def _descending(generator: np.random.Generator, size: int) -> Floats:
    steps = generator.exponential(size=size - 1) * generator.integers(0, 2, size - 1)
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0)


def random_cost(
    generator: np.random.Generator,
    sizes: tuple[int, ...],
    *,
    sums: int = 1,
    grids: bool = False,
    block: tuple[int, ...] = (),
) -> TabledCost:
    """Tables over one to three groups that grow along every axis; what belongs to a block is nothing without it."""
    parts: list[Table | Grid] = []
    for _ in range(int(generator.integers(1, 5))):
        arity = int(min(len(sizes), generator.integers(1, 4)))
        groups = tuple(sorted(generator.choice(len(sizes), arity, replace=False).tolist()))
        values = generator.exponential(size=[sizes[group] for group in groups])
        for axis in range(arity):
            values = np.cumsum(values, axis=axis)
        for axis, group in enumerate(groups):
            if group in block:
                np.moveaxis(values, axis, 0)[0] = 0.0
        parts.append(Table(groups, values))
    if grids and len(sizes) > 1:
        adds = tuple((8 * np.arange(1, size + 1)).astype(np.int64) for size in sizes)
        counts = np.array(sorted({sum(each) for each in itertools.product(*(add.tolist() for add in adds))}))
        axis_of_all = Axis(0, tuple(range(len(sizes))), adds, counts)
        parts.append(Grid((axis_of_all,), np.cumsum(generator.exponential(size=len(counts)))))
    members = (generator.random((sums, len(parts))) < 0.7).astype(np.float64)
    members[0] = 1.0 if sums == 1 else members[0]
    return TabledCost("latency", "ms", tuple(parts), members, generator.random(sums), sizes)


def by_trying_all(problem: Problem) -> float | None:
    """The least importance that any choice within the limits loses, or None where there is none."""
    best: float | None = None
    for options in itertools.product(*(range(len(losses)) for losses in problem.losses)):
        choice: Ints = np.array(options, dtype=np.int64)
        if any(len({int(choice[group] == 0) for group in block}) > 1 for block in problem.blocks):
            continue
        if problem.exceeded(choice):
            continue
        lost = problem.lost(choice)
        best = lost if best is None else min(best, lost)
    return best
