"""The exact solver: all groups' options at once, with a proof of how much better any other choice could be.

What makes the problem hard is that a convolution's cost belongs to its inputs and outputs together. The integer linear
program of `pruner/solvers/linear.py` holds these costs as they are.
"""

import time
from dataclasses import replace

from pruner.solvers.coarse import approach
from pruner.solvers.greedy import Greedy, give_back
from pruner.solvers.linear import LinearProgram
from pruner.solvers.problem import Limit, Problem, Solution, within

TIGHTENED = 1.0005
"""By how much more than what was exceeded a limit is tightened where the program had been too cheap."""
ROUNDS = 6


class Milp:
    """Mixed-integer linear programming through HiGHS, on one core.

    Attributes:
        gap: relative, at which the search stops.
        time_limit_s: after which the best choice so far is taken, with the gap that was proved.
    """

    name = "milp"
    ranks_by_ratio = False

    def __init__(self, gap: float = 1e-3, time_limit_s: float = 30.0) -> None:
        self.gap = gap
        self.time_limit_s = time_limit_s

    def solve(self, problem: Problem) -> Solution:
        """Find the options that lose least, beginning with what the greedy solver and programs of few options find."""
        if not problem.exceeded(problem.start):
            return problem.solution(problem.start, 0, 0.0)
        until = time.monotonic() + self.time_limit_s
        best = Greedy().solve(problem)
        if best.met:
            best = problem.solution(give_back(problem, best.choice, 0)[0], 0)
        best = approach(problem, best, gap=self.gap, until=until)
        bound: float | None = None
        nodes = best.moves
        tightened = problem
        for _ in range(ROUNDS):
            left_s = until - time.monotonic()
            if left_s <= 0 and bound is not None:
                break
            program = LinearProgram(tightened, best.lost if best.met else None)
            found = program.solve(gap=self.gap, time_limit_s=max(left_s, 1.0), start=best.choice if best.met else None)
            nodes += found.nodes
            if bound is None:  # only the first program asks for no more than the problem does
                bound = found.bound
            if found.choice is None:
                break
            solution = problem.solution(found.choice, nodes)
            if solution.met:
                solution = problem.solution(give_back(problem, found.choice, 0)[0], nodes)
                if not best.met or solution.lost <= best.lost:
                    best = solution
                break
            tightened = _tightened(problem, tightened, solution)
        return replace(best, moves=nodes, bound=min(bound or 0.0, best.lost) if best.met else None)


def _tightened(problem: Problem, tried: Problem, solution: Solution) -> Problem:
    """Lower the limits that a choice exceeds: the program had it cheaper than it is."""
    limits = []
    for limit, now in zip(problem.limits, tried.limits, strict=True):
        cost = limit.cost.at(solution.choice)
        over = max(0.0, cost - limit.most)
        limits.append(Limit(limit.cost, now.most - TIGHTENED * over) if not limit.kept(cost) else now)
    return within(limits, problem)
