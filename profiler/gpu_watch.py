"""What happened to a GPU while something was timed: throttling, clocks, temperature, power, and who else used it.

It knows no NVML: what looks at the GPU and the clock are arguments (`profiler/nvml.py` has the real ones).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

THROTTLING = {
    "power cap": 0x4,
    "hardware slowdown": 0x8,
    "sync boost": 0x10,
    "software thermal": 0x20,
    "hardware thermal": 0x40,
    "power brake": 0x80,
}
"""Reasons that slow a GPU against its will, and their bits among NVML's clocks event reasons."""
HELD_BY_SETTING = 0x2
"""The bit that says: clocks are what somebody set them to (locked, or application clocks)."""


@dataclass(frozen=True)
class GpuReading:
    """One look at a GPU; each figure is None where the GPU does not tell it.

    Attributes:
        throttled_ns: since the driver was loaded, by reason (of `THROTTLING`); only those that are told.
        reasons: NVML's clocks event reasons at this moment, a bit mask.
        sm_mhz, temperature_c, power_w: at this moment.
        processes: ids of the processes that compute on it (in a container they may be the host's numbers).
        failure: why it tells nothing any more ("GPU is lost" …), or None.
    """

    throttled_ns: tuple[tuple[str, int], ...] = ()
    reasons: int | None = None
    sm_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    processes: tuple[int, ...] | None = None
    failure: str | None = None


@dataclass(frozen=True)
class GpuWindow:
    """What a GPU told over a window of time; each figure is None (or absent) where it does not tell it.

    Attributes:
        seconds: how long the window was.
        throttled_us: how long clocks were held down meanwhile, by reason: differences of counters, so that what
            happened between two looks counts too. Only the reasons that are told; those overlap, so they do not add up.
        reasons: of `THROTTLING`, those that were active at one of the looks.
        sm_mhz_min, sm_mhz_max: over the looks.
        temperature_c, power_w: the highest seen.
        other_processes: the most that computed on it beside this one (which is taken to be one of those listed).
        held_by_setting: whether clocks stood where somebody set them at every look.
        looks: how many there were.
        failure: why the GPU stopped telling in the window ("GPU is lost" …), or None.
    """

    seconds: float
    throttled_us: tuple[tuple[str, float], ...] = ()
    reasons: tuple[str, ...] | None = None
    sm_mhz_min: float | None = None
    sm_mhz_max: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    other_processes: int | None = None
    held_by_setting: bool | None = None
    looks: int = 0
    failure: str | None = None

    @property
    def throttled_share(self) -> float | None:
        """The largest share of the window in which one reason held clocks down; None where no counter is told."""
        if not self.throttled_us or self.seconds <= 0:
            return None
        return min(max(spent for _, spent in self.throttled_us) / (self.seconds * 1e6), 1.0)

    @property
    def locked_clocks_mhz(self) -> float | None:
        """The clock, where it was held by a setting and never moved; else None."""
        return self.sm_mhz_min if self.held_by_setting and self.sm_mhz_min == self.sm_mhz_max else None


class GpuWatch:
    """Watches one window after another: `begin`, any number of `look`, `end`."""

    def __init__(self, read: Callable[[], GpuReading], *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Take what looks at the GPU, which must not raise (`profiler.nvml.Gpu.read`), and a clock in seconds."""
        self._read, self._clock = read, clock
        self._start = 0.0
        self._readings: list[GpuReading] = []

    def begin(self) -> None:
        """Open a window; one that is open is forgotten."""
        self._readings = [self._read()]
        self._start = self._clock()

    def look(self) -> None:
        """Look in between, so that clocks and temperature are seen under load (a tenth of a millisecond or so)."""
        self._readings.append(self._read())

    def end(self) -> GpuWindow:
        """Close the window."""
        seconds = self._clock() - self._start
        self._readings.append(self._read())
        return summarise(self._readings, seconds)


def summarise(readings: list[GpuReading], seconds: float) -> GpuWindow:
    """What the looks of one window say together, in their order; those that failed only give the failure."""
    told = [reading for reading in readings if reading.failure is None]
    masks = [reading.reasons for reading in told if reading.reasons is not None]
    clocks = [reading.sm_mhz for reading in told if reading.sm_mhz is not None]
    counts = [len(reading.processes) for reading in told if reading.processes is not None]
    return GpuWindow(
        seconds=seconds,
        throttled_us=_differences(told[0], told[-1]) if len(told) > 1 else (),
        reasons=tuple(name for name, bit in THROTTLING.items() if any(mask & bit for mask in masks)) if masks else None,
        sm_mhz_min=min(clocks, default=None),
        sm_mhz_max=max(clocks, default=None),
        temperature_c=max((item.temperature_c for item in told if item.temperature_c is not None), default=None),
        power_w=max((item.power_w for item in told if item.power_w is not None), default=None),
        other_processes=max(max(counts) - 1, 0) if counts else None,
        held_by_setting=all(mask & HELD_BY_SETTING for mask in masks) if masks else None,
        looks=len(told),
        failure=next((reading.failure for reading in readings if reading.failure is not None), None),
    )


def _differences(first: GpuReading, last: GpuReading) -> tuple[tuple[str, float], ...]:
    """Microseconds between two looks, by reason; one that ran backwards tells nothing (the driver was reloaded)."""
    before = dict(first.throttled_ns)
    return tuple(
        (reason, (after - before[reason]) / 1e3)
        for reason, after in last.throttled_ns
        if reason in before and after >= before[reason]
    )
