"""Numbers baked into modules (`num_heads`, `hidden_dim` …): find those that count a group's channels.

The trace says which module was running at each operation. An integer attribute of that module which equals the length
of a dimension that pruning changes is its likely source, and follows. It is only a guess: what it leads to is tried.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from lut.records import ChannelGroup, Coordinate, SizeAttribute
from profiler.cut import SIZE_NAMES
from profiler.groups import Structure

COUNTS = re.compile(
    r"channel|feature|dim|size|width|planes|shape|heads|groups|embed|hidden|parts|chunks", re.IGNORECASE
)
"""Names of attributes that may count channels …"""

PLACES = re.compile(r"kernel|window|patch|stride|pad|dilation|image|input_size|grid|resolution", re.IGNORECASE)
"""… and of those that count pixels."""

PARTS = re.compile(r"heads|groups|parts", re.IGNORECASE)
"""Names of attributes that count the parts of which a group's choices are one each."""


def _numbers(module: nn.Module) -> Iterator[tuple[str, int, int]]:
    """The module's integers that may count channels: name, place in a tuple (or -1), value.

    Those that repeat the size of the module's own parameters are left out: cutting these lets them follow.
    """
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    followed = {length for tensor in own for length in tensor.shape}
    for name, value in vars(module).items():
        if name.startswith("_") or not COUNTS.search(name) or PLACES.search(name):
            continue
        if type(value) is int and value > 1 and not (SIZE_NAMES.search(name) and value in followed):
            yield name, -1, value
        elif isinstance(value, tuple | list):
            places = [(name, place, item) for place, item in enumerate(value) if type(item) is int and item > 1]
            yield from (number for number in places if number[2] not in followed)


def _lengths(structure: Structure) -> dict[str, dict[int, set[Coordinate]]]:
    """For each module the lengths that pruning changes, among the values that its own operations read and make."""
    found: dict[str, dict[int, set[Coordinate]]] = defaultdict(lambda: defaultdict(set))
    known: dict[int, list[tuple[int, Coordinate]]] = {}
    for step in structure.trace.steps:
        for value in (*step.inputs, *(number for number in step.outputs if number is not None)):
            if value not in known:
                shape = structure.trace.values[value].shape
                pairs = ((length, structure.coordinate(value, d)) for d, length in enumerate(shape) if length > 1)
                known[value] = [(length, coordinate) for length, coordinate in pairs if coordinate.terms]
            for length, coordinate in known[value]:
                found[step.module][length].add(coordinate)
    return found


def _followed(number: tuple[str, int, int], lengths: dict[int, set[Coordinate]], sizes: dict[str, int]) -> Coordinate:
    """The one coordinate that a module's number repeats, else a constant."""
    name, _, value = number
    if len(lengths.get(value, ())) == 1:
        return next(iter(lengths[value]))
    groups = {group for coordinates in lengths.values() for c in coordinates for group, _ in c.terms}
    counted = [group for group in groups if sizes[group] == value]
    if PARTS.search(name) and len(counted) == 1 and value not in lengths:
        return Coordinate(((counted[0], 1),))
    return Coordinate((), value)


def with_attributes(model: nn.Module, structure: Structure) -> tuple[ChannelGroup, ...]:
    """The structure's groups, each with the numbers in the model's modules that seem to count its channels."""
    sizes = {group.name: group.size for group in structure.groups}
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, list[SizeAttribute]] = defaultdict(list)
    for path, lengths in _lengths(structure).items():
        module = modules.get(path)
        if module is None or isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            continue
        for number in _numbers(module):
            for group, each in _followed(number, lengths, sizes).terms:
                found[group].append(SizeAttribute(path, number[0], number[1], each))
    return tuple(replace(group, attributes=tuple(found.get(group.name, ()))) for group in structure.groups)
