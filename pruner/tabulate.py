"""Turn a cost's terms into tables over the groups' options, as solvers take them.

    few groups             a value for each combination of options                     exact
    a sum of many widths   a value for each count that the options can add up to       exact
    neither                a value for each group alone, about given widths            a first-order approximation

The third is for what joins many tensors of different groups; the widths found are priced anew, and the terms written
down again about them (`pruner/posing.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from lut.records import Coordinate
from pruner.cost import Cost, Term
from pruner.solvers.problem import Axis, Floats, Grid, Ints, Table, TabledCost

BLOCK = "block "
"""Begins the name of a block among those of groups."""
MOST_CELLS = 4096
"""Of a table over options."""
MOST_POINTS = 16384
"""Of a grid over channel counts."""
SEPARABLE = 1e-9
"""A table that is a sum of its axes' own tables up to this fraction of its largest value is written as these."""


@dataclass(frozen=True)
class Options:
    """The groups that may change, with their widths.

    Attributes:
        names: of the groups; a block is one with the widths 0 (gone) and 1 (there).
        widths: of each, ascending.
        fixed: widths of all other groups.
        gone_with: for the name of a unit or parameter the numbers of the blocks that it goes with.
        inside: for a block's number the groups that vanish with it.
    """

    names: tuple[str, ...]
    widths: tuple[Ints, ...]
    fixed: Mapping[str, int]
    gone_with: Mapping[str, tuple[int, ...]]
    inside: Mapping[int, frozenset[int]]

    @property
    def place(self) -> dict[str, int]:
        """The groups' numbers."""
        return {name: number for number, name in enumerate(self.names)}


class Tabulator:
    """Writes costs down as tables over one set of options."""

    def __init__(self, options: Options, about: Mapping[str, int]) -> None:
        """Take the options, and the widths about which what is approximated is exact."""
        self.options = options
        self.about = about
        self._place = options.place
        self.approximated = 0

    def cost(self, cost: Cost) -> TabledCost:
        """The tables of a cost; terms over the same groups that occur in the same sums become one table."""
        terms, sums = cost.terms(), cost.sums()
        members = np.zeros((len(sums), len(terms)))
        constants = np.array([each.constant for each in sums], dtype=np.float64)
        for row, each in enumerate(sums):
            members[row, list(each.terms)] = 1.0
        tables: dict[tuple[tuple[int, ...], bytes], Floats] = {}
        grids: list[tuple[Grid, Floats]] = []
        for number, term in enumerate(terms):
            column = members[:, number]
            for part in self._parts(term):
                if isinstance(part, Grid):
                    grids.append((part, column))
                    continue
                if not part.groups:
                    constants = constants + column * float(part.values)
                    continue
                place = (part.groups, column.tobytes())
                tables[place] = tables[place] + part.values if place in tables else part.values
        found: list[Table | Grid] = [Table(groups, values) for (groups, _), values in tables.items()]
        columns = [np.frombuffer(column) for _, column in tables]
        found += [grid for grid, _ in grids]
        columns += [column for _, column in grids]
        matrix = np.stack(columns, axis=1) if columns else np.zeros((len(sums), 0))
        counts = tuple(len(widths) for widths in self.options.widths)
        return TabledCost(cost.name, cost.unit, tuple(found), matrix, constants, counts)

    def _parts(self, term: Term) -> Iterable[Table | Grid]:
        groups = sorted({self._place[name] for name in term.groups if name in self._place})
        owners = self.options.gone_with.get(term.owner, ())
        blocks = [block for block in owners if not self.options.inside[block] & set(groups)]
        blocks += [self._place[BLOCK + term.instead_of]] if term.instead_of else []
        everything = sorted({*groups, *blocks})
        cells = prod(len(self.options.widths[group]) for group in everything)
        if cells <= MOST_CELLS:
            return _separated(Table(tuple(everything), self._table(term, everything)))
        grid = None if blocks else self._grid(term)
        return [grid] if grid is not None else self._about(term, everything)

    def _table(self, term: Term, groups: Sequence[int]) -> Floats:
        """The term at every combination of the groups' options."""
        shape = tuple(len(self.options.widths[group]) for group in groups)
        choice: Ints = np.indices(shape).reshape(len(groups), -1).T if groups else np.zeros((1, 0), dtype=np.int64)
        return self._at(term, groups, choice).reshape(shape)

    def _at(self, term: Term, groups: Sequence[int], choice: Ints) -> Floats:
        """The term at options `[m, groups]` of some groups, the others (and those at -1) as `about` has them, `[m]`."""
        count = len(choice)
        kept: dict[str, Ints] = {
            name: np.full(count, width, dtype=np.int64) for name, width in {**self.options.fixed, **self.about}.items()
        }
        for column, group in enumerate(groups):
            own, name = choice[:, column], self.options.names[group]
            present = self.about.get(name, 1)
            kept[name] = np.where(own < 0, present, self.options.widths[group][own])
        gone = np.zeros(count, dtype=bool)
        for block in self.options.gone_with.get(term.owner, ()):
            if block in groups:
                gone |= choice[:, list(groups).index(block)] == 0
            for inside in self.options.inside[block] & set(groups):
                gone |= choice[:, list(groups).index(inside)] == 0
        if term.instead_of:
            gone |= choice[:, list(groups).index(self._place[BLOCK + term.instead_of])] != 0
        columns = [_counts(coordinate, kept, count) for coordinate in term.coordinates]
        channels = np.stack(columns, axis=1) if columns else np.zeros((count, 0), dtype=np.int64)
        unique, places = np.unique(channels[~gone], axis=0, return_inverse=True)
        values = np.zeros(count)
        if len(unique):
            values[~gone] = term.price(unique)[places.ravel()]
        return values

    def _grid(self, term: Term) -> Grid | None:
        """The term over its channel counts, where at most one of them is a sum over several groups."""
        axes = [self._axis(coordinate) for coordinate in term.coordinates]
        wide = sum(len(axis.groups) > 1 for axis in axes)
        single = [axis.groups[0] for axis in axes if len(axis.groups) == 1]
        if wide != 1 or len(set(single)) < len(single) or prod(len(axis.counts) for axis in axes) > MOST_POINTS:
            return None
        shape = tuple(len(axis.counts) for axis in axes)
        places = np.indices(shape).reshape(len(axes), -1)
        channels = np.stack([axis.counts[own] for axis, own in zip(axes, places, strict=True)], axis=1)
        possible = (channels > 0).all(axis=1)
        values = np.zeros(len(channels))
        values[possible] = term.price(channels[possible])
        kept = [number for number, axis in enumerate(axes) if axis.groups]
        squeezed = values.reshape(shape).reshape([shape[number] for number in kept])
        return Grid(tuple(axes[number] for number in kept), squeezed)

    def _axis(self, coordinate: Coordinate) -> Axis:
        constant = coordinate.constant
        adds: dict[int, Ints] = {}
        for name, each in coordinate.terms:
            if name in self._place:
                group = self._place[name]
                adds[group] = adds.get(group, 0) + each * self.options.widths[group]
            else:
                constant += each * self.options.fixed[name]
        counts = np.array([constant], dtype=np.int64)
        for add in adds.values():
            counts = np.unique((counts[:, None] + add).ravel())
        groups = tuple(sorted(adds))
        return Axis(constant, groups, tuple(adds[group] for group in groups), counts)

    def _about(self, term: Term, groups: Sequence[int]) -> list[Table]:
        """The term as a sum of each group's own effect, the others as `about` has them."""
        self.approximated += 1
        counts = [len(self.options.widths[group]) for group in groups]
        choice = np.full((1 + sum(counts), len(groups)), -1, dtype=np.int64)
        starts = np.cumsum([1, *counts])
        for column, (start, count) in enumerate(zip(starts, counts, strict=False)):
            choice[start : start + count, column] = np.arange(count)
        values = self._at(term, groups, choice)
        here = values[0]
        return [
            Table((), np.asarray(here)),
            *(
                Table((group,), values[start : start + count] - here)
                for group, start, count in zip(groups, starts, counts, strict=False)
            ),
        ]


def _counts(coordinate: Coordinate, kept: Mapping[str, Ints], count: int) -> Ints:
    found = np.full(count, coordinate.constant, dtype=np.int64)
    for name, each in coordinate.terms:
        found = found + each * kept[name]
    return found


def _separated(table: Table) -> list[Table]:
    """A table as the sum of one over each of its groups, where it is one; solvers find these easier."""
    if len(table.groups) < 2:
        return [table]
    values = table.values
    corner = values[(0,) * values.ndim]
    own = []
    for axis in range(values.ndim):
        line = values[tuple(slice(None) if other == axis else 0 for other in range(values.ndim))]
        own.append(line - corner)
    total = corner + sum(
        part.reshape([-1 if other == axis else 1 for other in range(values.ndim)]) for axis, part in enumerate(own)
    )
    if np.abs(values - total).max() > SEPARABLE * np.abs(values).max():
        return [table]
    return [
        Table((), np.asarray(corner)),
        *(Table((group,), part) for group, part in zip(table.groups, own, strict=True)),
    ]
