"""The records that every part of latprune passes on: units, groups, measurements, estimates, fingerprints.

All are frozen dataclasses of plain values: a record equals its copy read back from a table, and can be a key.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lut.program import Program

Basis = Literal["measured", "interpolated", "extrapolated"]
Place = Literal["in place", "corrected", "isolated"]
Attribute = tuple[str, Any]
"""A name and a plain value: a number, a string, a boolean, or a tuple of them."""
Form = tuple[str, ...]
"""What a runtime made of a unit: its kernels' names, sorted. It depends on the widths, the neighbours' among them."""


AHEAD_OF_TIME = "ahead of time"
"""Stands for the device in the fingerprint of what a compiler says with no such device at hand: memory, and no time."""


def canonical_json(value: Any) -> str:
    """Write a value as JSON that is the same on every machine and in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(value: Any) -> str:
    """Hash a JSON value to 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def freeze_value(value: Any) -> Any:
    """Turn JSON's lists into tuples, all the way down, so that the value can stand in a frozen record."""
    return tuple(freeze_value(item) for item in value) if isinstance(value, list | tuple) else value


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


@dataclass(frozen=True)
class MeasureConfig:
    """How long and how carefully to measure.

    Attributes:
        warmup_s: time spent running before the first sample is kept.
        min_time_s: least time spent sampling.
        max_time_s: most time spent sampling, whatever the noise.
        min_samples: least number of samples.
        max_samples: most samples kept.
        noise_target: stop once the noise (standard error of the median over the median) is at or under it.
        timeout_s: after this the child process is stopped, and the row is a failure.
        cache: "warm" runs back to back; "cold" evicts the caches between samples.
    """

    warmup_s: float = 0.05
    min_time_s: float = 0.2
    max_time_s: float = 2.0
    min_samples: int = 20
    max_samples: int = 2000
    noise_target: float = 0.01
    timeout_s: float = 120.0
    cache: Literal["warm", "cold"] = "warm"


@dataclass(frozen=True)
class Measurement:
    """One row of the table: a unit's time, or why there is none.

    Attributes:
        spec: what was measured.
        config: how.
        samples_ms: raw samples kept, one inference each.
        median_ms: their median, or None for a failure, and for a unit that was compiled ahead of time and never run.
        noise: standard error of the median over the median (a fraction).
        place: "in place" (inside a whole network's run), "isolated", or "corrected": isolated times that whole networks
            have set right.
        weights_bytes, activation_bytes, workspace_bytes: where the runtime tells, else None.
        clocks_mhz: clock while measuring, where known.
        discarded: samples thrown away as disturbed.
        failure: why there is no time; a failure is a row.
        kernels: what the runtime ran for the unit, each with its share of the median in ms; empty where it tells none.
    """

    spec: UnitSpec
    config: MeasureConfig
    samples_ms: tuple[float, ...]
    median_ms: float | None
    noise: float | None
    place: Place = "in place"
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    workspace_bytes: int | None = None
    clocks_mhz: float | None = None
    discarded: int = 0
    failure: str | None = None
    kernels: tuple[tuple[str, float], ...] = ()

    @property
    def memory_alone(self) -> bool:
        """Whether the row is a compiler's that tells memory and, not being a failure, no time."""
        return self.failure is None and self.median_ms is None and self.weights_bytes is not None

    @property
    def form(self) -> Form:
        """The kernels' names, sorted; empty where the runtime tells none."""
        return tuple(sorted(name for name, _ in self.kernels))


@dataclass(frozen=True)
class NetworkMeasurement:
    """The same for a whole network at given widths.

    Attributes:
        network: hash of the unpruned network's structure and input shapes.
        widths: sorted (group, channels kept) pairs.
        median_ms: of whole runs; None for a failure, and for a network that was compiled ahead of time and never run.
        units_ms: sum of the units' in-place times in the same run, or None where the runtime tells none.
        precision: of the network as a whole ("fp32" …), or None where it was not told.
        forms: (unit, form) pairs: what the runtime made of each unit at these widths; empty where it tells nothing.
        weights_bytes, activation_bytes, workspace_bytes: as a compiler announces them (the workspace lies inside the
            activations), else None.
    """

    network: str
    widths: tuple[tuple[str, int], ...]
    config: MeasureConfig
    samples_ms: tuple[float, ...]
    median_ms: float | None
    noise: float | None
    units_ms: float | None = None
    discarded: int = 0
    failure: str | None = None
    precision: str | None = None
    forms: tuple[tuple[str, Form], ...] = ()
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class Calibration:
    """What whole networks cost over the sum of their units: `scale * sum + overhead`, fitted.

    Attributes:
        scale: factor on the sum of units.
        overhead_ms: what a run costs beside its units; negative where short kernels are timed too long.
        spread: relative error of the fit on networks that it had not seen, root mean square (a fraction).
        networks: how many whole networks it was fitted from (0: nothing known, scale 1).
        stretch: what the intervals of the units' sums are multiplied by, so that nine of ten such networks lay inside.
    """

    scale: float = 1.0
    overhead_ms: float = 0.0
    spread: float = 0.0
    networks: int = 0
    stretch: float = 1.0


@dataclass(frozen=True)
class DeviceFingerprint:
    """Everything about the device and runtime that changes a time. Rows under different fingerprints never mix.

    Attributes:
        device: name of the processor or GPU, with its core count where that matters; `AHEAD_OF_TIME` for none.
        runtime: backend name; `runtime_version` its version.
        compute_capability: "8.6" …, or None where there is none.
        driver: GPU driver, or None.
        threads: of a CPU runtime, or None.
        locked_clocks_mhz: None when the clock is free.
        power_limit_w: None when unknown.
        settings: the runtime's settings that change an engine, sorted by name.
    """

    device: str
    runtime: str
    runtime_version: str
    compute_capability: str | None = None
    driver: str | None = None
    threads: int | None = None
    locked_clocks_mhz: float | None = None
    power_limit_w: float | None = None
    settings: tuple[Attribute, ...] = ()

    @cached_property
    def key(self) -> str:
        """A hash that is stable across restarts."""
        return short_hash(asdict(self))

    @property
    def ahead_of_time(self) -> bool:
        """Whether its rows are a compiler's, made with no device at hand: they tell memory and no time."""
        return self.device == AHEAD_OF_TIME

    def differences(self, other: "DeviceFingerprint") -> list[tuple[str, Any, Any]]:
        """Fields that differ, as (field, this one's, the other's)."""
        pairs = ((item.name, getattr(self, item.name), getattr(other, item.name)) for item in fields(self))
        return [(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as plain JSON."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "DeviceFingerprint":
        """The fingerprint that `to_json` wrote."""
        return DeviceFingerprint(**{item.name: freeze_value(data[item.name]) for item in fields(DeviceFingerprint)})

    def __str__(self) -> str:
        parts = [self.device, f"{self.runtime} {self.runtime_version}"]
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' if self.threads != 1 else ''}")
        if self.compute_capability:
            parts.append(f"compute capability {self.compute_capability}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Estimate:
    """A latency with what is known about it; latencies never travel as bare floats.

    `low_ms` to `high_ms` is a 90 % interval.
    """

    ms: float
    low_ms: float
    high_ms: float
    basis: Basis


@dataclass(frozen=True)
class UnitEstimate:
    """One line of a prediction."""

    unit: str
    spec: UnitSpec
    estimate: Estimate


@dataclass(frozen=True)
class Prediction:
    """A whole network's predicted latency: the calibrated sum of its units.

    Attributes:
        total: with the fitted overhead and the interval.
        units: in the network's order; uncalibrated.
        missing: units whose family the table lacks (the total then leaves them out, and says so).
        calibration: what was applied to the sum.
        guessed: units of which was guessed what the runtime makes of them at these widths.
    """

    total: Estimate
    units: tuple[UnitEstimate, ...]
    missing: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    guessed: int = 0

    def count(self, basis: Basis) -> int:
        """How many units are priced on this basis."""
        return sum(unit.estimate.basis == basis for unit in self.units)


def full_widths(groups: Iterable[ChannelGroup]) -> dict[str, int]:
    """The unpruned network's widths: every prunable group at its size."""
    return {group.name: group.size for group in groups if not group.frozen_because}
