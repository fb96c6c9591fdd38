"""The sampling loop: run something again and again until its time is known well enough.

It knows no runtime and no machine: what to run and the clock are arguments.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.pinning import count_interruptions
from profiler.robust import relative_noise
from profiler.run_sampler import BLOCK, STANDING_CLOCK, Sampler


@dataclass(frozen=True)
class Timing:
    """What sampling found.

    Attributes:
        samples_ms: of the target, one run each (a batch's mean for short runs), undisturbed, in order.
        median_ms: their median.
        noise: standard error of the median over the median.
        discarded: samples thrown away, of the reference too.
        batch: runs in one sample of the target.
        reference_ms: samples of the reference, taken in alternating blocks with the target's; empty without one.
        reference_median_ms: their median, or None.
        ratio: target over reference, in which the machine's drift divides out (the median over pairs of neighbouring
            blocks), or None.
        ratio_noise: standard error of the ratio over the ratio, or None.
    """

    samples_ms: tuple[float, ...]
    median_ms: float
    noise: float
    discarded: int
    batch: int = 1
    reference_ms: tuple[float, ...] = ()
    reference_median_ms: float | None = None
    ratio: float | None = None
    ratio_noise: float | None = None


def measure(
    run: Callable[[], object],
    config: MeasureConfig,
    *,
    reference: Callable[[], object] | None = None,
    evict: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    interruptions: Callable[[], int] = count_interruptions,
) -> Timing:
    """Time a callable, alternating with a reference where there is one.

    It stops once `min_samples` and `min_time_s` are reached and the noise is at or under `noise_target` (with a
    reference: the noise of the ratio, which is what is used then); or at `max_samples` or `max_time_s`.

    Args:
        run: one inference.
        config: how long and how carefully.
        reference: something whose time stays the same unless the machine changes.
        evict: empties the caches; called before every sample, outside its time. Needed by `cache="cold"`; such samples
            are single runs, never batches.
        clock: seconds, from any origin.
        interruptions: how often the system has taken the processor from this process so far.

    Raises:
        BackendError: not one sample could be taken, because the clock does not move forward.
    """
    if config.cache == "cold" and evict is None:
        raise ValueError("cache='cold' needs a callable that evicts the caches")
    before = evict if config.cache == "cold" else None
    target = Sampler(run, clock, before, interruptions)
    samplers = [target] if reference is None else [target, Sampler(reference, clock, before, interruptions)]
    for sampler in samplers:
        sampler.warm_up(config.warmup_s)
    _fill(samplers, config)
    if any(not sampler.samples for sampler in samplers):
        raise BackendError(STANDING_CLOCK)
    return _summarise(samplers)


def _fill(samplers: list[Sampler], config: MeasureConfig) -> None:
    """Take blocks of samples, the order turned round from one block to the next, until it is enough.

    With a reference the first run of each block only brings the caches back from the other, as in `take_turns`.
    """
    target = samplers[0]
    spent = 0.0
    block = next_check = tries = 0
    before = target.clock()
    while tries < config.max_samples and spent < config.max_time_s:
        size = min(BLOCK, config.max_samples - tries)
        for sampler in samplers if block % 2 == 0 else reversed(samplers):
            if len(samplers) > 1 and sampler.before is None:
                sampler.once(1)
            for _ in range(size):
                sampler.sample(block)
        block += 1
        tries += size
        now = target.clock()
        spent += max(now - before, 0.0)
        before = now
        count = len(target.samples)
        if count >= config.min_samples and spent >= config.min_time_s and count >= next_check:
            if _noise(samplers) <= config.noise_target:
                return
            next_check = count + max(count // 10, 1)


def _noise(samplers: list[Sampler]) -> float:
    ratios = _block_ratios(samplers)
    return relative_noise(ratios if len(samplers) == 2 else [seconds for _, seconds in samplers[0].kept()])


def _block_ratios(samplers: list[Sampler]) -> list[float]:
    """Target over reference, by pairs of blocks whose order is turned round, so that a steady drift cancels.

    A pair that lost all samples of either in one of its blocks is left out.
    """
    if len(samplers) < 2:
        return []
    medians = []
    for sampler in samplers:
        blocks: dict[int, list[float]] = {}
        for block, seconds in sampler.kept():
            blocks.setdefault(block, []).append(seconds)
        medians.append({block: median(seconds) for block, seconds in blocks.items()})
    ratios = {block: medians[0][block] / medians[1][block] for block in medians[0] if block in medians[1]}
    pairs = [(ratios[block], ratios[block + 1]) for block in ratios if block % 2 == 0 and block + 1 in ratios]
    return [math.sqrt(one * other) for one, other in pairs]


def _summarise(samplers: list[Sampler]) -> Timing:
    kept = [[seconds * 1e3 for _, seconds in sampler.kept()] for sampler in samplers]
    discarded = sum(
        sampler.backward + len(sampler.samples) - len(own) for sampler, own in zip(samplers, kept, strict=True)
    )
    ratios = _block_ratios(samplers)
    return Timing(
        samples_ms=tuple(kept[0]),
        median_ms=median(kept[0]),
        noise=relative_noise(kept[0]),
        discarded=discarded,
        batch=samplers[0].batch,
        reference_ms=tuple(kept[1]) if len(kept) == 2 else (),
        reference_median_ms=median(kept[1]) if len(kept) == 2 else None,
        ratio=median(ratios) if ratios else None,
        ratio_noise=relative_noise(ratios) if ratios else None,
    )
