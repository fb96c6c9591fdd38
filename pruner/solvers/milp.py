"""The exact solver: all groups' options at once, with a proof of how much better any other choice could be.

What makes the problem hard is that a convolution's cost belongs to its inputs and outputs together. The integer linear
program of `pruner/solvers/linear.py` holds these costs as they are. Where that program is too large for its relaxation,
prices on the limits give the proof (`pruner/solvers/dual.py`), and programs of few options the choice.
"""

import time
from dataclasses import replace

from pruner.solvers.coarse import approach
from pruner.solvers.dual import solve_dual
from pruner.solvers.greedy import Greedy, give_back
from pruner.solvers.linear import LinearProgram, count_columns
from pruner.solvers.problem import Limit, Problem, Solution, within

TIGHTENED = 1.0005
"""By how much more than what was exceeded a limit is tightened where the program had been too cheap."""
ROUNDS = 6
LARGE = 12_000
"""Columns of a program that is bounded by prices first."""
HOPELESS = 30_000
"""Columns of a program whose relaxation may not be done in time."""
FINER = 0.25
"""Of the gap: so near do prices have to come to the mix of choices."""


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
        """Find the options that lose least, with what is proved of it."""
        if not problem.exceeded(problem.start):
            return problem.solution(problem.start, 0, 0.0)
        until = time.monotonic() + self.time_limit_s
        columns = count_columns(problem)
        priced = self._priced(problem, until) if columns > LARGE else None
        if priced is not None and (columns > HOPELESS or (priced.gap is not None and priced.gap <= self.gap)):
            return priced
        return self._programmed(problem, priced or self._approached(problem, until), until)

    def _approached(self, problem: Problem, until: float) -> Solution:
        """What the greedy solver and programs of few options find."""
        best = Greedy().solve(problem)
        if best.met:
            best = problem.solution(give_back(problem, best.choice, 0)[0], 0)
        return approach(problem, best, gap=self.gap, until=until)

    def _programmed(self, problem: Problem, best: Solution, until: float) -> Solution:
        """By the program of all options, beginning with what is known."""
        bound: float | None = None
        known = best.bound or 0.0
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
        return replace(best, moves=nodes, bound=min(max(bound or 0.0, known), best.lost) if best.met else None)

    def _priced(self, problem: Problem, until: float) -> Solution | None:
        """A choice near those that prices lead to, with what these prove; None where there are none."""
        dual = solve_dual(problem, gap=FINER * self.gap, until=until)
        if dual is None or dual.within is None:
            return None
        best = problem.solution(give_back(problem, dual.within, 0)[0], dual.rounds)
        best = approach(problem, best, gap=self.gap, until=until, near=dual.mixed, bound=dual.bound)
        return replace(best, bound=min(dual.bound, best.lost))


def _tightened(problem: Problem, tried: Problem, solution: Solution) -> Problem:
    """Lower the limits that a choice exceeds: the program had it cheaper than it is."""
    limits = []
    for limit, now in zip(problem.limits, tried.limits, strict=True):
        cost = limit.cost.at(solution.choice)
        over = max(0.0, cost - limit.most)
        limits.append(Limit(limit.cost, now.most - TIGHTENED * over) if not limit.kept(cost) else now)
    return within(limits, problem)
