"""What a network consists of: units, each with a family and channel counts, and the groups that set these counts."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut.program import Program
from lut.records.plain import Attribute, freeze_value, short_hash


@dataclass(frozen=True)
class UnitFamily:
    """All of a unit that pruning leaves alone: one family is one surface of the table.

    Attributes:
        operation: what the anchor does ("convolution", "linear", "elementwise" …).
        precision: "fp32", "fp16", "int8" …; it stands here and nowhere else.
        inputs, outputs: the shapes that enter and leave; where a channel coordinate stands it is written "c0", "c1" ….
        attributes: the anchor's settings that change its time (kernel, stride, groups …), sorted by name.
        followers: the element-wise operations that the unit absorbs, in order.
    """

    operation: str
    precision: str
    inputs: tuple[tuple[int | str, ...], ...]
    outputs: tuple[tuple[int | str, ...], ...]
    attributes: tuple[Attribute, ...] = ()
    followers: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """A hash that is stable across restarts and machines."""
        return short_hash(self.to_json())

    @property
    def coordinates(self) -> int:
        """How many channel coordinates the family has."""
        return len({size for shape in self.inputs + self.outputs for size in shape if isinstance(size, str)})

    def to_json(self) -> dict[str, Any]:
        """The family as plain JSON."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "UnitFamily":
        """The family that `to_json` wrote."""
        return UnitFamily(**{item.name: freeze_value(data[item.name]) for item in fields(UnitFamily)})

    def __str__(self) -> str:
        shapes = " ".join("×".join(map(str, shape)) for shape in self.inputs)
        settings = " ".join(f"{name}={value}" for name, value in self.attributes)
        return " ".join(filter(None, [self.operation, shapes, settings, "+".join(self.followers), self.precision]))


@dataclass(frozen=True)
class UnitSpec:
    """A family at given channel counts: what one row of the table measures."""

    family: UnitFamily
    channels: tuple[int, ...]

    @cached_property
    def key(self) -> str:
        """A hash that is stable across restarts and machines."""
        return short_hash([self.family.key, self.channels])


@dataclass(frozen=True)
class Coordinate:
    """A channel count as a function of the groups' widths: `constant + sum(count * width[group])`.

    A concat of two groups has two terms; a flattened 7×7 map counts its group 49 times; frozen ones are the constant.
    """

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    def at(self, widths: Mapping[str, int]) -> int:
        """The channel count at the groups' widths (channels kept)."""
        return self.constant + sum(count * widths[group] for group, count in self.terms)


@dataclass(frozen=True)
class Unit:
    """What a runtime runs as one, and the groups that set its channel counts.

    Attributes:
        name: unique in the network, made of the module's name.
        family: what pruning leaves alone.
        coordinates: the channel counts, as functions of the groups' widths; as many as the family has.
        modules: qualified names of the modules that the unit covers.
        steps: indices of the trace's steps that it covers.
        macs_each: multiply-adds over the product of the coordinates (0 where the anchor is no contraction).
    """

    name: str
    family: UnitFamily
    coordinates: tuple[Coordinate, ...]
    modules: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    macs_each: float = 0.0

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that the unit's cost depends on."""
        return tuple(dict.fromkeys(group for coordinate in self.coordinates for group, _ in coordinate.terms))

    def channels(self, widths: Mapping[str, int]) -> tuple[int, ...]:
        """The unit's channel counts at the groups' widths."""
        return tuple(coordinate.at(widths) for coordinate in self.coordinates)

    def spec(self, widths: Mapping[str, int]) -> UnitSpec:
        """The row of the table that prices the unit at the groups' widths."""
        return UnitSpec(self.family, self.channels(widths))

    def macs(self, widths: Mapping[str, int]) -> float:
        """Multiply-adds of one inference at the groups' widths."""
        return self.macs_each * prod(self.channels(widths)) if self.macs_each else 0.0


@dataclass(frozen=True)
class Member:
    """Where a group's channels stand in one dimension of one parameter or buffer.

    Attributes:
        parameter: qualified name.
        dimension: of the parameter.
        indices: for each of the group's choices the positions that go with it.
    """

    parameter: str
    dimension: int
    indices: tuple[tuple[int, ...], ...]

    @classmethod
    def from_table(cls, parameter: str, dimension: int, table: NDArray[np.int64]) -> "Member":
        """The member whose positions are given as an array, `[choices, positions]`."""
        member = cls(parameter, dimension, tuple(zip(*table.T.tolist(), strict=True)))
        vars(member)["table"] = table
        return member

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """The positions as an array, `[choices, positions]`: each choice has as many as the others."""
        return np.asarray(self.indices, dtype=np.int64).reshape(len(self.indices), -1)


@dataclass(frozen=True)
class SizeAttribute:
    """A number in a module that counts a group's channels, and must follow when they go.

    Attributes:
        module, attribute: where it stands; `item` is the place in a tuple or list, or -1 for a plain integer.
        each: how much it loses for each choice that goes.
    """

    module: str
    attribute: str
    item: int
    each: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that hang together: to remove choice i, every member loses the positions tied to i.

    Attributes:
        name: deterministic, after the first layer that makes the channels.
        size: how many choices can be removed one by one; 0 when frozen.
        members: every parameter and buffer dimension concerned (of a frozen group too, with `indices` by choice).
        frozen_because: why nothing can be removed, or None.
        approximate_because: why the shrunk network is not exactly the masked one, or None.
        attributes: numbers in the network's modules that follow the group's width (`num_heads` …).
        programs: modules that are run as programs once the group is cut, for the numbers in their code cannot follow.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen_because: str | None = None
    approximate_because: str | None = None
    attributes: tuple[SizeAttribute, ...] = ()
    programs: tuple[Program, ...] = field(default=(), compare=False, repr=False)


def full_widths(groups: Iterable[ChannelGroup]) -> dict[str, int]:
    """The unpruned network's widths: every prunable group at its size."""
    return {group.name: group.size for group in groups if not group.frozen_because}
