from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruner.solvers import SOLVERS, Limit, Problem, Solver, width_options


class Products:
    """A cost like convolutions': a sum of products of two groups' widths, in steps."""

    name = "latency"
    unit = "ms"

    def __init__(self, pairs: list[tuple[str, str, float]], step: int = 1) -> None:
        self.pairs, self.step = pairs, step

    def at(self, widths: Mapping[str, int]) -> float:
        steps = {name: -(-width // self.step) for name, width in widths.items()}
        return sum(weight * steps[a] * steps[b] for a, b, weight in self.pairs)

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        return self.at({**widths, group: width}) - self.at(widths)


def pose(cost: Products, scores: Mapping[str, list[float]], most: float, step: int) -> Problem:
    start = {name: len(values) for name, values in scores.items()}
    everyone = frozenset(start)
    return Problem(
        start=start,
        options={name: width_options(size, step, 1) for name, size in start.items()},
        scores={name: np.sort(np.asarray(values)) for name, values in scores.items()},
        limits=[Limit(cost, most)],
        rank=cost,
        together=dict.fromkeys(start, everyone),
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    scores = {name: draw(st.lists(st.floats(0, 10, allow_subnormal=False), min_size=2, max_size=24)) for name in names}
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names), st.floats(0.1, 5)), min_size=1, max_size=6)
    )
    step = draw(st.sampled_from([1, 2, 4]))
    cost = Products(pairs, step)
    most = cost.at({name: len(values) for name, values in scores.items()}) * draw(st.floats(0.05, 1.1))
    return pose(cost, scores, most, step)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_a_solution_keeps_every_budget_or_says_that_it_does_not(solver: Solver, problem: Problem) -> None:
    solution = solver.solve(problem)
    assert set(solution.widths) == set(problem.start)
    for name, width in solution.widths.items():
        assert width in problem.options[name]
    assert solution.met == (not problem.exceeded(solution.widths))
    assert solution.lost == pytest.approx(problem.total_lost(solution.widths))
    if not solution.met:
        assert problem.exceeded(problem.narrowest())


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_a_budget_that_is_kept_already_changes_nothing(solver: Solver) -> None:
    cost = Products([("a", "b", 1.0)])
    problem = pose(cost, {"a": [1.0] * 8, "b": [1.0] * 8}, 64.0, 1)
    assert solver.solve(problem).widths == problem.start


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_the_unimportant_group_goes_first(solver: Solver) -> None:
    cost = Products([("a", "c", 1.0), ("b", "c", 1.0)])
    scores = {"a": [0.01] * 8, "b": [5.0] * 8, "c": [5.0] * 8}
    solution = solver.solve(pose(cost, scores, 100.0, 2))
    assert solution.widths["a"] < solution.widths["b"] == 8


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_channels_that_save_nothing_on_a_staircase_stay(solver: Solver) -> None:
    cost = Products([("a", "a", 1.0)], step=16)
    solution = solver.solve(pose(cost, {"a": [1.0] * 64}, 10.0, 4))
    assert solution.widths["a"] % 16 == 0


@given(size=st.integers(1, 4000), step=st.integers(1, 128), least=st.integers(1, 5000))
def test_options_are_ascending_end_with_the_whole_and_respect_the_least_width(size: int, step: int, least: int) -> None:
    options = width_options(size, step, least)
    assert list(options) == sorted(set(options))
    assert options[-1] == size
    assert all(width >= min(least, size) for width in options)
    assert len(options) <= 27
