"""What a traced network's tensors weigh as functions of the groups' widths: the parts of which `Liveness` is made."""

from collections.abc import Iterable
from math import prod

from lut.memory import TensorBytes
from profiler.groups import Structure


def name_value(value: int) -> str:
    """What a value of the trace is called among tensors in memory."""
    return f"value {value}"


def activation_bytes(structure: Structure, value: int, first: int, last: int) -> TensorBytes:
    """One value of the trace that lives from the first to the last step, both inclusive."""
    shape = structure.trace.values[value].shape
    coordinates = [structure.coordinate(value, d) for d in range(len(shape))]
    rest = prod(length for length, c in zip(shape, coordinates, strict=True) if not c.terms)
    each = rest * structure.trace.values[value].dtype.itemsize
    return TensorBytes(name_value(value), each, tuple(c for c in coordinates if c.terms), first, last)


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
