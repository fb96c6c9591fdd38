"""What is left of a form's values once channels are gone: masks, lengths, shapes, and axes counted anew."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut.program import Axis, Form, Growing, Length, Ref, Shape

Mask = NDArray[np.bool_]


class Remains:
    """One form at one removal."""

    def __init__(self, form: Form, remove: Mapping[str, Collection[int]]) -> None:
        self.form = form
        self.gone = {group: np.asarray(sorted(choices), np.int64) for group, choices in remove.items() if choices}
        self.masks: dict[int, Mask | None] = {}
        self.constants: dict[int, NDArray[Any]] = dict(form.constants)
        self.fresh = max([*form.shapes, *form.constants], default=-1) + 1

    def kept(self, value: int, dimension: int) -> Mask | None:
        """Which positions stay along a dimension; None where all do."""
        axes = self.form.axes.get(value)
        axis = axes.get(dimension) if axes else None
        if axis is None:
            return None
        if id(axis) not in self.masks:
            stays = np.ones(len(axis.group), dtype=bool)
            for number, name in enumerate(axis.groups):
                if name in self.gone:
                    stays &= ~((axis.group == number) & np.isin(axis.choice, self.gone[name]))
            self.masks[id(axis)] = None if stays.all() else stays
        return self.masks[id(axis)]

    def length(self, value: int, dimension: int) -> Length:
        """What is left of a dimension."""
        old = self.form.shapes[value][dimension]
        kept = self.kept(value, dimension)
        if kept is None:
            return old
        left = int(kept.sum())
        if isinstance(old, Growing):
            return Growing(left, old.more * left // old.base)
        return left

    def shape(self, value: int) -> Shape:
        """What is left of a value's shape."""
        return tuple(self.length(value, dimension) for dimension in range(len(self.form.shapes[value])))

    def constant(self, array: NDArray[Any]) -> Ref:
        """A new value with these contents."""
        self.constants[self.fresh] = array
        self.fresh += 1
        return Ref(self.fresh - 1)

    def axis(self, axis: Axis, value: int, dimension: int) -> Axis | None:
        """What is left of an axis, choices counted anew."""
        kept = self.kept(value, dimension)
        group = axis.group if kept is None else axis.group[kept]
        choice = axis.choice if kept is None else axis.choice[kept]
        for number, name in enumerate(axis.groups):
            if name in self.gone:
                own = group == number
                choice = np.where(own, choice - np.searchsorted(self.gone[name], choice), choice)
        return Axis(axis.groups, group, choice)
