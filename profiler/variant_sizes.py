"""The numbers of an exported graph that follow the groups' widths: sizes, counts, places where a slice begins.

They are told by values here: what a reshape makes is a value that the trace knows, and with it how long it is at any
widths. What cannot be told so is told by comparing graphs (`variant_compare`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lut.errors import LatpruneError
from lut.records import Coordinate
from profiler.export import own_names
from profiler.network import Network

SIZED = {"Reshape": 1, "Expand": 1, "Split": 1}
"""Operations that take a size as an input, and which input it is."""

OUTPUT = -1
"""Stands for the graph itself where a node's number is asked for; the place is the number of the graph's output."""

Widths = Mapping[str, int]
Place = tuple[int, int | str]
"""A node's number in the graph, and which of its inputs (a number) or attributes (a name) it is."""


class VariantError(LatpruneError):
    """The exported graph holds a size that cannot be rewritten; the network must be exported anew for each width."""


@dataclass(frozen=True)
class Number:
    """A number that stands in the graph, and the length in proportion to which it shrinks; None where it is fixed."""

    full: int
    length: Coordinate | None = None
    length_full: int = 1

    def at(self, widths: Widths) -> int:
        """The number at the groups' widths.

        Raises:
            VariantError: it would be a fraction there.
        """
        if self.length is None:
            return self.full
        number, rest = divmod(self.full * self.length.at(widths), self.length_full)
        if rest:
            raise VariantError(f"a size of {self.full} in the graph would be no whole number at these widths")
        return number


@dataclass(frozen=True)
class Row:
    """A constant of any size: its first element, and how much is added from each to the next.

    Attributes:
        first: the element at full widths, which gives the type.
        begin: the number that it is, where it follows the widths, else None.
        step: zero where all elements are equal.
    """

    first: NDArray[Any]
    begin: Number | None = None
    step: int = 0

    def at(self, widths: Widths, shape: Sequence[int]) -> NDArray[Any]:
        """The constant in this shape, at the groups' widths."""
        first = self.first if self.begin is None else np.asarray(self.begin.at(widths), dtype=self.first.dtype)
        if not self.step:
            return np.broadcast_to(first, shape)
        row: NDArray[Any] = first + self.step * np.arange(prod(shape), dtype=first.dtype)
        return row.reshape(shape)


@dataclass(frozen=True)
class Sized:
    """One place in the graph whose numbers follow the widths.

    Attributes:
        place: where.
        numbers: the contents, or the shape of a row of equal or evenly growing elements.
        shape: of the contents.
        row: what stands in that shape, or None.
    """

    place: Place
    numbers: tuple[Number, ...]
    shape: tuple[int, ...]
    row: Row | None = None

    def at(self, widths: Widths) -> NDArray[Any]:
        """What stands there at the groups' widths."""
        numbers = [number.at(widths) for number in self.numbers]
        if self.row is not None:
            return self.row.at(widths, numbers)
        return np.asarray(numbers, dtype=np.int64).reshape(self.shape)


def sizes_by_values(network: Network, graph: onnx.GraphProto, value_of: Mapping[str, int]) -> tuple[Sized, ...]:
    """What the values tell that were recognised.

    Raises:
        VariantError: a size is that of a value which the trace does not know.
    """
    if not network.widths:
        return ()
    known = _Known(network, graph, value_of)
    found: list[Sized] = []
    for number, node in enumerate(graph.node):
        if node.op_type in SIZED:
            found.extend(known.size(number, node))
        elif node.op_type in {"Conv", "ConvTranspose"}:
            found.extend(known.convolution(number, node))
    for number, output in enumerate(graph.output):
        if output.name in value_of:
            rank = len(output.type.tensor_type.shape.dim)
            numbers = [known.length(output.name, dimension, f"output {number}") for dimension in range(rank)]
            found.append(Sized((OUTPUT, number), tuple(numbers), (rank,)))
    return tuple(sized for sized in found if any(number.length for number in sized.numbers))


class _Known:
    """What the trace knows of a graph's values."""

    def __init__(self, network: Network, graph: onnx.GraphProto, value_of: Mapping[str, int]) -> None:
        own = own_names(network.model)
        self.network, self.value_of = network, value_of
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in own}
        self.parameters = network.structure.parameter_coordinates()

    def length(self, name: str, dimension: int, where: str) -> Number:
        """How long a value's dimension is."""
        if name not in self.value_of:
            raise VariantError(f"the size in {where} is not one that the trace knows")
        value = self.value_of[name]
        coordinate = self.network.structure.coordinate(value, dimension)
        full = coordinate.at(self.network.widths)
        if full != self.network.trace.values[value].shape[dimension]:
            raise VariantError(f"the size in {where} hangs on which channels go, not on how many")
        return Number(full, coordinate, full) if coordinate.terms else Number(full)

    def size(self, number: int, node: onnx.NodeProto) -> Iterator[Sized]:
        """The size that an operation is given."""
        position = SIZED[node.op_type]
        if len(node.input) <= position or node.input[position] not in self.constants:
            return
        count, where = self.constants[node.input[position]].dims[0], f"{node.op_type} {node.name}"
        if node.op_type == "Split":
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            sizes = [self.length(output, axis, where) for output in node.output]
        else:
            sizes = [self.length(node.output[0], dimension, where) for dimension in range(count)]
        yield Sized((number, position), tuple(sizes), (count,))

    def convolution(self, number: int, node: onnx.NodeProto) -> Iterator[Sized]:
        """The number of groups, and the bias of zeros that the exporter gives to a convolution without one."""
        where = f"{node.op_type} {node.name}"
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        within = self.parameters.get(node.input[1], ())[1:2]
        if groups > 1 and not any(coordinate.terms for coordinate in within):
            channels = self.length(node.input[0] if node.op_type == "Conv" else node.output[0], 1, where)
            yield Sized((number, "group"), (replace(channels, full=groups),), ())
        bias = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None:
            row = row_of(numpy_helper.to_array(bias))
            if row is None or row.step:
                raise VariantError(f"the bias of {where} is not a parameter of the network")
            yield Sized((number, 2), (self.length(node.output[0], 1, where),), (), row)


def row_of(array: NDArray[Any]) -> Row | None:
    """How a constant goes on from element to element, if evenly; None where it does not."""
    flat = array.reshape(-1)
    if not flat.size:
        return None
    if bool((flat == flat[0]).all()):
        return Row(flat[0])
    steps = np.diff(flat) if array.dtype.kind == "i" else flat[:0]
    return Row(flat[0], step=int(steps[0])) if steps.size and bool((steps == steps[0]).all()) else None
