"""What every solver is given and gives back; it knows nothing of torch.

Choose a width for each group so that the importance lost is least and every budget is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pruner.cost import Cost


@dataclass(frozen=True)
class Limit:
    """One budget: a cost and the most it may be."""

    cost: Cost
    most: float


@dataclass(frozen=True)
class Problem:
    """A pruning problem.

    Attributes:
        start: present widths.
        options: for each group the widths it may have, ascending; the last is the present one.
        scores: for each group the scores of its present channels, ascending; keeping w of n loses the first n − w.
        limits: the budgets.
        rank: the cost by which solvers that rank by a ratio divide.
        together: for each group the groups whose costs depend on its width (itself among them).
    """

    start: Mapping[str, int]
    options: Mapping[str, Sequence[int]]
    scores: Mapping[str, NDArray[np.float64]]
    limits: Sequence[Limit]
    rank: Cost
    together: Mapping[str, frozenset[str]]
    losses: dict[str, NDArray[np.float64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sums = {name: np.concatenate([[0.0], np.cumsum(scores)]) for name, scores in self.scores.items()}
        object.__setattr__(self, "losses", sums)

    def lost(self, group: str, width: int) -> float:
        """Importance lost when the group keeps its `width` highest scores."""
        return float(self.losses[group][len(self.scores[group]) - width])

    def total_lost(self, widths: Mapping[str, int]) -> float:
        """Importance lost over all groups."""
        return sum(self.lost(group, width) for group, width in widths.items() if group in self.scores)

    def exceeded(self, widths: Mapping[str, int]) -> list[Limit]:
        """The budgets that these widths do not keep."""
        return [limit for limit in self.limits if limit.cost.at(widths) > limit.most]

    def narrowest(self) -> dict[str, int]:
        """Every group at its least width."""
        return {**self.start, **{group: options[0] for group, options in self.options.items()}}


@dataclass(frozen=True)
class Solution:
    """Widths found.

    Attributes:
        widths: of every group.
        lost: importance lost.
        met: whether all budgets are kept.
        moves: how many decisions were taken.
    """

    widths: Mapping[str, int]
    lost: float
    met: bool
    moves: int


class Solver(Protocol):
    """A way to solve a `Problem`."""

    name: str
    ranks_by_ratio: bool

    def solve(self, problem: Problem) -> Solution:
        """Find widths; a solution that is not `met` is the closest that was found."""
        ...


def width_options(size: int, step: int, min_width: int, most: int = 24) -> tuple[int, ...]:
    """Widths worth having for a group: multiples of the step, the least allowed, and the whole.

    Args:
        size: present width.
        step: found in the table; a group of fewer than four steps is divided in four.
        min_width: nothing below this.
        most: about how many options at most; the step is doubled until there are no more.
    """
    step = max(1, min(step, size // 4))
    while size / step > most:
        step *= 2
    least = max(1, min(max(min_width, step), size))
    return tuple(sorted({least, size, *(w for w in range(step, size, step) if w >= least)}))
