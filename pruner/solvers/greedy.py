"""Group Fisher Pruning's way: again and again remove where importance lost over cost saved is least, at current widths.

The paper removes one channel at a time; here a move takes a group to any narrower option, so that a staircase's next
edge is reached at once. Where options are single channels, and each saves as much as the last, it is the paper's rule.

Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708.
"""

from dataclasses import dataclass

import numpy as np

from pruner.solvers.problem import Ints, Problem, Solution

SAVED_AT_LEAST = 1e-9
"""Savings below this fraction of the whole cost are none."""


@dataclass(frozen=True)
class _Move:
    """Groups and the options that they take."""

    ratio: float
    width: int
    change: tuple[tuple[int, int], ...]

    def after(self, choice: Ints) -> Ints:
        moved = choice.copy()
        for group, option in self.change:
            moved[group] = option
        return moved


class Greedy:
    """Ratio greedy with costs taken anew after each move."""

    name = "greedy"
    ranks_by_ratio = True

    def solve(self, problem: Problem) -> Solution:
        """Narrow groups until every limit is kept."""
        return narrow(problem, problem.start, 0)


def narrow(problem: Problem, choice: Ints, moves: int) -> Solution:
    """Narrow groups from where they are until every limit is kept."""
    least = SAVED_AT_LEAST * max(problem.rank.at(choice), 1e-12)
    best: dict[int, _Move | None] = {}
    while problem.exceeded(choice):
        for group in range(len(problem.losses)):
            if group not in best:
                best[group] = _best(problem, choice, group, least)
        candidates = [move for move in best.values() if move]
        move = min(candidates, key=lambda move: (move.ratio, -move.width), default=None) or _any(problem, choice)
        if move is None:
            return problem.solution(choice, moves)
        choice = _no_further_than_needed(problem, choice, move).after(choice)
        moves += 1
        for group, _ in move.change:
            for other in problem.together[group]:
                best.pop(other, None)
    return problem.solution(choice, moves)


def _best(problem: Problem, choice: Ints, group: int, least: float) -> _Move | None:
    """The group's narrower option with the least importance lost over cost saved; of equal ones the widest."""
    block = problem.block_of.get(group)
    if block is not None and group == block[0]:
        return _removal(problem, choice, block, least)
    now, lowest = int(choice[group]), problem.least(group)
    if now <= lowest:
        return None
    saved = -problem.rank.changes(choice, group)[lowest:now]
    lost = problem.losses[group][lowest:now] - problem.losses[group][now]
    ratios = np.where(saved > least, lost / np.maximum(saved, least), np.inf)
    place = len(ratios) - 1 - int(np.argmin(ratios[::-1]))
    if not np.isfinite(ratios[place]):
        return None
    return _Move(float(ratios[place]), lowest + place, ((group, lowest + place),))


def _no_further_than_needed(problem: Problem, choice: Ints, move: _Move) -> _Move:
    """The last move goes to the widest option at which every limit is kept."""
    if len(move.change) > 1:
        return move
    ((group, option),) = move.change
    fits = np.ones(len(problem.losses[group]), dtype=bool)
    for limit in problem.limits:
        fits &= limit.cost.along(choice, group) <= limit.most
    widest = np.flatnonzero(fits[option : choice[group]])
    return _Move(move.ratio, option + int(widest[-1]), ((group, option + int(widest[-1])),)) if len(widest) else move


def _removal(problem: Problem, choice: Ints, block: tuple[int, ...], least: float) -> _Move | None:
    """Take a whole residual block away."""
    if choice[block[0]] == 0:
        return None
    move = _Move(0.0, 0, tuple((group, 0) for group in block))
    after = move.after(choice)
    saved = problem.rank.at(choice) - problem.rank.at(after)
    lost = sum(problem.losses[group][0] - problem.losses[group][choice[group]] for group in block)
    return _Move(float(lost / saved), 0, move.change) if saved > least else None


def _any(problem: Problem, choice: Ints) -> _Move | None:
    """Where no move saves anything on its own: the least important step, so that a plateau is left."""
    steps = [
        _Move(float(losses[now - 1] - losses[now]), int(now) - 1, ((group, int(now) - 1),))
        for group, (losses, now) in enumerate(zip(problem.losses, choice, strict=True))
        if now > problem.least(group)
    ]
    gone = [
        _Move(float(problem.losses[block[0]][0]), 0, tuple((group, 0) for group in block))
        for block in problem.blocks
        if choice[block[0]]
    ]
    return min(steps or gone, key=lambda move: move.ratio, default=None)


def give_back(problem: Problem, choice: Ints, moves: int) -> tuple[Ints, int]:
    """Widen groups, most importance first, while all limits stay kept; blocks that are gone stay gone.

    Returns:
        The options, and `moves` with those taken here.
    """
    choice = choice.copy()
    while True:
        now = [limit.cost.at(choice) for limit in problem.limits]
        best: tuple[float, int, int] | None = None
        for group, losses in enumerate(problem.losses):
            present = int(choice[group])
            if present == len(losses) - 1 or (present == 0 and group in problem.block_of):
                continue
            gains = losses[present] - losses
            fits = np.arange(len(losses)) > present
            for limit, cost in zip(problem.limits, now, strict=True):
                fits &= cost + limit.cost.changes(choice, group) <= limit.most
            gains = np.where(fits, gains, -np.inf)
            place = len(gains) - 1 - int(np.argmax(gains[::-1]))
            if np.isfinite(gains[place]) and (best is None or gains[place] > best[0]):
                best = (float(gains[place]), group, place)
        if best is None:
            return choice, moves
        choice[best[1]] = best[2]
        moves += 1
