"""The sampling loop: run something again and again until its time is known well enough.

It knows no runtime and no machine: what to run and the clock are arguments.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.pinning import count_interruptions

BLOCK = 4
"""Samples of the target before as many of the reference, and the other way round."""
SHORT_S = 50e-6
"""A run shorter than this is sampled in batches of `BATCH_S`, so that the clock's resolution does not matter."""
BATCH_S = 200e-6
DISTURBED = 3.0
"""A sample above this many medians was disturbed (another process, a migration, an interrupt)."""
NORMAL_MAD = 1.4826
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of the median over that of the mean, for normal samples."""
MOST_WARMUP_RUNS = 100_000
STANDING_CLOCK = "The clock does not move forward on this machine: no sample could be taken."


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


def relative_noise(samples: Sequence[float]) -> float:
    """Estimate the standard error of the samples' median over the median, from the median absolute deviation."""
    if len(samples) < 2:
        return math.inf
    middle = median(samples)
    if middle <= 0:
        return math.inf
    spread = NORMAL_MAD * median(abs(sample - middle) for sample in samples)
    return MEDIAN_ERROR * spread / math.sqrt(len(samples)) / middle


def median_ratio(samples: Sequence[float], reference: Sequence[float]) -> float | None:
    """Ratio of the medians, or None without a reference."""
    return median(samples) / median(reference) if reference else None


def midmean(samples: Sequence[float]) -> float:
    """Mean of the middle half: as deaf to outliers as the median, but finer where the clock is coarse."""
    ordered = sorted(samples)
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    return fmean(middle)


def cost_of_watching(parts: Sequence[float], whole: float) -> float:
    """What watching adds to each part of a run: the least cost that brings the parts' sum down to the whole.

    A part cannot have cost more to watch than it took; such parts took nothing themselves.

    Args:
        parts: times of all parts, watched.
        whole: time of a run that nobody watched, in the same unit.
    """
    excess = sum(parts) - whole
    if excess <= 0:
        return 0.0
    ordered = sorted(parts)
    for place, part in enumerate(ordered):
        level = excess / (len(ordered) - place)
        if level <= part:
            return level
        excess -= part
    return ordered[-1] if ordered else 0.0


@dataclass(frozen=True)
class Runs:
    """Single runs of one of several callables that took turns.

    Attributes:
        samples_ms: undisturbed, in order.
        numbers: which calls these were, counted from 0 with those that warmed up.
        discarded: calls whose time was disturbed; those that only warmed up are not among them.
    """

    samples_ms: tuple[float, ...]
    numbers: tuple[int, ...]
    discarded: int


def take_turns(
    parts: Sequence[Callable[[], object]],
    config: MeasureConfig,
    *,
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
    interruptions: Callable[[], int] = count_interruptions,
) -> list[Runs]:
    """Time single runs of several callables in alternating blocks, so that all see the same state of the machine.

    The first run of each block only brings the caches back from the others. It ends after `runs` runs of each, or after
    two rounds and `config.max_time_s`.

    Raises:
        BackendError: not one sample could be taken, because the clock does not move forward.
    """
    samplers = [_Sampler(part, clock, None, interruptions) for part in parts]
    calls = [0] * len(parts)
    for place, sampler in enumerate(samplers):
        calls[place] = sampler.warm_up(config.warmup_s)
        sampler.batch = 1
    start, block = clock(), 0
    while block * BLOCK < runs and (block < 2 or clock() - start < config.max_time_s):
        order = range(len(parts)) if block % 2 == 0 else reversed(range(len(parts)))
        for place in order:
            samplers[place].once(1)
            for number in range(calls[place] + 1, calls[place] + 1 + min(BLOCK, runs - block * BLOCK)):
                samplers[place].sample(number)
                calls[place] = number
            calls[place] += 1
        block += 1
    if any(not sampler.samples for sampler in samplers):
        raise BackendError(STANDING_CLOCK)
    found = []
    for sampler in samplers:
        kept = sampler.kept()
        lost = sampler.backward + len(sampler.samples) - len(kept)
        found.append(Runs(tuple(took * 1e3 for _, took in kept), tuple(number for number, _ in kept), lost))
    return found


class _Sample(NamedTuple):
    """One time, its number, and whether the system took the processor away meanwhile."""

    number: int
    seconds: float
    interrupted: bool


class _Sampler:
    """Takes samples of one callable; `samples` holds those on which the clock ran forward."""

    def __init__(
        self,
        run: Callable[[], object],
        clock: Callable[[], float],
        before: Callable[[], object] | None,
        interruptions: Callable[[], int],
    ) -> None:
        self.run, self.clock, self.before, self.interruptions = run, clock, before, interruptions
        self.batch = 1
        self.samples: list[_Sample] = []
        self.backward = 0

    def once(self, runs: int) -> float:
        """Seconds of that many runs; the clock may say nonsense."""
        if self.before is not None:
            self.before()
        start = self.clock()
        for _ in range(runs):
            self.run()
        return self.clock() - start

    def warm_up(self, seconds: float) -> int:
        """Run for that long, at least twice, and choose the batch by the shortest run seen; return how many runs."""
        spent, shortest, count = 0.0, math.inf, 0
        while count < MOST_WARMUP_RUNS:
            took = self.once(1)
            count += 1
            if took > 0:
                spent += took
                shortest = min(shortest, took)
            if spent >= seconds and count >= 2:
                break
        if shortest < SHORT_S and self.before is None:
            self.batch = math.ceil(BATCH_S / max(shortest, 1e-9))
        return count

    def sample(self, number: int) -> None:
        """Take one sample, or count it where the clock did not run forward."""
        before = self.interruptions()
        took = self.once(self.batch)
        if took > 0:
            self.samples.append(_Sample(number, took / self.batch, self.interruptions() > before))
        else:
            self.backward += 1

    def kept(self) -> list[tuple[int, float]]:
        """The undisturbed samples: none far above the median, none interrupted unless most were."""
        if not self.samples:
            return []
        limit = DISTURBED * median(sample.seconds for sample in self.samples)
        near = [sample for sample in self.samples if sample.seconds <= limit]
        calm = [sample for sample in near if not sample.interrupted]
        chosen = calm if 2 * len(calm) >= len(near) else near
        return [(sample.number, sample.seconds) for sample in chosen]


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
    target = _Sampler(run, clock, before, interruptions)
    samplers = [target] if reference is None else [target, _Sampler(reference, clock, before, interruptions)]
    for sampler in samplers:
        sampler.warm_up(config.warmup_s)
    _fill(samplers, config)
    if any(not sampler.samples for sampler in samplers):
        raise BackendError(STANDING_CLOCK)
    return _summarise(samplers)


def _fill(samplers: list[_Sampler], config: MeasureConfig) -> None:
    """Take blocks of samples, the order turned round from one block to the next, until it is enough."""
    target = samplers[0]
    spent = 0.0
    block = next_check = tries = 0
    before = target.clock()
    while tries < config.max_samples and spent < config.max_time_s:
        size = min(BLOCK, config.max_samples - tries)
        for sampler in samplers if block % 2 == 0 else reversed(samplers):
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


def _noise(samplers: list[_Sampler]) -> float:
    ratios = _block_ratios(samplers)
    return relative_noise(ratios if len(samplers) == 2 else [seconds for _, seconds in samplers[0].kept()])


def _block_ratios(samplers: list[_Sampler]) -> list[float]:
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


def _summarise(samplers: list[_Sampler]) -> Timing:
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
