"""The least of a sum of small tables over groups' options, exactly: one group after another is minimised away.

Each table depends on few groups. To minimise a group away is to add up all tables that depend on it, and to keep, for
each combination of the other groups in these, the least along it: a new table, without that group. The work is that of
the largest such table. In a network groups meet their neighbours alone, and it stays small.

Source: bucket elimination, Dechter, Bucket Elimination: A Unifying Framework for Reasoning, Artificial Intelligence
113, 1999; the order is the greedy one of least table first.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from pruner.solvers.problem import Floats, Ints

MOST_CELLS = 1 << 22
"""Of the largest table on the way."""


@dataclass(frozen=True)
class _Step:
    """A group that is minimised away, and the groups that the table left depends on, ascending."""

    group: int
    others: tuple[int, ...]


class Elimination:
    """An order in which groups are minimised away, for tables over the same groups with any values.

    Attributes:
        steps: one for each group, in order.
    """

    def __init__(self, sizes: Sequence[int], scopes: Collection[tuple[int, ...]], most_cells: int = MOST_CELLS) -> None:
        """Find an order.

        Args:
            sizes: how many options each group has.
            scopes: which groups, ascending, each table depends on.
            most_cells: of a table on the way.

        Raises:
            ValueError: some table on the way would be larger.
        """
        self.sizes = tuple(sizes)
        beside: list[set[int]] = [set() for _ in sizes]
        for scope in scopes:
            for group in scope:
                beside[group].update(scope)
        self.steps: list[_Step] = []
        waiting = set(range(len(sizes)))
        while waiting:
            cells = {group: prod(sizes[one] for one in beside[group] | {group}) for group in waiting}
            group = min(waiting, key=lambda one: (cells[one], one))
            if cells[group] > most_cells:
                raise ValueError(f"a table of {cells[group]} cells would be needed")
            waiting.remove(group)
            others = beside[group] - {group}
            for other in others:
                beside[other] = (beside[other] | others) - {group}
            self.steps.append(_Step(group, tuple(sorted(others))))

    def least(self, tables: Sequence[tuple[tuple[int, ...], Floats]]) -> tuple[float, Ints]:
        """The least that tables add up to, and the options that reach it.

        Args:
            tables: groups, ascending and among the scopes, and a value for each combination of their options; infinite
                where it is not allowed.
        """
        constant = 0.0
        left: list[tuple[tuple[int, ...], Floats]] = []
        for scope, values in tables:
            if scope:
                left.append((scope, values))
            else:
                constant += float(values)
        taken: list[Ints] = []
        for step in self.steps:
            axes = (*step.others, step.group)
            total = np.zeros([self.sizes[group] for group in axes])
            for scope, values in left:
                if step.group in scope:
                    total += _spread(scope, values, axes)
            left = [(scope, values) for scope, values in left if step.group not in scope]
            taken.append(total.argmin(axis=-1))
            fewest = total.min(axis=-1)
            if step.others:
                left.append((step.others, fewest))
            else:
                constant += float(fewest)
        choice: Ints = np.zeros(len(self.sizes), dtype=np.int64)
        for step, best in zip(reversed(self.steps), reversed(taken), strict=True):
            choice[step.group] = best[tuple(choice[group] for group in step.others)]
        return constant, choice


def _spread(scope: tuple[int, ...], values: Floats, axes: tuple[int, ...]) -> Floats:
    """A table laid out along these axes, of length one where it does not depend on them."""
    order = [scope.index(group) for group in axes if group in scope]
    lengths = [values.shape[scope.index(group)] if group in scope else 1 for group in axes]
    laid: Floats = values.transpose(order).reshape(lengths)
    return laid
