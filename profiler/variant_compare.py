"""The numbers of an exported graph that follow the groups' widths, told by comparing it with graphs at other widths.

A number that differs between the graphs grows with some axis of the traced run, and the widths are chosen so that no
two axes shrink alike:

    number(w) / number(full) = length(w) / length(full)        for one and the same axis at all widths exported
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lut.program import Axis
from lut.records import ChannelGroup, Coordinate
from profiler.export import own_names
from profiler.groups import axes_of
from profiler.network import Network
from profiler.variant_sizes import OUTPUT, Number, Place, Row, Sized, VariantError, Widths, row_of

COMPARED_MOST = 4
"""Export at so many other widths at most."""

DRAWS = 30
"""Look so often for widths that tell all axes apart before one more export is called for."""

RUNS_MOST = 16
"""Of an axis that changes from group to group more often than this, parts are not looked at."""

Ratios = tuple[Fraction, ...]
"""Of a length at each of a few widths to its length at full widths."""


def lengths(network: Network) -> list[Coordinate]:
    """Every different way in which an axis of the run, or a part of one from its beginning, follows the widths."""
    numbers = {value: value for value in range(len(network.trace.values))}
    axes = axes_of(network.structure, network.structure.reading, numbers)
    sizes = {group.name: group.size for group in network.groups}
    unique = {id(axis): axis for dims in axes.values() for axis in dims.values()}
    found: dict[tuple[Any, ...], Coordinate] = {}
    for axis in unique.values():
        for coordinate in _parts(axis, sizes):
            full = coordinate.at(network.widths)
            ratio = (*((name, Fraction(each, full)) for name, each in coordinate.terms),)
            found.setdefault(ratio, coordinate)
    return list(found.values())


def _parts(axis: Axis, sizes: Widths) -> Iterator[Coordinate]:
    """The length of an axis, and where along it one group's choices end and another's begin."""
    ends = [*(np.flatnonzero(np.diff(axis.group)) + 1).tolist(), len(axis.group)]
    if len(ends) > RUNS_MOST:
        ends = ends[-1:]
    for start, end in [*((0, end) for end in ends), *pairwise(ends)]:
        numbers, counts = np.unique(axis.group[start:end], return_counts=True)
        by_group = {axis.groups[n]: int(c) for n, c in zip(numbers, counts, strict=True) if n >= 0}
        if by_group and all(count % sizes[name] == 0 for name, count in by_group.items()):
            terms = tuple(sorted((name, count // sizes[name]) for name, count in by_group.items()))
            yield Coordinate(terms, end - start - sum(by_group.values()))


@dataclass(frozen=True)
class Comparison:
    """The full widths, others to export at, and which axis shrinks by which ratios at these."""

    full: Widths
    widths: tuple[Widths, ...]
    length_of: Mapping[Ratios, Coordinate]


def choose_widths(network: Network, seed: int = 0) -> Comparison:
    """Find as few widths as tell all axes apart.

    Raises:
        VariantError: there are none (many groups of two or three choices each).
    """
    groups = sorted((group for group in network.groups if group.size > 1), key=lambda group: group.size)
    wanted = [c for c in lengths(network) if any(network.widths[name] > 1 for name, _ in c.terms)]
    generator = np.random.default_rng(seed)
    for count in range(1, COMPARED_MOST + 1):
        for _ in range(DRAWS):
            drawn = _draw(groups, count, generator)
            if drawn is None:
                break
            widths = tuple(network.widths | {name: own[n] for name, own in drawn.items()} for n in range(count))
            length_of = {_ratios(coordinate, network.widths, widths): coordinate for coordinate in wanted}
            if len(length_of) == len(wanted) and (Fraction(1),) * count not in length_of:
                return Comparison(network.widths, widths, length_of)
    raise VariantError(f"no {COMPARED_MOST} widths tell the {len(wanted)} lengths of the network apart")


def _draw(
    groups: Sequence[ChannelGroup], count: int, generator: np.random.Generator
) -> dict[str, tuple[int, ...]] | None:
    """For each group as many widths as asked for, no two groups in the same ratios to their sizes."""
    used = {(Fraction(1),) * count}
    drawn: dict[str, tuple[int, ...]] = {}
    for group in groups:
        for _ in range(20 * DRAWS):
            lowest = max(1, group.size // 4)
            own = tuple(generator.integers(lowest, group.size + (count > 1), size=count).tolist())
            ratios = tuple(Fraction(width, group.size) for width in own)
            if ratios not in used:
                break
        else:
            return None
        used.add(ratios)
        drawn[group.name] = own
    return drawn


def _ratios(coordinate: Coordinate, full: Widths, widths: Sequence[Widths]) -> Ratios:
    return tuple(Fraction(coordinate.at(each), coordinate.at(full)) for each in widths)


def some_removal(network: Network, widths: Widths, seed: int = 0) -> dict[str, Collection[int]]:
    """A random removal that leaves these widths."""
    generator = np.random.default_rng(seed)
    return {
        name: sorted(generator.choice(size, size=size - widths[name], replace=False).tolist())
        for name, size in network.widths.items()
        if widths[name] < size
    }


@dataclass(frozen=True)
class _Reading:
    """A graph taken apart: what does not hang on widths, and the constants, integers and output shapes in it."""

    skeleton: Sequence[tuple[Any, ...]]
    constants: Mapping[Place, NDArray[Any]]


def _read(graph: onnx.GraphProto, own: Collection[str]) -> _Reading:
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in own}
    made: dict[str, Any] = {item.name: ("input", number) for number, item in enumerate(graph.input)}
    skeleton: list[tuple[Any, ...]] = []
    constants: dict[Place, NDArray[Any]] = {}
    for number, node in enumerate(graph.node):
        parts: list[Any] = [node.domain, node.op_type]
        for position, name in enumerate(node.input):
            parts.append(None if name in tensors else made.get(name, name))
            if name in tensors:
                constants[number, position] = numpy_helper.to_array(tensors[name])
        for attribute in node.attribute:
            if attribute.type in {onnx.AttributeProto.INT, onnx.AttributeProto.INTS}:
                value = attribute.i if attribute.type == onnx.AttributeProto.INT else list(attribute.ints)
                constants[number, attribute.name] = np.asarray(value, dtype=np.int64)
                parts.append(attribute.name)
            else:
                parts.append(attribute.SerializeToString())
        skeleton.append(tuple(parts))
        made.update((name, (number, position)) for position, name in enumerate(node.output) if name)
    for number, output in enumerate(graph.output):
        dims = [dimension.dim_value for dimension in output.type.tensor_type.shape.dim]
        constants[OUTPUT, number] = np.asarray(dims, dtype=np.int64)
    return _Reading(skeleton, constants)


def sizes_by_comparing(
    network: Network, graph: onnx.GraphProto, others: Sequence[onnx.GraphProto], comparison: Comparison
) -> tuple[Sized, ...]:
    """What differs between the graph and the same network's at other widths.

    Args:
        network: the full one.
        graph: at full widths.
        others: at the widths of `comparison`.
        comparison: from `choose_widths`.

    Raises:
        VariantError: the graphs differ in more than numbers, or a number follows no axis.
    """
    own = own_names(network.model)
    base, readings = _read(graph, own), [_read(other, own) for other in others]
    for reading in readings:
        if reading.skeleton != base.skeleton or set(reading.constants) != set(base.constants):
            raise VariantError("the exporter writes other nodes at other widths")
    sized = [
        _compared(
            place, [reading.constants[place] for reading in (base, *readings)], comparison, _described(graph, place)
        )
        for place in base.constants
    ]
    return tuple(each for each in sized if each is not None)


def _compared(place: Place, arrays: Sequence[NDArray[Any]], comparison: Comparison, where: str) -> Sized | None:
    """What one constant follows, or None where it is the same in all graphs."""
    base, *others = arrays
    if any(other.shape != base.shape for other in others):
        numbers = _numbers([np.asarray(array.shape) for array in arrays], comparison, where)
        return Sized(place, numbers, base.shape, _row(arrays, comparison, where))
    if all(np.array_equal(other, base, equal_nan=base.dtype.kind == "f") for other in others):
        return None
    if base.dtype.kind != "i":
        raise VariantError(f"a number in {where} follows the widths, but counts nothing")
    return Sized(place, _numbers(arrays, comparison, where), base.shape)


def _row(arrays: Sequence[NDArray[Any]], comparison: Comparison, where: str) -> Row:
    """What stands in constants of several sizes."""
    rows = [row for row in map(row_of, arrays) if row is not None]
    steps = {row.step for row, array in zip(rows, arrays, strict=False) if array.size > 1}
    if len(rows) < len(arrays) or len(steps) > 1:
        raise VariantError(f"a table in {where} follows the widths")
    first, step = rows[0].first, max(steps, default=0)
    if all(row.first == first for row in rows):
        return Row(first, step=step)
    if first.dtype.kind != "i":
        raise VariantError(f"a table in {where} follows the widths")
    return Row(first, _numbers([row.first for row in rows], comparison, where)[0], step)


def _numbers(arrays: Sequence[NDArray[Any]], comparison: Comparison, where: str) -> tuple[Number, ...]:
    series = zip(*(array.reshape(-1).tolist() for array in arrays), strict=True)
    return tuple(_number(each, comparison, where) for each in series)


def _number(series: Sequence[int], comparison: Comparison, where: str) -> Number:
    """The number that takes these values at full widths and at the others."""
    full, *others = series
    if all(other == full for other in others):
        return Number(full)
    length = comparison.length_of.get(tuple(Fraction(other, full) for other in others)) if full else None
    if length is None:
        raise VariantError(f"a number in {where} follows the widths in no way that the trace knows")
    return Number(full, length, length.at(comparison.full))


def _described(graph: onnx.GraphProto, place: Place) -> str:
    node, position = place
    return f"output {position}" if node == OUTPUT else f"{graph.node[node].op_type} {graph.node[node].name}"
