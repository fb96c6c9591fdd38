"""A simulated GPU whose truth is known: speed, throttling, late compilation, launch overhead, noise.

Its clock moves only when something is launched. Its telemetry goes through the real `GpuWatch`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import inf

import numpy as np

from profiler.gpu_summary import Lap
from profiler.gpu_watch import GpuReading, GpuWatch

THROTTLED_SPEED = 0.8
LOOK_S = 1e-4
LAST_KERNEL_S = 5e-6
"""What the GPU still has to do when the host has enqueued all, where it always waits for the host."""


def steady(now: float) -> float:
    return 1.0


@dataclass
class SimulatedGpu:
    """A stream, a host and counters.

    Attributes:
        speed: of the GPU at a time, 1 being its own.
        throttled: stretches of time in which clocks are held down, and counted as such.
        told: whether it tells of itself (a GPU that does not counts nothing).
        others: processes that use it beside this one.
        lost_after: when it stops telling of itself, for good.
    """

    speed: Callable[[float], float] = steady
    throttled: Sequence[tuple[float, float]] = ()
    told: bool = True
    others: int = 0
    lost_after: float = inf
    now: float = 0.0
    counted_ns: float = 0.0

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        held = sum(max(min(end, self.now + seconds) - max(start, self.now), 0.0) for start, end in self.throttled)
        self.counted_ns += held * 1e9
        self.now += seconds

    def speed_now(self) -> float:
        held = any(start <= self.now < end for start, end in self.throttled)
        return self.speed(self.now) * (THROTTLED_SPEED if held else 1.0)

    def watch(self) -> GpuWatch:
        return GpuWatch(self._read, clock=self.clock)

    def _read(self) -> GpuReading:
        self.pass_time(LOOK_S)
        if self.now > self.lost_after:
            return GpuReading(failure="GPU is lost")
        if not self.told:
            return GpuReading()
        return GpuReading(
            throttled_ns=(("power cap", int(self.counted_ns)),),
            reasons=0,
            sm_mhz=1500.0 * self.speed_now(),
            processes=tuple(range(1 + self.others)),
        )


def noisy(spread: float, seed: int = 0) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    while True:
        yield float(np.exp(generator.normal(0.0, spread)))


@dataclass
class SimulatedNetwork:
    """A network on a simulated GPU.

    Attributes:
        gpu: where it runs.
        gpu_s: the truth: how long the GPU computes one inference at its own speed.
        enqueue_s: how long the host enqueues one; as a graph it takes a hundredth.
        compiled_after: the first launches run a fallback that takes `fallback` times as long.
        factors: noise, one a lap.
    """

    gpu: SimulatedGpu
    gpu_s: float = 2e-3
    enqueue_s: float = 1e-5
    compiled_after: int = 0
    fallback: float = 2.0
    factors: Iterator[float] = field(default_factory=lambda: repeat(1.0))
    launches: int = 1
    graph: bool = False
    count: int = 0

    def lap(self) -> Lap:
        slow = self.fallback if self.count < self.compiled_after else 1.0
        self.count += 1
        enqueue = self.enqueue_s * (0.01 if self.graph else 1.0)
        gpu = self.gpu_s * slow * next(self.factors) / self.gpu.speed_now()
        between_events = max(gpu, enqueue + LAST_KERNEL_S)
        self.gpu.pass_time(between_events * self.launches)
        return Lap(between_events * 1e3, enqueue * 1e3)
