"""The sampling loop for a GPU: launches between two events, in blocks by turns with a reference, until it is enough.

The quantity is the GPU's compute time of one inference, single-shot: the stream is empty before each launch, inputs and
outputs stay on the device. It knows no CUDA and no machine: what launches, what watches and the clock are arguments.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.gpu_summary import (
    Kept,
    Lap,
    Pair,
    keep,
    noise_of,
    pair_ratios,
    percentile_99,
    remarks_on,
    undisturbed,
)
from profiler.gpu_watch import GpuWindow
from profiler.robust import relative_noise

LEAST_WARMUP_S = 0.2
"""A GPU's clocks need about this long to rise from idle."""
LONGEST_WARMUP_S = 10.0
SETTLE, SETTLE_S = 8, 0.1
"""Laps, and seconds, of each of the two stretches that must agree before warming up ends."""
SETTLED = 0.02
BLOCK_S = 0.01
"""A block of laps takes about this long, so that looking at the GPU between blocks does not matter."""
LEAST_BLOCK, LARGEST_BLOCK = 4, 64
LAUNCH_BOUND = 0.9
"""A GPU that waits for its launches still has a kernel to end after the last of them: its time is a little longer than
the host's, never shorter. So from this share on, the host's time is what it waits for."""
SHORT_MS = 0.05
"""A network whose inference is shorter is launched many times in one graph, for `BATCH_MS`."""
BATCH_MS = 0.5
MOST_LAUNCHES = 200


class Runner(Protocol):
    """Something to launch on a GPU.

    Attributes:
        launches: inferences in one lap; a lap's times are one inference's.
        graph: whether it is launched as a captured CUDA graph.
    """

    @property
    def launches(self) -> int: ...  # noqa: D102
    @property
    def graph(self) -> bool: ...  # noqa: D102

    def lap(self) -> Lap:
        """Launch between two events, and wait for the end."""


class Watch(Protocol):
    """What tells of the GPU over a window of time (`profiler.gpu_watch.GpuWatch`)."""

    def begin(self) -> None:
        """Open a window."""

    def look(self) -> None:
        """Look in between."""

    def end(self) -> GpuWindow:
        """Close it."""


@dataclass(frozen=True)
class GpuTiming:
    """What sampling found. All times are one inference's, on the GPU.

    Attributes:
        samples_ms: of the target, undisturbed and in windows that count, in order.
        median_ms: their median.
        p99_ms: 99th percentile of all samples in windows that count, outliers too; None for fewer than 100.
        noise: standard error of the median over the median.
        discarded: samples thrown away, of the reference too, whatever the reason.
        throttled: those of them that were taken while the GPU was throttled.
        batch: inferences in one sample.
        graph: whether they were launched as a captured graph.
        enqueue_ms: the host's time to enqueue one, its median.
        reference_ms, reference_median_ms, ratio, ratio_noise: as in `profiler.timing.Timing`.
        warmup: laps before the first sample.
        clocks_mhz: the multiprocessors' clock, the middle of what was seen; None where the GPU does not tell.
        remarks: what has to be known of these figures, in words.
    """

    samples_ms: tuple[float, ...]
    median_ms: float
    p99_ms: float | None
    noise: float
    discarded: int
    throttled: int
    batch: int
    graph: bool
    enqueue_ms: float
    reference_ms: tuple[float, ...] = ()
    reference_median_ms: float | None = None
    ratio: float | None = None
    ratio_noise: float | None = None
    warmup: int = 0
    clocks_mhz: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def launch_bound(self) -> bool:
        """Whether the host takes about as long to enqueue as the GPU to compute, so that the GPU waits for it."""
        return self.enqueue_ms >= LAUNCH_BOUND * self.median_ms


def launches_for(gpu_ms: float) -> int:
    """How many inferences to put into one graph, so that events and launch do not matter beside them."""
    return 1 if gpu_ms >= SHORT_MS else min(math.ceil(BATCH_MS / max(gpu_ms, 1e-6)), MOST_LAUNCHES)


def is_launch_bound(laps: Sequence[Lap]) -> bool:
    """Whether the median time to enqueue is about as long as that on the GPU."""
    return median(lap.enqueue_ms for lap in laps) >= LAUNCH_BOUND * median(lap.gpu_ms for lap in laps)


def warm_up(
    runner: Runner, seconds: float, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Lap], bool]:
    """Run until that time is over and laps no longer become faster, on the GPU or on the host.

    Kernels that are compiled at the first launch, fallbacks that run until then, caches and clocks all show as laps
    that become faster.

    Returns:
        The laps, and whether they settled before `LONGEST_WARMUP_S`.
    """
    start, laps, ends = clock(), list[Lap](), list[float]()
    next_look = seconds
    while True:
        laps.append(runner.lap())
        ends.append(clock() - start)
        spent = ends[-1]
        if spent >= next_look and len(laps) >= 2 * SETTLE:
            if _has_settled(laps, ends):
                return laps, True
            next_look = spent + SETTLE_S / 5
        if spent >= max(LONGEST_WARMUP_S, seconds):
            return laps, False


def _has_settled(laps: Sequence[Lap], ends: Sequence[float]) -> bool:
    """Whether the last laps are no faster than as many before; both are at least `SETTLE` laps and `SETTLE_S`."""
    recent = max(len(ends) - bisect_left(ends, ends[-1] - SETTLE_S), SETTLE)
    if 2 * recent > len(laps):
        return False
    before, after = laps[-2 * recent : -recent], laps[-recent:]
    return all(
        median(lap[part] for lap in after) >= (1 - SETTLED) * median(lap[part] for lap in before) for part in (0, 1)
    )


def measure_gpu(
    target: Runner,
    config: MeasureConfig,
    *,
    reference: Runner | None = None,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> GpuTiming:
    """Time launches on a GPU, by turns with a reference where there is one.

    It stops once `min_samples` and `min_time_s` are reached and the noise is at or under `noise_target` (with a
    reference: the noise of the ratio); or at `max_samples` or `max_time_s`.

    Raises:
        BackendError: the events tell no time.
        ValueError: target and reference are not launched the same way.
    """
    if reference is not None and reference.graph != target.graph:
        raise ValueError("one is launched as a graph and the other is not: their times cannot be compared")
    warmup, settled = warm_up(target, max(config.warmup_s, LEAST_WARMUP_S), clock=clock)
    if reference is not None:
        warm_up(reference, config.warmup_s, clock=clock)
    pairs = _fill(target, reference, config, watch, clock, _block_size(warmup, target, config))
    if not any(lap.gpu_ms > 0 for pair in pairs for lap in pair.target):
        raise BackendError("The GPU's events tell no time: no sample could be taken.")
    timing = _summarise(pairs, keep(pairs), target, config)
    said = () if settled else (f"it still became faster after {LONGEST_WARMUP_S:.0f} s of warming up",)
    return replace(timing, warmup=len(warmup), remarks=said + timing.remarks)


def _block_size(warmup: Sequence[Lap], target: Runner, config: MeasureConfig) -> int:
    lap_s = median(max(lap.gpu_ms, lap.enqueue_ms) for lap in warmup[-SETTLE:]) * target.launches / 1e3
    wanted = math.ceil(BLOCK_S / max(lap_s, 1e-9))
    return max(min(wanted, LARGEST_BLOCK, config.max_samples // 8), LEAST_BLOCK)


def _fill(
    target: Runner,
    reference: Runner | None,
    config: MeasureConfig,
    watch: Watch | None,
    clock: Callable[[], float],
    size: int,
) -> list[Pair]:
    """Take pairs of blocks, the order turned round from one to the next, until it is enough."""
    pairs: list[Pair] = []
    start, next_check = clock(), 0
    while len(pairs) * size < config.max_samples and (len(pairs) < 2 or clock() - start < config.max_time_s):
        runners = [target] if reference is None else [target, reference]
        if len(pairs) % 2:
            runners.reverse()
        if watch is not None:
            watch.begin()
        taken: dict[int, tuple[Lap, ...]] = {}
        for number, runner in enumerate(runners):
            if watch is not None and number:
                watch.look()
            taken[id(runner)] = tuple(runner.lap() for _ in range(size))
        window = None if watch is None else watch.end()
        beside = () if reference is None else taken[id(reference)]
        pairs.append(Pair(len(pairs), taken[id(target)], beside, window))
        count = len(pairs) * size
        if count >= max(config.min_samples, next_check) and clock() - start >= config.min_time_s:
            if _noise(keep(pairs).pairs) <= config.noise_target and _enough(pairs, config):
                break
            next_check = count + max(count // 10, 1)
    return pairs


def _enough(pairs: Sequence[Pair], config: MeasureConfig) -> bool:
    """Whether what is left after dropping is as much as was asked for."""
    return sum(len(pair.target) for pair in keep(pairs).pairs) >= config.min_samples


def _noise(pairs: Sequence[Pair]) -> float:
    ratios = pair_ratios(pairs)
    return relative_noise(ratios) if ratios else noise_of([undisturbed(pair.target) for pair in pairs])


def _summarise(pairs: Sequence[Pair], kept: Kept, target: Runner, config: MeasureConfig) -> GpuTiming:
    blocks = [undisturbed(pair.target) for pair in kept.pairs]
    beside = [undisturbed(pair.reference) for pair in kept.pairs if pair.reference]
    samples = [sample for block in blocks for sample in block]
    compared = [sample for block in beside for sample in block]
    every = [lap.gpu_ms for pair in kept.pairs for lap in pair.target]
    ratios = pair_ratios(kept.pairs)
    noise = noise_of(blocks)
    enqueue = median(lap.enqueue_ms for pair in kept.pairs for lap in pair.target)
    laps = sum(len(pair.target) + len(pair.reference) for pair in pairs)
    lost = [pair for pair in pairs if pair.throttled] if kept.throttled else []
    clocks = [
        clock
        for pair in kept.pairs
        if pair.window is not None
        for clock in (pair.window.sm_mhz_min, pair.window.sm_mhz_max)
        if clock is not None
    ]
    remarks = remarks_on(kept, total=len(pairs), reference=bool(compared))
    if len(samples) < config.min_samples:
        remarks.append(f"only {len(samples)} samples are left of the {config.min_samples} that were asked for")
    reached = relative_noise(ratios) if ratios else noise
    if reached > config.noise_target:
        remarks.append(f"the noise is {reached:.1%}, above the {config.noise_target:.1%} that was asked for")
    if enqueue >= LAUNCH_BOUND * median(samples):
        remarks.append(
            f"bound by its launches: the host takes {enqueue:.3g} ms to enqueue what is on the GPU for "
            f"{median(samples):.3g} ms" + ("" if target.graph else "; a CUDA graph avoids that")
        )
    return GpuTiming(
        samples_ms=tuple(samples),
        median_ms=median(samples),
        p99_ms=percentile_99(every),
        noise=noise,
        discarded=laps - len(samples) - len(compared),
        throttled=sum(len(pair.target) + len(pair.reference) for pair in lost),
        batch=target.launches,
        graph=target.graph,
        enqueue_ms=enqueue,
        reference_ms=tuple(compared),
        reference_median_ms=median(compared) if compared else None,
        ratio=median(ratios) if ratios else None,
        ratio_noise=relative_noise(ratios) if ratios else None,
        clocks_mhz=median(clocks) if clocks else None,
        remarks=tuple(remarks),
    )
