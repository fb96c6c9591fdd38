"""What every choice within the limits loses at least, by a price on each limit instead of the limit itself.

    least(prices) = min over choices of  lost(choice) + sum over rows of  price * (cost / most - 1)        prices >= 0

is never more than what the best choice within the limits loses, whatever the prices. For given prices it is a sum of
small tables, whose least `pruner/solvers/elimination.py` finds exactly. The prices that raise it most are found from
the choices seen so far: a small linear program mixes them so that the limits are kept on average, and its dual prices
are tried next. What was mixed in the end are good choices, some a little within the limits and some a little over.

Where a network's memory gives HiGHS a program of fifty thousand columns, whose relaxation alone takes minutes, this
takes a second or two.

Source: Lagrangian duality with Kelley's cutting planes (Kelley, The Cutting-Plane Method for Solving Convex Programs,
1960), steadied by going only a part of the way to the program's prices (Ben-Ameur and Neto, Acceleration of
Cutting-Plane and Column Generation Algorithms, Networks 49, 2007).
"""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from pruner.solvers.elimination import Elimination
from pruner.solvers.linear import undominated
from pruner.solvers.problem import Floats, Grid, Ints, Problem

MOST_ROUNDS = 200
PART = 0.5
"""Of the way from the best prices so far to the program's."""
MIXED = 1e-6
"""A choice with less than this share of the mix is not in it."""


@dataclass(frozen=True)
class Dual:
    """What was found with prices.

    Attributes:
        bound: importance that every choice within the limits loses at least.
        mixed: the choices whose mix keeps the limits and loses about `bound`, on average.
        within: the choice that keeps the limits and loses least of all that were seen, or None.
        rounds: how often prices were tried.
    """

    bound: float
    mixed: tuple[Ints, ...]
    within: Ints | None
    rounds: int


def solve_dual(problem: Problem, *, gap: float, until: float) -> Dual | None:
    """Find good prices; None where costs hang together too widely for it, or the least of all options exceeds a limit.

    Args:
        problem: to solve.
        gap: between the bound and the mix, as a fraction, at which to stop.
        until: of the monotonic clock.
    """
    if any(isinstance(part, Grid) for limit in problem.limits for part in limit.cost.parts):
        return None
    try:
        priced = _Priced(problem)
    except ValueError:
        return None
    least: Ints = np.zeros(len(problem.losses), dtype=np.int64)  # of blocks and of what is in them: gone
    if problem.exceeded(least):
        return None
    seen = [problem.start, least]
    best, best_prices = 0.0, np.zeros(priced.rows)
    rounds = 0
    weights: Floats = np.array([0.0, 1.0])
    for rounds in range(1, MOST_ROUNDS + 1):
        mix, weights, wanted = priced.mix(seen)
        if mix - best <= gap * mix or time.monotonic() > until:
            break
        # every other time all the way, so that the choices that the program lacks are surely found
        prices = wanted if rounds % 2 else best_prices + PART * (wanted - best_prices)
        bound, choice = priced.least(prices)
        if bound > best:
            best, best_prices = bound, prices
        if any((choice == other).all() for other in seen) and rounds % 2:
            break  # the program knew it: no prices say more
        seen.append(choice)
    mixed = tuple(choice for choice, weight in zip(seen, weights, strict=False) if weight > MIXED)
    kept = [choice for choice in seen if not problem.exceeded(choice)]
    return Dual(best, mixed, min(kept, key=problem.lost, default=None), rounds)


class _Priced:
    """A problem's losses and the rows of its limits, as tables over the groups that they depend on."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._constants: list[float] = []
        parts: dict[tuple[int, ...], list[tuple[Floats, dict[int, float]]]] = defaultdict(list)
        for limit in problem.limits:
            cost, unit = limit.cost, max(abs(limit.most), 1e-300)
            start, rows = len(self._constants), undominated(cost.sums, cost.constants)
            self._constants += [cost.constants[row] / unit - 1.0 for row in rows]
            for number, part in enumerate(cost.parts):
                members = {start + place: cost.sums[row, number] / unit for place, row in enumerate(rows)}
                parts[part.groups].append((part.values, {row: each for row, each in members.items() if each}))
        self.rows = len(self._constants)
        self._values = {scope: np.stack([values for values, _ in found]) for scope, found in parts.items()}
        self._members = {scope: np.zeros((len(found), self.rows)) for scope, found in parts.items()}
        for scope, found in parts.items():
            for place, (_, members) in enumerate(found):
                for row, each in members.items():
                    self._members[scope][place, row] = each
        own = [((group,), losses) for group, losses in enumerate(problem.losses)]
        sizes = [len(losses) for losses in problem.losses]
        pairs = [(min(block[0], other), max(block[0], other)) for block in problem.blocks for other in block[1:]]
        self._fixed: list[tuple[tuple[int, ...], Floats]] = [*own, *((pair, _together(sizes, pair)) for pair in pairs)]
        self._order = Elimination(sizes, [*parts, *pairs])
        self.scale = max((float(losses.max()) for losses in problem.losses), default=0.0) or 1.0

    def least(self, prices: Floats) -> tuple[float, Ints]:
        """The least of what is lost and paid at these prices, and a choice that reaches it."""
        tables = list(self._fixed)
        for scope, values in self._values.items():
            each = self._members[scope] @ prices
            if each.any():
                tables.append((scope, np.tensordot(each, values, axes=1)))
        found, choice = self._order.least(tables)
        return found + float(np.dot(self._constants, prices)), choice

    def excess(self, choice: Ints) -> Floats:
        """By how much of its limit each row exceeds it."""
        found = np.array(self._constants)
        for scope, values in self._values.items():
            found = found + values[(slice(None), *choice[list(scope)])] @ self._members[scope]
        return found

    def mix(self, seen: list[Ints]) -> tuple[float, Floats, Floats]:
        """Mix choices so that the limits are kept on average: what is lost then, the shares, and the rows' prices."""
        lost = np.array([self.problem.lost(choice) for choice in seen]) / self.scale
        over = np.stack([self.excess(choice) for choice in seen], axis=1)
        found = linprog(lost, A_ub=over, b_ub=np.zeros(self.rows), A_eq=np.ones((1, len(seen))), b_eq=[1.0])
        assert found.status == 0, found.message  # the least of all options is among those seen
        prices: Floats = np.maximum(-found.ineqlin.marginals, 0.0) * self.scale
        return float(found.fun) * self.scale, np.asarray(found.x, dtype=np.float64), prices


def _together(sizes: list[int], pair: tuple[int, int]) -> Floats:
    """What lets the first options of two groups be taken only together."""
    first = [np.arange(sizes[group]) == 0 for group in pair]
    return np.where(first[0][:, None] == first[1][None, :], 0.0, np.inf)
