"""HALP's way: a multiple-choice knapsack over groups, each priced with all others as they are, in many small steps.

A group's options are priced at the present widths of the others, which makes the costs additive; the budget is
tightened in steps, so that these widths are never far from those that come out.

Source: Shen et al., Structural Pruning via Latency-Saliency Knapsack, NeurIPS 2022, arXiv:2210.06659.
"""

import numpy as np

from pruner.solvers.greedy import give_back, narrow
from pruner.solvers.linear import LinearProgram
from pruner.solvers.problem import Floats, Ints, Limit, Problem, Solution, Table, TabledCost

STEPS = 30
"""In how many steps the budget is reached, as HALP does."""
CORRECTIONS = 10
"""How often the last step is repeated with a tighter limit, where prices at frozen widths were too low."""
TIME_LIMIT_S = 5.0


class Knapsack:
    """Multiple-choice knapsack with the other groups frozen, iterated."""

    name = "knapsack"
    ranks_by_ratio = False

    def solve(self, problem: Problem) -> Solution:
        """Approach the limits in steps; whole blocks never go."""
        choice = problem.start
        if not problem.exceeded(choice):
            return problem.solution(choice, 0)
        full = [limit.cost.at(choice) for limit in problem.limits]
        moves = 0
        for step in range(1, STEPS + 1):
            aims = [
                max(limit.most, cost + (limit.most - cost) * step / STEPS)
                for limit, cost in zip(problem.limits, full, strict=True)
            ]
            found = _one_step(problem, choice, aims)
            choice, moves = (choice, moves) if found is None else (found, moves + 1)
        aims = [limit.most for limit in problem.limits]
        for _ in range(CORRECTIONS):
            if not problem.exceeded(choice):
                break
            aims = [
                aim - max(0.0, limit.cost.at(choice) - limit.most)
                for aim, limit in zip(aims, problem.limits, strict=True)
            ]
            found = _one_step(problem, choice, aims)
            if found is None:
                break
            choice, moves = found, moves + 1
        if problem.exceeded(choice):
            return narrow(problem, choice, moves)
        return problem.solution(*give_back(problem, choice, moves))


def _one_step(problem: Problem, choice: Ints, aims: list[float]) -> Ints | None:
    """The knapsack at frozen widths: the options that lose least within the aims, or None."""
    limits = []
    for limit, aim in zip(problem.limits, aims, strict=True):
        parts = tuple(Table((group,), _alone(problem, limit.cost, choice, group)) for group in range(len(choice)))
        frozen = TabledCost(
            limit.cost.name,
            limit.cost.unit,
            parts,
            np.ones((1, len(parts))),
            np.array([limit.cost.at(choice)]),
            limit.cost.options,
        )
        limits.append(Limit(frozen, aim))
    posed = Problem(problem.losses, tuple(limits), problem.rank)
    return LinearProgram(posed).solve(gap=1e-4, time_limit_s=TIME_LIMIT_S).choice


def _alone(problem: Problem, cost: TabledCost, choice: Ints, group: int) -> Floats:
    """What each option of a group changes; what would take a block away is made too dear to be taken."""
    changes = cost.changes(choice, group).copy()
    if problem.least(group):
        changes[0] = abs(cost.at(choice)) * 1e3
    return changes
