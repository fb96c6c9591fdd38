"""What a traced network's tensors weigh as functions of the groups' widths: the parts of which `Liveness` is made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from lut.memory import TensorBytes
from lut.records import Coordinate
from profiler.groups import Structure


def name_value(value: int) -> str:
    """What a value of the trace is called among tensors in memory."""
    return f"value {value}"


@dataclass(frozen=True)
class Extent:
    """A tensor's lengths as functions of the groups' widths, and the bytes of one element."""

    coordinates: tuple[Coordinate, ...]
    item_bytes: int

    def with_lengths(self, lengths: Mapping[int, int]) -> "Extent":
        """The same with other lengths along some dimensions (negative ones count from the last)."""
        coordinates = list(self.coordinates)
        for dimension, length in lengths.items():
            coordinates[dimension] = Coordinate((), length)
        return replace(self, coordinates=tuple(coordinates))


def whole(structure: Structure, value: int) -> Extent:
    """The extent of a value of the trace."""
    found = structure.trace.values[value]
    return Extent(tuple(structure.coordinate(value, d) for d in range(len(found.shape))), found.dtype.itemsize)


def tensor_bytes(name: str, extent: Extent, first: int, last: int) -> TensorBytes:
    """A tensor that lives from the first to the last step, both inclusive."""
    each = prod(c.constant for c in extent.coordinates if not c.terms) * extent.item_bytes
    return TensorBytes(name, each, tuple(c for c in extent.coordinates if c.terms), first, last)


def activation_bytes(structure: Structure, value: int, first: int, last: int) -> TensorBytes:
    """One value of the trace that lives from the first to the last step, both inclusive."""
    return tensor_bytes(name_value(value), whole(structure, value), first, last)


def weights_bytes(structure: Structure) -> tuple[TensorBytes, ...]:
    """Every parameter that the run read."""
    widths = structure.parameter_coordinates()
    full = {group.name: group.size for group in structure.groups}
    read = {value for step in structure.trace.steps for value in step.inputs}
    weights = []
    for number, parameter in enumerate(structure.trace.values):
        if parameter.name and parameter.trainable and number in read:
            dims = [c for c in widths.get(parameter.name, ()) if c.terms]
            each = parameter.bytes // max(1, prod(c.at(full) for c in dims))
            weights.append(TensorBytes(parameter.name, each, tuple(dims)))
    return tuple(weights)


def border_bytes(structure: Structure, leaving: Iterable[int]) -> tuple[TensorBytes, ...]:
    """The network's inputs, and its outputs as given."""
    values = dict.fromkeys([*structure.trace.inputs, *leaving])
    return tuple(activation_bytes(structure, value, 0, 0) for value in values)
