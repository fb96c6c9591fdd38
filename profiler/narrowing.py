"""What the operations of a form look like once channels are gone: sizes, slices, splits and indices follow what stays.

Every size is counted from what is left along the value's own axes, whatever Python expression made it. Numbers that do
not count channels (attention's 1/√d, a correlation's scale) keep the value that they had at full width.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut.program import Axis, Form, Growing, Length, Operation, Program, Ref, Shape

SIZES = {
    "view": 1, "_unsafe_view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_full": 1,
    "new_empty": 1, "zeros": 0, "ones": 0, "full": 0, "empty": 0, "rand": 0, "randn": 0,
}  # fmt: skip
"""Operations that take their output's size, and which argument it is."""

SPLITS = frozenset("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk".split())

Mask = NDArray[np.bool_]


class _Narrowing:
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


def _dimension(operation: Operation, position: int, rank: int, default: int = 0) -> int:
    """An operation's argument that names a dimension."""
    given = operation.args[position] if len(operation.args) > position else operation.kwargs.get("dim", default)
    return int(given) % rank


def _with(operation: Operation, position: int, item: Any) -> Operation:
    args = list(operation.args)
    args[position] = item
    return replace(operation, args=tuple(args))


def _sized(operation: Operation, at: _Narrowing) -> Operation:
    position, output = SIZES[operation.kind], operation.outputs[0]
    if output is None or len(operation.args) <= position or not isinstance(operation.args[position], list | tuple):
        return operation
    lengths = list(at.shape(output))
    if operation.kind == "expand":  # a length of -1 keeps what the tensor has
        asked = operation.args[position]
        lengths = [-1 if old == -1 else new for old, new in zip(asked, lengths, strict=True)]
    return _with(operation, position, lengths)


def _split(operation: Operation, at: _Narrowing) -> Operation:
    source = operation.args[0].index
    dimension = _dimension(operation, 2, len(at.form.shapes[source]))
    sizes = [at.length(output, dimension) for output in operation.outputs if output is not None]
    if at.kept(source, dimension) is None:
        return operation
    return replace(
        operation, name="aten.split_with_sizes.default", args=(operation.args[0], sizes, dimension), kwargs={}
    )


def _slice(operation: Operation, at: _Narrowing) -> Operation:
    source, output = operation.args[0].index, operation.outputs[0]
    dimension = _dimension(operation, 1, len(at.form.shapes[source]))
    kept = at.kept(source, dimension)
    if kept is None or output is None:
        return operation
    start, end, step = (*operation.args[2:5], None, None, None)[:3]
    positions = np.arange(len(kept))[slice(start, end, step)]
    rank = np.cumsum(kept) - 1
    left = rank[positions[kept[positions]]]
    if step in (None, 1):
        first = int(kept[: positions[0]].sum()) if len(positions) else 0
        return replace(operation, args=(operation.args[0], dimension, first, first + len(left), 1), kwargs={})
    return _gathered(operation, at, dimension, left)


def _gathered(operation: Operation, at: _Narrowing, dimension: int, positions: NDArray[np.int64]) -> Operation:
    """The operation as a choice of positions along one dimension."""
    args = (operation.args[0], dimension, at.constant(positions))
    return replace(operation, name="aten.index_select.default", args=args, kwargs={})


def _select(operation: Operation, at: _Narrowing) -> Operation:
    source = operation.args[0].index
    dimension = _dimension(operation, 1, len(at.form.shapes[source]))
    kept = at.kept(source, dimension)
    if kept is None:
        return operation
    return _with(operation, 2, int(kept[: int(operation.args[2]) % len(kept)].sum()))


def _roll(operation: Operation, at: _Narrowing) -> Operation:
    source, shifts = operation.args[0].index, operation.args[1]
    rank = len(at.form.shapes[source])
    dims = operation.args[2] if len(operation.args) > 2 else []
    moved = []
    for shift, dimension in zip(shifts, dims, strict=False):
        kept = at.kept(source, dimension % rank)
        moved.append(shift if kept is None else int(kept[len(kept) - shift % len(kept) :].sum()))
    return _with(operation, 1, moved) if moved else operation


def _chosen(
    operation: Operation, at: _Narrowing, dimension: int, index: Ref, place: Callable[[Ref], Any], position: int
) -> Operation:
    """An index along a dimension that loses positions: what stays is counted anew."""
    source, output = operation.args[0].index, operation.outputs[0]
    kept, known = at.kept(source, dimension), at.constants.get(index.index)
    if kept is None or known is None or output is None:
        return operation
    for own in range(known.ndim):
        stays = at.kept(output, dimension + own)
        if stays is not None:
            known = known.compress(stays, axis=own)
    return _with(operation, position, place(at.constant((np.cumsum(kept) - 1)[known])))


def _pad(operation: Operation, at: _Narrowing) -> Operation:
    """What is padded goes with the channels that it meets; a negative amount takes away what is there."""
    source, output, amounts = operation.args[0].index, operation.outputs[0], list(operation.args[1])
    if output is None:
        return operation
    rank = len(at.form.shapes[source])
    for place, amount in enumerate(amounts):
        dimension, behind = rank - 1 - place // 2, place % 2
        kept = at.kept(output if amount > 0 else source, dimension)
        if kept is not None and amount:
            edge = kept[len(kept) - abs(amount) :] if behind else kept[: abs(amount)]
            amounts[place] = int(edge.sum()) * (1 if amount > 0 else -1)
    return _with(operation, 1, amounts)


def _index_select(operation: Operation, at: _Narrowing) -> Operation:
    dimension = _dimension(operation, 1, len(at.form.shapes[operation.args[0].index]))
    return _chosen(operation, at, dimension, operation.args[2], lambda ref: ref, 2)


def _index(operation: Operation, at: _Narrowing) -> Operation:
    indices = list(operation.args[1])
    tensors = [(dimension, item) for dimension, item in enumerate(indices) if isinstance(item, Ref)]
    if len(tensors) != 1:
        return operation
    dimension, index = tensors[0]

    def place(ref: Ref) -> list[Any]:
        return [*indices[:dimension], ref, *indices[dimension + 1 :]]

    return _chosen(operation, at, dimension, index, place, 1)


def _convolution(operation: Operation, at: _Narrowing) -> Operation:
    groups = int(operation.args[8])
    if groups == 1:
        return operation
    weight, source, output = operation.args[1].index, operation.args[0].index, operation.outputs[0]
    transposed = bool(operation.args[6])
    whole = at.length(output, 1) if transposed and output is not None else at.length(source, 1)
    part = at.length(weight, 1)
    assert isinstance(whole, int)
    assert isinstance(part, int)
    return _with(operation, 8, whole // part)


def _normalized(operation: Operation, at: _Narrowing) -> Operation:
    shape = at.shape(operation.args[0].index)
    return _with(operation, 1, list(shape[len(shape) - len(operation.args[1]) :]))


def _group_norm(operation: Operation, at: _Narrowing) -> Operation:
    args = list(operation.args)
    source, groups, old = args[0].index, int(args[6]), at.form.shapes[args[0].index][1]
    channels = at.length(source, 1)
    assert isinstance(channels, int)
    assert isinstance(old, int)
    args[4], args[6] = channels, groups if groups == 1 else groups * channels // old
    return replace(operation, args=tuple(args))


def _restrided(operation: Operation, at: _Narrowing) -> Operation:
    source, output = operation.args[0].index, operation.outputs[0]
    if output is None or at.form.shapes[source] != at.form.shapes[output] or source not in at.form.axes:
        return operation
    return replace(operation, name="aten.alias.default", args=operation.args[:1], kwargs={})


REWRITES: Mapping[str, Callable[[Operation, _Narrowing], Operation]] = {
    **dict.fromkeys(SIZES, _sized),
    **dict.fromkeys(SPLITS, _split),
    "slice": _slice,
    "select": _select,
    "roll": _roll,
    "constant_pad_nd": _pad,
    "index": _index,
    "index_select": _index_select,
    "convolution": _convolution,
    "native_layer_norm": _normalized,
    "_fused_rms_norm": _normalized,
    "native_group_norm": _group_norm,
    "as_strided": _restrided,
    "as_strided_": _restrided,
}
"""Operations whose arguments say where channels are; all others take them as they come."""


def narrow_operations(
    form: Form, remove: Mapping[str, Collection[int]]
) -> tuple[list[Operation], dict[int, Shape], dict[int, NDArray[Any]]]:
    """The form's operations without these choices, with the shapes of its values and its constants."""
    at = _Narrowing(form, remove)
    operations = [_rewritten(operation, at) for operation in form.operations]
    return operations, {value: at.shape(value) for value in form.shapes}, at.constants


def _rewritten(operation: Operation, at: _Narrowing) -> Operation:
    rewrite = REWRITES.get(operation.kind)
    return rewrite(operation, at) if rewrite else operation


def narrow_form(form: Form, remove: Mapping[str, Collection[int]]) -> Form:
    """The form without these choices of each group, and what can still go of it."""
    at = _Narrowing(form, remove)
    operations = tuple(_rewritten(operation, at) for operation in form.operations)
    axes: dict[int, dict[int, Axis]] = {}
    renewed: dict[int, Axis | None] = {}
    for value, dims in form.axes.items():
        for dimension, axis in dims.items():
            if id(axis) not in renewed:
                renewed[id(axis)] = at.axis(axis, value, dimension)
            left = renewed[id(axis)]
            if left is not None:
                axes.setdefault(value, {})[dimension] = left
    shapes = {value: at.shape(value) for value in form.shapes}
    shapes.update((value, array.shape) for value, array in at.constants.items() if value not in shapes)
    return replace(form, operations=operations, constants=at.constants, shapes=shapes, axes=axes)


def narrow_program(program: Program, remove: Mapping[str, Collection[int]]) -> Program:
    """The program without these choices of each group; choices that stay are counted anew."""
    evaluation = narrow_form(program.evaluation, remove)
    if program.training is program.evaluation or program.training is None:
        return replace(program, evaluation=evaluation, training=evaluation if program.training else None)
    return replace(program, evaluation=evaluation, training=narrow_form(program.training, remove))


def outermost(programs: Sequence[Program]) -> list[Program]:
    """The programs, each module's once, without those that lie inside another's module."""
    by_module = {program.module: program for program in programs}
    return [
        program
        for name, program in by_module.items()
        if not any(other != name and (not other or name.startswith(f"{other}.")) for other in by_module)
    ]
