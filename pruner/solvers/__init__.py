"""Solvers, one file each behind one interface; which there are stands in `SOLVERS`."""

from lut.errors import LatpruneError
from pruner.solvers.greedy import Greedy
from pruner.solvers.knapsack import Knapsack
from pruner.solvers.milp import Milp
from pruner.solvers.problem import Limit, Problem, Solution, Solver

SOLVERS: tuple[Solver, ...] = (Greedy(), Knapsack(), Milp())


def get_solver(name: str) -> Solver:
    """The solver of this name.

    Raises:
        LatpruneError: there is none.
    """
    for solver in SOLVERS:
        if solver.name == name:
            return solver
    raise LatpruneError(f"There is no solver {name!r}; there are {', '.join(solver.name for solver in SOLVERS)}.")


__all__ = ["SOLVERS", "Limit", "Problem", "Solution", "Solver", "get_solver"]
