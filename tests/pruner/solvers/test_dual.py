"""Prices on limits prove what the best choice loses at least; sums of small tables are minimised exactly."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from pruner.solvers import Limit, Problem
from pruner.solvers.dual import solve_dual
from pruner.solvers.elimination import Elimination
from pruner.solvers.linear import count_columns
from pruner.solvers.milp import HOPELESS, Milp
from pruner.solvers.problem import Axis, Grid, within
from tests.pruner.solvers.problems import by_trying_all, problems
from tests.pruner.solvers.test_coarse import deep


@pytest.mark.parametrize("seed", range(6))
def test_minimising_groups_away_finds_the_least_of_all_combinations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 5, 5).tolist()
    scopes = [(), (0,), (0, 1), (1, 2, 4), (2, 3), (0, 3), (2, 3)]
    tables = [(scope, generator.normal(size=[sizes[group] for group in scope])) for scope in scopes]
    tables[2][1][0, 0] = math.inf
    least, choice = Elimination(sizes, scopes).least(tables)

    def total(options: tuple[int, ...]) -> float:
        return sum(float(values[tuple(options[group] for group in scope)]) for scope, values in tables)

    assert least == pytest.approx(min(map(total, itertools.product(*map(range, sizes)))))
    assert total(tuple(choice.tolist())) == pytest.approx(least)


def test_a_table_that_would_be_too_large_is_refused() -> None:
    everywhere = list(itertools.combinations(range(6), 2))
    with pytest.raises(ValueError, match="a table of 1000000 cells"):
        Elimination([10] * 6, everywhere, most_cells=999_999)
    assert len(Elimination([10] * 6, list(itertools.pairwise(range(6))), most_cells=100).steps) == 6


@settings(max_examples=60, deadline=None)
@given(problem=problems(blocks=True))
def test_no_choice_within_the_limits_loses_less_than_the_bound(problem: Problem) -> None:
    found = solve_dual(problem, gap=0.0, until=math.inf)
    least = by_trying_all(problem)
    if found is None:
        assert least is None or problem.exceeded(np.zeros(len(problem.losses), dtype=np.int64))
        return
    assert least is not None
    assert found.bound <= least * (1 + 1e-9) + 1e-12
    assert found.within is not None
    assert not problem.exceeded(found.within)
    assert problem.lost(found.within) >= least * (1 - 1e-9)
    for block in problem.blocks:
        assert all(len({bool(choice[group]) for group in block}) == 1 for choice in (*found.mixed, found.within))


def test_a_deep_networks_memory_is_bounded_nearly_as_low_as_its_best_plan() -> None:
    problem = deep(6, 10, 0.6)
    found = solve_dual(problem, gap=1e-4, until=math.inf)
    exact = Milp(gap=1e-6).solve(problem)
    assert found is not None
    assert 0.9 * exact.lost <= found.bound <= exact.lost * (1 + 1e-9)


def test_costs_that_hang_together_too_widely_have_no_such_bound() -> None:
    assert solve_dual(_with_a_grid(deep(4, 6, 0.5)), gap=1e-3, until=math.inf) is None


def test_a_program_too_large_for_its_relaxation_has_a_proved_gap_all_the_same() -> None:
    problem = deep(16, 46, 1.0)
    assert count_columns(problem) > HOPELESS
    shares = (0.9, 0.6)
    (limit,) = problem.limits
    found = [Milp().solve(within([Limit(limit.cost, share * limit.most)], problem)) for share in shares]
    assert all(solution.met and solution.gap is not None and solution.gap < 0.1 for solution in found)
    assert all(one.lost < other.lost for one, other in itertools.pairwise(found))


def _with_a_grid(problem: Problem) -> Problem:
    (limit,) = problem.limits
    adds = tuple(np.arange(1, len(losses) + 1) for losses in problem.losses)
    counts = np.arange(len(adds), sum(len(add) for add in adds) + 1)
    grid = Grid((Axis(0, tuple(range(len(adds))), adds, counts),), counts.astype(np.float64))
    sums = np.concatenate([limit.cost.sums, np.ones((len(limit.cost.sums), 1))], axis=1)
    cost = replace(limit.cost, parts=(*limit.cost.parts, grid), sums=sums)
    return within([Limit(cost, limit.most)], problem)
