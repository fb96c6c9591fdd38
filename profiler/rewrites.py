"""How single operations are rewritten once channels are gone: sizes, slices, splits and indices follow what is left.

Every size is counted from what is left along the value's own axes, whatever Python expression made it. Numbers that do
not count channels (attention's 1/√d, a correlation's scale) keep the value that they had at full width.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut.program import Operation, Ref
from profiler.remains import Remains

SIZES = {
    "view": 1, "_unsafe_view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_full": 1,
    "new_empty": 1, "zeros": 0, "ones": 0, "full": 0, "empty": 0, "rand": 0, "randn": 0,
}  # fmt: skip
"""Operations that take their output's size, and which argument it is."""

INDEXED = frozenset({"index", "index_select", "index_put", "index_put_"})
"""Operations that take indices, which are written down where they are constants."""

SPLITS = frozenset("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk".split())


def _dimension(operation: Operation, position: int, rank: int, default: int = 0) -> int:
    """An operation's argument that names a dimension."""
    given = operation.args[position] if len(operation.args) > position else operation.kwargs.get("dim", default)
    return int(given) % rank


def _with(operation: Operation, position: int, item: Any) -> Operation:
    args = list(operation.args)
    args[position] = item
    return replace(operation, args=tuple(args))


def _sized(operation: Operation, at: Remains) -> Operation:
    position, output = SIZES[operation.kind], operation.outputs[0]
    if output is None or len(operation.args) <= position or not isinstance(operation.args[position], list | tuple):
        return operation
    lengths = list(at.shape(output))
    if operation.kind == "expand":  # a length of -1 keeps what the tensor has
        asked = operation.args[position]
        lengths = [-1 if old == -1 else new for old, new in zip(asked, lengths, strict=True)]
    return _with(operation, position, lengths)


def _split(operation: Operation, at: Remains) -> Operation:
    source = operation.args[0].index
    dimension = _dimension(operation, 2, len(at.form.shapes[source]))
    sizes = [at.length(output, dimension) for output in operation.outputs if output is not None]
    if at.kept(source, dimension) is None:
        return operation
    name = f"aten.{'unsafe_' if operation.kind.startswith('unsafe') else ''}split_with_sizes.default"
    return replace(operation, name=name, args=(operation.args[0], sizes, dimension), kwargs={})


def _slice(operation: Operation, at: Remains) -> Operation:
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


def _gathered(operation: Operation, at: Remains, dimension: int, positions: NDArray[np.int64]) -> Operation:
    """The operation as a choice of positions along one dimension."""
    args = (operation.args[0], dimension, at.constant(positions))
    return replace(operation, name="aten.index_select.default", args=args, kwargs={})


def _slice_scatter(operation: Operation, at: Remains) -> Operation:
    source = operation.args[0].index
    dimension = _dimension(operation, 2, len(at.form.shapes[source]))
    kept = at.kept(source, dimension)
    start, end, step = (*operation.args[3:6], None, None, None)[:3]
    if kept is None or step not in (None, 1):
        return operation
    positions = np.arange(len(kept))[slice(start, end)]
    first = int(kept[: positions[0]].sum()) if len(positions) else 0
    args = (*operation.args[:2], dimension, first, first + int(kept[positions].sum()), 1)
    return replace(operation, args=args, kwargs={})


def _repeat(operation: Operation, at: Remains) -> Operation:
    """What is repeated along channels that go is repeated less often, or is itself shorter."""
    source, output, times = operation.args[0].index, operation.outputs[0], list(operation.args[1])
    if output is None:
        return operation
    before = [1] * (len(times) - len(at.form.shapes[source])) + list(at.shape(source))
    for dimension, (old, new) in enumerate(zip(before, at.shape(output), strict=True)):
        if at.kept(output, dimension) is not None and isinstance(old, int) and isinstance(new, int):
            times[dimension] = new // old
    return _with(operation, 1, times)


def _index_put(operation: Operation, at: Remains) -> Operation:
    """Places written by a constant index: those that stay, counted anew."""
    indices = list(operation.args[1])
    for dimension, index in enumerate(indices):
        kept = at.kept(operation.args[0].index, dimension)
        known = at.constants.get(index.index) if isinstance(index, Ref) else None
        if kept is not None and known is not None and known.ndim == 1:
            indices[dimension] = at.constant((np.cumsum(kept) - 1)[known[kept[known]]])
    return _with(operation, 1, indices)


def _select(operation: Operation, at: Remains) -> Operation:
    source = operation.args[0].index
    dimension = _dimension(operation, 1, len(at.form.shapes[source]))
    kept = at.kept(source, dimension)
    if kept is None:
        return operation
    return _with(operation, 2, int(kept[: int(operation.args[2]) % len(kept)].sum()))


def _roll(operation: Operation, at: Remains) -> Operation:
    source, shifts = operation.args[0].index, operation.args[1]
    rank = len(at.form.shapes[source])
    dims = operation.args[2] if len(operation.args) > 2 else []
    moved = []
    for shift, dimension in zip(shifts, dims, strict=False):
        kept = at.kept(source, dimension % rank)
        moved.append(shift if kept is None else int(kept[len(kept) - shift % len(kept) :].sum()))
    return _with(operation, 1, moved) if moved else operation


def _chosen(
    operation: Operation, at: Remains, dimension: int, index: Ref, place: Callable[[Ref], Any], position: int
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


def _pad(operation: Operation, at: Remains) -> Operation:
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


def _index_select(operation: Operation, at: Remains) -> Operation:
    dimension = _dimension(operation, 1, len(at.form.shapes[operation.args[0].index]))
    return _chosen(operation, at, dimension, operation.args[2], lambda ref: ref, 2)


def _index(operation: Operation, at: Remains) -> Operation:
    indices = list(operation.args[1])
    tensors = [(dimension, item) for dimension, item in enumerate(indices) if isinstance(item, Ref)]
    if len(tensors) != 1:
        return operation
    dimension, index = tensors[0]

    def place(ref: Ref) -> list[Any]:
        return [*indices[:dimension], ref, *indices[dimension + 1 :]]

    return _chosen(operation, at, dimension, index, place, 1)


def _convolution(operation: Operation, at: Remains) -> Operation:
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


def _normalized(operation: Operation, at: Remains) -> Operation:
    shape = at.shape(operation.args[0].index)
    return _with(operation, 1, list(shape[len(shape) - len(operation.args[1]) :]))


def _group_norm(operation: Operation, at: Remains) -> Operation:
    args = list(operation.args)
    source, groups, old = args[0].index, int(args[6]), at.form.shapes[args[0].index][1]
    channels = at.length(source, 1)
    assert isinstance(channels, int)
    assert isinstance(old, int)
    args[4], args[6] = channels, groups if groups == 1 else groups * channels // old
    return replace(operation, args=tuple(args))


def _restrided(operation: Operation, at: Remains) -> Operation:
    source, output = operation.args[0].index, operation.outputs[0]
    if output is None or at.form.shapes[source] != at.form.shapes[output] or source not in at.form.axes:
        return operation
    return replace(operation, name="aten.alias.default", args=operation.args[:1], kwargs={})


REWRITES: Mapping[str, Callable[[Operation, Remains], Operation]] = {
    **dict.fromkeys(SIZES, _sized),
    **dict.fromkeys(SPLITS, _split),
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "repeat": _repeat,
    "index_put": _index_put,
    "index_put_": _index_put,
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


def rewritten(operation: Operation, at: Remains) -> Operation:
    """An operation as it must be at a removal."""
    rewrite = REWRITES.get(operation.kind)
    return rewrite(operation, at) if rewrite else operation
