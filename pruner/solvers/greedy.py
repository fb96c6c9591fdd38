"""Group Fisher Pruning's way: again and again remove where importance lost over cost saved is least, at current widths.

The paper removes one channel at a time; here a move takes a group to any narrower width worth having, so that a
staircase's next edge is reached at once. When every budget is kept, what room is left is given back.

Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pruner.solvers.problem import Problem, Solution

SAVED_AT_LEAST = 1e-9
"""Savings below this fraction of the whole cost are none."""


@dataclass(frozen=True)
class _Move:
    group: str
    width: int
    ratio: float


class Greedy:
    """Ratio greedy with costs taken anew after each move."""

    name = "greedy"
    ranks_by_ratio = True

    def solve(self, problem: Problem) -> Solution:
        """Narrow groups until every budget is kept, then widen where there is room."""
        widths = dict(problem.start)
        least = SAVED_AT_LEAST * max(problem.rank.at(widths), 1e-12)
        best: dict[str, _Move | None] = {}
        moves = 0
        exceeded = problem.exceeded(widths)
        while exceeded:
            for group in problem.options:
                if group not in best:
                    best[group] = self._best(problem, widths, group, least)
            candidates = sorted((move for move in best.values() if move), key=lambda move: move.ratio)
            move = next((m for m in candidates if self._helps(problem, widths, m)), None)
            move = move or next(iter(candidates), None) or self._any(problem, widths)
            if move is None:
                return Solution(widths, problem.total_lost(widths), False, moves)
            widths[move.group] = move.width
            moves += 1
            for group in problem.together[move.group]:
                best.pop(group, None)
            exceeded = problem.exceeded(widths)
        moves += self._give_back(problem, widths)
        return Solution(widths, problem.total_lost(widths), True, moves)

    @staticmethod
    def _best(problem: Problem, widths: Mapping[str, int], group: str, least: float) -> _Move | None:
        """The group's narrower width with the least importance lost over cost saved."""
        now = widths[group]
        lost = problem.lost(group, now)
        found: _Move | None = None
        for width in problem.options[group]:
            if width >= now:
                break
            saved = -problem.rank.change(widths, group, width)
            if saved <= least:
                continue
            ratio = (problem.lost(group, width) - lost) / saved
            if found is None or ratio < found.ratio or (ratio == found.ratio and width > found.width):
                found = _Move(group, width, ratio)
        return found

    @staticmethod
    def _helps(problem: Problem, widths: Mapping[str, int], move: _Move) -> bool:
        """Whether a move lowers a budget's cost that is exceeded."""
        return any(limit.cost.change(widths, move.group, move.width) < 0 for limit in problem.exceeded(widths))

    @staticmethod
    def _any(problem: Problem, widths: Mapping[str, int]) -> _Move | None:
        """Where no move saves anything on its own: the least important step, so that a plateau is left."""
        steps = [
            _Move(group, narrower[-1], problem.lost(group, narrower[-1]) - problem.lost(group, widths[group]))
            for group, options in problem.options.items()
            if (narrower := [width for width in options if width < widths[group]])
        ]
        return min(steps, key=lambda move: move.ratio, default=None)

    @staticmethod
    def _give_back(problem: Problem, widths: dict[str, int]) -> int:
        """Widen groups, most importance first, while all budgets stay kept."""
        moves = 0
        while True:
            room = [(limit.cost, limit.most - limit.cost.at(widths)) for limit in problem.limits]
            wider = []
            for group, options in problem.options.items():
                for width in options:
                    if width > widths[group]:
                        gain = problem.lost(group, widths[group]) - problem.lost(group, width)
                        if all(cost.change(widths, group, width) <= left for cost, left in room):
                            wider.append((gain, group, width))
            wider = [item for item in wider if not problem.exceeded({**widths, item[1]: item[2]})]
            if not wider:
                return moves
            _, group, width = max(wider)
            widths[group] = width
            moves += 1
