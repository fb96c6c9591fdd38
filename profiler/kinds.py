"""Which choices make one group: those that stand equally often in the same dimensions of the same parameters.

Everything is counted for all choices at once; a network has tens of thousands of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lut.records import Member
from profiler.labels import Doubtful, Labels, ParameterDimension, compact

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """Choices that are alike.

    Attributes:
        where: the dimensions of parameters in which they stand.
        roots: the number of each choice among all, in order of appearance.
        members: their positions.
        frozen_because, approximate_because: what was marked, or None.
    """

    where: tuple[ParameterDimension, ...]
    roots: Integers
    members: tuple[Member, ...]
    frozen_because: str | None
    approximate_because: str | None


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that look random, the same for the same (the finaliser of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def multiplicities(layers: Iterable[Tensor], roots: Integers) -> Integers:
    """For each root a number that tells how often it stands in each tensor: equal for equal counts."""
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    mixed = np.zeros(int(roots.max()) + 1, dtype=np.uint64)
    for layer in layers:
        small = compact(layer)
        key = (small.data_ptr(), tuple(small.shape), small.stride())
        if key in seen:
            continue
        seen.add(key)
        found, counts = np.unique(roots[small.reshape(-1).numpy()], return_counts=True)
        if counts.size and counts.max() > 1:
            mixed[found] = mixed[found] * np.uint64(6364136223846793005) + counts.astype(np.uint64)
    return mixed.astype(np.int64)


def _marks(marks: Sequence[tuple[Integers, str]], roots: Integers, count: int) -> tuple[Integers, list[str]]:
    """For each root the number of the first reason that marks it, or -1; and the reasons."""
    reasons = list(dict.fromkeys(reason for _, reason in marks))
    number = {reason: index for index, reason in enumerate(reasons)}
    found = np.full(count, -1, dtype=np.int64)
    for members, reason in reversed(marks):
        found[roots[members[members > 0]]] = number[reason]
    return found, reasons


class _Rows:
    """One row for each root and each dimension of a parameter in which it stands, sorted by root.

    Attributes:
        keys: the dimensions of parameters.
        key, count: of each row, which of them, and how often the root stands there.
        at: where the row's positions begin in `positions`.
        roots: each root once, in order of appearance; `first` and `many` are its first row and their number.
    """

    def __init__(self, labels: Labels, roots: Integers) -> None:
        hidden = np.unique(np.concatenate(labels.internal)) if labels.internal else np.zeros(0, np.int64)
        runs = list(labels.runs.items())
        starts = np.asarray([start for _, (start, _) in runs], dtype=np.int64)
        shown = [run for run, gone in zip(runs, np.isin(starts, hidden).tolist(), strict=True) if not gone]
        self.keys = [key for key, _ in shown]
        keys, names, at, counts, positions = ([np.zeros(0, np.int64)] for _ in range(5))
        passed = 0
        for number, (_, (start, length)) in enumerate(shown):
            own = roots[start : start + length]
            order = np.argsort(own, kind="stable")
            found, first, count = np.unique(own[order], return_index=True, return_counts=True)
            names.append(found)
            keys.append(np.full(len(found), number))
            at.append(first + passed)
            counts.append(count)
            positions.append(order)
            passed += length
        root = np.concatenate(names)
        order = np.argsort(root, kind="stable")
        self.positions = np.concatenate(positions)
        self.key, self.at, self.count = (np.concatenate(column)[order] for column in (keys, at, counts))
        found, first, many = np.unique(root[order], return_index=True, return_counts=True)
        appearance = np.lexsort((self.positions[self.at[first]], self.key[first]))
        self.roots, self.first, self.many = found[appearance], first[appearance], many[appearance]

    def total(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The sum over each root's rows."""
        starts = np.sort(self.first)
        return np.add.reduceat(numbers, starts)[np.searchsorted(starts, self.first)] if len(starts) else numbers

    @property
    def signature(self) -> Integers:
        """A number for each root that is the same where its rows are."""
        hashed = _mixed((self.key.astype(np.uint64) << np.uint64(32)) | self.count.astype(np.uint64))
        return self.total(hashed).astype(np.int64)

    def members(self, which: Integers) -> tuple[Member, ...]:
        """The positions of roots that are alike (by their place in `roots`)."""
        members = []
        for number in range(int(self.many[which[0]])):
            rows = self.first[which] + number
            key, count = self.keys[self.key[rows[0]]], int(self.count[rows[0]])
            where = self.positions[self.at[rows][:, None] + np.arange(count)]
            members.append(Member.from_table(key.parameter, key.dimension, where))
        return tuple(members)


def find_kinds(labels: Labels, roots: Integers, counts: Integers) -> Iterator[Kind]:
    """The kinds of choices, in order of appearance; what no layer makes or takes in and nobody marked is left out.

    Args:
        labels: of all traces.
        roots: for each label the number of its choice.
        counts: what `multiplicities` gave.
    """
    rows, count = _Rows(labels, roots), int(roots.max()) + 1
    frozen, why_frozen = _marks(labels.frozen, roots, count)
    certain_first = sorted(labels.approximate, key=lambda mark: isinstance(mark[1], Doubtful))
    soft, why_soft = _marks(certain_first, roots, count)
    aside = np.zeros(count, dtype=bool)
    if labels.aside:
        aside[roots[np.concatenate(labels.aside)]] = True
    layered = np.asarray([key in labels.produced or key in labels.consumed for key in rows.keys], dtype=np.int64)
    own = rows.roots
    shown = (rows.total(layered[rows.key]) > 0) | ((frozen[own] >= 0) & ~aside[own])
    told = np.stack([rows.signature, frozen[own], soft[own], np.where(frozen[own] >= 0, 0, counts[own])], axis=1)
    which = np.flatnonzero(shown)
    _, first, kind = np.unique(told[which], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(kind.reshape(-1), kind="stable")
    parts = np.split(which[order], np.cumsum(np.bincount(kind.reshape(-1), minlength=len(first)))[:-1])
    for number in np.argsort(first, kind="stable").tolist():
        part = parts[number]
        members = rows.members(part)
        root = own[part[0]]
        yield Kind(
            tuple(ParameterDimension(member.parameter, member.dimension) for member in members),
            own[part],
            members,
            why_frozen[frozen[root]] if frozen[root] >= 0 else None,
            why_soft[soft[root]] if soft[root] >= 0 else None,
        )
