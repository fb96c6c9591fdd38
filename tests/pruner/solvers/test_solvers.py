import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from pruner.solvers import SOLVERS, Limit, Problem, Solver
from pruner.solvers.greedy import Greedy
from pruner.solvers.milp import Milp
from pruner.solvers.problem import Floats, Table, TabledCost, within
from tests.pruner.solvers.problems import by_trying_all, problems

EXACT = Milp(gap=0.0)
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)


def products(pairs: list[tuple[int, int, float]], sizes: tuple[int, ...], step: int = 1) -> TabledCost:
    """A cost like convolutions': a sum of products of two groups' widths, in steps; options are one channel each."""
    parts = []
    for a, b, weight in pairs:
        steps = [-(-np.arange(1, sizes[group] + 1) // step) for group in (a, b)]
        values = weight * (np.outer(*steps) if a != b else steps[0] ** 2).astype(np.float64)
        parts.append(Table((a, b) if a != b else (a,), values))
    return TabledCost("latency", "ms", tuple(parts), np.ones((1, len(parts))), np.zeros(1), sizes)


def pose(cost: TabledCost, scores: list[list[float]], most: float) -> Problem:
    losses: list[Floats] = [np.append(np.cumsum(np.sort(np.array(each)))[:-1][::-1], 0.0) for each in scores]
    return Problem(tuple(losses), (Limit(cost, most),), cost)


@every_solver
@settings(max_examples=60, deadline=None)
@given(problem=problems(blocks=True, grids=True))
def test_a_solution_keeps_every_limit_or_says_that_it_does_not(solver: Solver, problem: Problem) -> None:
    solution = solver.solve(problem)
    assert all(0 <= option < len(losses) for option, losses in zip(solution.choice, problem.losses, strict=True))
    assert solution.met == (not problem.exceeded(solution.choice))
    assert solution.lost == pytest.approx(problem.lost(solution.choice))
    for block in problem.blocks:
        assert len({bool(solution.choice[group]) for group in block}) == 1


@settings(max_examples=150, deadline=None)
@given(problem=problems(blocks=True))
def test_milp_loses_what_trying_everything_loses(problem: Problem) -> None:
    least = by_trying_all(problem)
    solution = EXACT.solve(problem)
    assert solution.met == (least is not None)
    if least is not None:
        assert solution.lost == pytest.approx(least, rel=1e-5, abs=1e-9)
        assert solution.bound is not None
        assert solution.bound <= least * (1 + 1e-6) + 1e-9
        assert solution.gap is not None
        assert solution.gap <= 1e-4


def test_a_start_that_highs_takes_for_an_optimum_of_value_zero_proves_nothing() -> None:
    pair = np.array([[0.0, 2.92], [0.0, 3.98], [0.0, 8.16], [0.0, 11.3], [0.0, 14.8]])
    steps = np.array([[12.5, 25.1, 34.5, 45.7, 54.3], [18.5, 38.6, 50.6, 68.0, 80.3], [26.1, 56.1, 71.5, 94.5, 117.2]])
    triple = np.zeros((4, 5, 2))
    triple[1:, :, 1] = steps
    cost = TabledCost(
        "latency", "ms", (Table((1, 2), pair), Table((0, 1, 2), triple)), np.ones((1, 2)), np.zeros(1), (4, 5, 2)
    )
    losses = (np.zeros(4), np.array([1.16, 1.16, 1.16, 0.126, 0.0]), np.array([1.84, 0.0]))
    problem = Problem(losses, (Limit(cost, 49.5),), cost, ((2, 0),))
    solution = EXACT.solve(problem)
    assert solution.lost == by_trying_all(problem)
    assert solution.gap == pytest.approx(0.0, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(problem=problems(grids=True))
def test_where_costs_belong_to_sums_milp_keeps_the_limits_and_its_bound_holds(problem: Problem) -> None:
    least = by_trying_all(problem)
    solution = EXACT.solve(problem)
    if least is None:
        assert not solution.met
    elif solution.met:
        assert solution.bound is not None
        assert solution.bound * (1 - 1e-6) - 1e-9 <= least <= solution.lost * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("name", ["greedy", "knapsack"])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_no_other_solver_is_better_than_milp(name: str, problem: Problem) -> None:
    other = next(solver for solver in SOLVERS if solver.name == name).solve(problem)
    exact = EXACT.solve(problem)
    if other.met:
        assert exact.met
        assert exact.lost <= other.lost * (1 + 1e-6) + 1e-9


@settings(max_examples=60, deadline=None)
@given(problem=problems(limits=1))
def test_a_tighter_budget_is_never_predicted_slower(problem: Problem) -> None:
    (limit,) = problem.limits
    costs = []
    for share in (1.0, 0.8, 0.6, 0.4):
        solution = EXACT.solve(within([Limit(limit.cost, share * limit.most)], problem))
        if solution.met:
            costs.append(limit.cost.at(solution.choice))
    assert all(tighter <= looser * (1 + 1e-6) for looser, tighter in itertools.pairwise(costs))


@every_solver
def test_a_budget_that_is_kept_already_changes_nothing(solver: Solver) -> None:
    cost = products([(0, 1, 1.0)], (8, 8))
    problem = pose(cost, [[1.0] * 8, [1.0] * 8], 64.0)
    assert (solver.solve(problem).choice == problem.start).all()


@every_solver
def test_the_unimportant_group_goes_first(solver: Solver) -> None:
    cost = products([(0, 2, 1.0), (1, 2, 1.0)], (8, 8, 8))
    solution = solver.solve(pose(cost, [[0.01] * 8, [5.0] * 8, [5.0] * 8], 100.0))
    assert solution.choice[0] < solution.choice[1] == 7


@every_solver
def test_channels_that_save_nothing_on_a_staircase_stay(solver: Solver) -> None:
    cost = products([(0, 0, 1.0)], (64,), step=16)
    solution = solver.solve(pose(cost, [[1.0] * 64], 10.0))
    assert (solution.choice[0] + 1) % 16 == 0


@every_solver
def test_an_impossible_budget_is_not_met_and_everything_is_at_its_least(solver: Solver) -> None:
    cost = products([(0, 1, 1.0)], (8, 8))
    solution = solver.solve(pose(cost, [[1.0] * 8, [1.0] * 8], 0.5))
    assert not solution.met
    assert solution.choice.tolist() == [0, 0]


def test_greedy_takes_a_block_away_where_that_saves_most_for_what_it_loses() -> None:
    sizes = (2, 3)
    parts = (Table((0, 1), np.array([[0.0, 0.0, 0.0], [0.0, 9.0, 10.0]])), Table((0,), np.array([0.0, 5.0])))
    cost = TabledCost("latency", "ms", parts, np.ones((1, 2)), np.zeros(1), sizes)
    losses = (np.array([0.1, 0.0]), np.array([0.0, 2.0, 0.0]))
    problem = Problem(losses, (Limit(cost, 4.0),), cost, ((0, 1),))
    solution = Greedy().solve(problem)
    assert solution.choice.tolist() == [0, 0]
    assert solution.lost == pytest.approx(0.1)
