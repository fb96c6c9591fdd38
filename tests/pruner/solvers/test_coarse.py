"""Programs of a few options find choices among all; what they find keeps the limits and is never worse."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruner.solvers import Limit, Problem
from pruner.solvers.coarse import approach, restricted
from pruner.solvers.greedy import Greedy, give_back
from pruner.solvers.milp import Milp
from pruner.solvers.problem import Ints, Table, TabledCost, within
from tests.pruner.solvers.problems import by_trying_all, problems

SHARES = (0.9, 0.75, 0.6, 0.5, 0.35)


@settings(max_examples=50, deadline=None)
@given(problem=problems(blocks=True, grids=True), data=st.data())
def test_a_choice_costs_and_loses_the_same_among_fewer_options(problem: Problem, data: st.DataObject) -> None:
    kept: list[Ints] = []
    for losses in problem.losses:
        last = len(losses) - 1
        kept.append(np.union1d(sorted(data.draw(st.sets(st.integers(0, last)))), [0, last]).astype(np.int64))
    few = restricted(problem, kept)
    choice: Ints = np.array([data.draw(st.integers(0, len(options) - 1)) for options in kept])
    among_all: Ints = np.array([options[at] for options, at in zip(kept, choice, strict=True)])
    assert few.lost(choice) == problem.lost(among_all)
    for one, other in zip(few.limits, problem.limits, strict=True):
        assert one.cost.at(choice) == other.cost.at(among_all)
        for group in range(len(kept)):
            assert one.cost.along(choice, group) == pytest.approx(other.cost.along(among_all, group)[kept[group]])


@settings(max_examples=25, deadline=None)
@given(problem=problems(blocks=True, grids=True, most_options=12, most_groups=3))
def test_what_is_approached_keeps_the_limits_and_is_never_worse(problem: Problem) -> None:
    known = Greedy().solve(problem)
    found = approach(problem, known, gap=1e-3, until=math.inf)
    assert found.met == (not problem.exceeded(found.choice))
    assert found.met or not known.met
    assert found.lost == pytest.approx(problem.lost(found.choice))
    if known.met:
        assert found.lost <= known.lost
    for block in problem.blocks:
        assert len({bool(found.choice[group]) for group in block}) == 1


@settings(max_examples=25, deadline=None)
@given(problem=problems(most_options=12, most_groups=3, limits=2))
def test_milp_loses_what_trying_everything_loses_where_programs_of_few_options_come_first(problem: Problem) -> None:
    least = by_trying_all(problem)
    solution = Milp(gap=0.0).solve(problem)
    assert solution.met == (least is not None)
    if least is not None:
        assert solution.lost == pytest.approx(least, rel=1e-5, abs=1e-9)
        assert solution.bound is not None
        assert solution.bound <= least * (1 + 1e-6) + 1e-9


def test_without_time_the_known_choice_comes_back() -> None:
    problem = deep(6, 16, 0.5)
    known = Greedy().solve(problem)
    assert approach(problem, known, gap=1e-3, until=-math.inf) is known


def deep(groups: int, options: int, share: float) -> Problem:
    """A chain of layers whose memory is all weights and the largest of the tensors, as a deep network's is.

    Channels are about equally important everywhere, as by their magnitudes.
    """
    generator = np.random.default_rng(groups)
    widths = np.arange(1, options + 1) / options
    parts = [
        Table((one, two), generator.uniform(1, 4) * np.outer(widths, widths))
        for one, two in itertools.pairwise(range(groups))
    ]
    tensors = [Table((group,), generator.uniform(1, 8) * widths) for group in range(groups)]
    members = np.zeros((groups - 1, len(parts) + groups))
    members[:, : len(parts)] = 1.0
    for step in range(groups - 1):
        members[step, [len(parts) + step, len(parts) + step + 1]] = 1.0
    sizes = (options,) * groups
    cost = TabledCost("memory", "bytes", (*parts, *tensors), members, np.zeros(groups - 1), sizes)
    rank = TabledCost("memory", "bytes", tuple(tensors), np.ones((1, groups)), np.zeros(1), sizes)
    losses = tuple(np.append(np.cumsum(generator.uniform(0.5, 1.5, options - 1))[::-1], 0.0) for _ in range(groups))
    full = cost.at(np.array(sizes) - 1)
    return Problem(losses, (Limit(cost, share * full),), rank)


def test_few_options_find_what_greedy_does_not() -> None:
    problem = deep(8, 12, 0.5)
    known = Greedy().solve(problem)
    found = approach(problem, known, gap=1e-3, until=math.inf)
    assert found.met
    assert found.lost < 0.9 * problem.lost(give_back(problem, known.choice, 0)[0])


def test_a_looser_memory_budget_never_keeps_less() -> None:
    problem = deep(4, 8, 1.0)
    (limit,) = problem.limits
    found = [Milp(gap=0.0).solve(within([Limit(limit.cost, share * limit.most)], problem)) for share in SHARES]
    assert all(solution.met for solution in found)
    assert all(one.lost <= other.lost * (1 + 1e-6) for one, other in itertools.pairwise(found))
