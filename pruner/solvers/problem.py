"""What every solver is given and gives back: groups with options, and costs as sums of small tables over them.

Choose an option for each group so that the importance lost is least and every limit is kept. Nothing here knows of
torch, networks or milliseconds: `pruner/posing.py` writes a network down in this form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 1e-9
"""A limit is kept if it is exceeded by no more than this fraction: sums are not taken in one order everywhere."""


@dataclass(frozen=True)
class Table:
    """A part of a cost that depends on few groups: a value for every combination of their options.

    Attributes:
        groups: numbers of the groups, one an axis.
        values: `[options of the first, options of the second, …]`.
    """

    groups: tuple[int, ...]
    values: Floats

    def at(self, choice: Ints) -> float:
        """The value at the groups' options (`choice` is of all groups)."""
        return float(self.values[tuple(choice[group] for group in self.groups)])

    def along(self, choice: Ints, group: int) -> Floats:
        """The values at every option of one of its groups, the others as chosen."""
        along: Floats = self.values[tuple(slice(None) if own == group else choice[own] for own in self.groups)]
        return along


@dataclass(frozen=True)
class Axis:
    """A channel count to which several groups add: the width of a concat.

    Attributes:
        constant: what frozen channels add.
        groups: numbers of the groups, ascending.
        adds: for each of them what each of its options adds.
        counts: the counts at which the cost is known, ascending: all that the groups' options can add up to.
    """

    constant: int
    groups: tuple[int, ...]
    adds: tuple[Ints, ...]
    counts: Ints

    def count(self, choice: Ints) -> int:
        """The channel count at the groups' options."""
        return self.constant + sum(int(add[choice[group]]) for group, add in zip(self.groups, self.adds, strict=True))


@dataclass(frozen=True)
class Grid:
    """A part of a cost that depends on sums over many groups: a value for every combination of channel counts.

    Attributes:
        axes: the channel counts.
        values: `[counts of the first, counts of the second, …]`.
    """

    axes: tuple[Axis, ...]
    values: Floats

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Numbers of all groups concerned, ascending."""
        return tuple(sorted({group for axis in self.axes for group in axis.groups}))

    def at(self, choice: Ints) -> float:
        """The value at the groups' options."""
        places = [int(np.searchsorted(axis.counts, axis.count(choice))) for axis in self.axes]
        return float(self.values[tuple(places)])

    def along(self, choice: Ints, group: int) -> Floats:
        """The values at every option of one group, the others as chosen."""
        places: list[Ints | int] = []
        for axis in self.axes:
            count: Ints | int = axis.count(choice)
            if group in axis.groups:
                add = axis.adds[axis.groups.index(group)]
                count = count - int(add[choice[group]]) + add
            places.append(np.searchsorted(axis.counts, count))
        return np.asarray(self.values[tuple(places)], dtype=np.float64)


@dataclass(frozen=True)
class TabledCost:
    """A cost: the largest of one or several sums over parts (a peak is over steps, of what is alive at each).

    Attributes:
        name, unit: for messages.
        parts: tables and grids.
        sums: whether a part belongs to a sum, `[sums, parts]`, 0 or 1.
        constants: what each sum has beside its parts, `[sums]`.
        options: how many options each group has.
    """

    name: str
    unit: str
    parts: tuple[Table | Grid, ...]
    sums: Floats
    constants: Floats
    options: tuple[int, ...]

    @cached_property
    def touching(self) -> dict[int, Ints]:
        """For each group the numbers of the parts that depend on it."""
        found: dict[int, list[int]] = {}
        for number, part in enumerate(self.parts):
            for group in part.groups:
                found.setdefault(group, []).append(number)
        return {group: np.array(numbers) for group, numbers in found.items()}

    def _sums_at(self, choice: Ints) -> Floats:
        values = np.array([part.at(choice) for part in self.parts])
        found: Floats = self.constants + self.sums @ values
        return found

    def at(self, choice: Ints) -> float:
        """The cost at the groups' options."""
        return float(self._sums_at(choice).max())

    def along(self, choice: Ints, group: int) -> Floats:
        """The cost at every option of one group, the others as chosen."""
        return self.changes(choice, group) + self.at(choice)

    def changes(self, choice: Ints, group: int) -> Floats:
        """By how much the cost grows with each option of one group, the others as chosen; 0 at the present one."""
        touched = self.touching.get(group)
        if touched is None:
            return np.zeros(self.options[group])
        along = np.stack([self.parts[number].along(choice, group) for number in touched])
        along = along - along[:, [choice[group]]]
        if len(self.constants) == 1:
            found: Floats = self.sums[0, touched] @ along
            return found
        now = self._sums_at(choice)
        peaks: Floats = (now[:, None] + self.sums[:, touched] @ along).max(axis=0)
        return peaks - float(now.max())


@dataclass(frozen=True)
class Limit:
    """One budget: a cost and the most it may be."""

    cost: TabledCost
    most: float

    def kept(self, cost: float) -> bool:
        """Whether a cost is within the limit."""
        return cost <= self.most + ROUNDING * abs(self.most)


@dataclass(frozen=True)
class Problem:
    """A pruning problem.

    Attributes:
        losses: for each group the importance lost at each of its options; options ascend in width, the last is the
            present one and loses nothing.
        limits: the budgets.
        rank: the cost by which solvers that rank by a ratio divide.
        blocks: groups whose first options stand or fall together: the first of each is a residual block (options:
            gone, there), the others vanish with it and have a first option that means so.
    """

    losses: tuple[Floats, ...]
    limits: tuple[Limit, ...]
    rank: TabledCost
    blocks: tuple[tuple[int, ...], ...] = ()
    block_of: dict[int, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_of", {group: block for block in self.blocks for group in block})

    @property
    def start(self) -> Ints:
        """Every group at its last option."""
        return np.array([len(losses) - 1 for losses in self.losses], dtype=np.int64)

    @cached_property
    def together(self) -> tuple[frozenset[int], ...]:
        """For each group the groups whose costs depend on its option (itself among them)."""
        found = [{group} for group in range(len(self.losses))]
        for cost in {id(cost): cost for cost in (self.rank, *(limit.cost for limit in self.limits))}.values():
            for part in cost.parts:
                for group in part.groups:
                    found[group].update(part.groups)
        for block in self.blocks:
            for group in block:
                found[group].update(block)
        return tuple(frozenset(others) for others in found)

    def least(self, group: int) -> int:
        """The least option that a group may take alone: the first of what belongs to a block means that it is gone."""
        return 1 if group in self.block_of else 0

    def lost(self, choice: Ints) -> float:
        """Importance lost over all groups."""
        return float(sum(losses[option] for losses, option in zip(self.losses, choice, strict=True)))

    def exceeded(self, choice: Ints) -> list[Limit]:
        """The limits that a choice does not keep."""
        return [limit for limit in self.limits if not limit.kept(limit.cost.at(choice))]

    def solution(self, choice: Ints, moves: int, bound: float | None = None) -> "Solution":
        """Say what a choice is worth."""
        return Solution(choice, self.lost(choice), not self.exceeded(choice), moves, bound)


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        choice: the option of every group, `[groups]`.
        lost: importance lost.
        met: whether all limits are kept.
        moves: how many decisions were taken (steps, nodes of a search).
        bound: importance that every choice within the limits loses at least, where that was proved.
    """

    choice: Ints
    lost: float
    met: bool
    moves: int
    bound: float | None = None

    @property
    def gap(self) -> float | None:
        """How much less a better choice could lose, as a fraction of what this one loses; None without a proof."""
        return proved_gap(self.lost, self.bound)


def proved_gap(lost: float, bound: float | None) -> float | None:
    """How much less than `lost` could be lost, as a fraction of it; None where a bound says nothing."""
    if not lost:
        return 0.0
    return max(0.0, 1 - bound / lost) if bound else None


class Solver(Protocol):
    """A way to solve a `Problem`."""

    name: str
    ranks_by_ratio: bool

    def solve(self, problem: Problem) -> Solution:
        """Find options; a solution that is not `met` is the closest that was found."""
        ...


def within(limits: Sequence[Limit], problem: Problem) -> Problem:
    """The same problem with other limits."""
    return Problem(problem.losses, tuple(limits), problem.rank, problem.blocks)
