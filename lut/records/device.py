"""The fingerprint: everything about a device and its runtime that changes a time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from lut.records.plain import Attribute, freeze_value, short_hash

AHEAD_OF_TIME = "ahead of time"
"""Stands for the device in the fingerprint of what a compiler says with no such device at hand: memory, and no time."""


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
