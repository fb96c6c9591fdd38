"""What laps of a GPU say once they are taken: which count, how sure the median is, and what has to be said of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median, variance
from typing import NamedTuple

import numpy as np

from profiler.gpu_watch import GpuWindow
from profiler.robust import relative_noise
from profiler.run_sampler import DISTURBED

THROTTLED = 0.02
"""A window is throttled when one reason held clocks down for a larger share of it."""
SETTLING = 0.03
"""Leading windows that are slower than the rest by more than this still warmed up (kernels compiled late)."""
DRIFTED = 0.01
"""A change from the first to the last third of the windows that is worth saying."""
FEWEST_STRETCHES = 8
P99_SAMPLES = 100
"""With fewer samples there is no 99th percentile to tell from the largest."""


class Lap(NamedTuple):
    """One timed launch, per inference: between its events on the GPU, and on the host while it was enqueued."""

    gpu_ms: float
    enqueue_ms: float


@dataclass(frozen=True)
class Pair:
    """A block of laps of the target and one of the reference, taken within one window of the GPU's telemetry.

    Attributes:
        number: counted from 0; in even ones the target came first, in odd ones the reference.
        target: laps, in order.
        reference: laps, in order; empty without a reference.
        window: what the GPU told meanwhile, or None where nobody watched.
    """

    number: int
    target: tuple[Lap, ...]
    reference: tuple[Lap, ...] = ()
    window: GpuWindow | None = None

    @property
    def throttled(self) -> bool:
        """Whether clocks were held down in it against the GPU's will, as far as the GPU tells."""
        share = None if self.window is None else self.window.throttled_share
        return share is not None and share > THROTTLED


@dataclass(frozen=True)
class Kept:
    """The pairs that count, and what became of the others.

    Attributes:
        pairs: that count, in order.
        throttled: pairs dropped because clocks were held down.
        settling: leading pairs dropped because the GPU still became faster.
        throughout: pairs in which clocks were held down, where that was most of them and so none was dropped.
    """

    pairs: tuple[Pair, ...]
    throttled: int = 0
    settling: int = 0
    throughout: int = 0


def keep(pairs: Sequence[Pair]) -> Kept:
    """Drop pairs in which the GPU was throttled, unless most were, and leading ones in which it still warmed up.

    A GeForce whose clocks nobody may lock runs into its power limit all the time; its throttled times are its times.
    """
    calm = [pair for pair in pairs if not pair.throttled]
    throttled = len(pairs) - len(calm)
    most = 2 * len(calm) < len(pairs)
    chosen = list(pairs) if most else calm
    first = settled_from([median(lap.gpu_ms for lap in pair.target) for pair in chosen])
    return Kept(tuple(chosen[first:]), 0 if most else throttled, first, throttled if most else 0)


def settled_from(levels: Sequence[float]) -> int:
    """Tell from which place a sequence is steady: the start whose rest has the least standard error.

    Only a start in the first half counts, and only if what is cut off lies above the rest by more than `SETTLING`.

    Source:
        White, An effective truncation heuristic for bias reduction in simulation output, Simulation 69(6), 1997.
    """
    if len(levels) < 4:
        return 0

    values = np.asarray(levels)
    count = np.arange(len(values), 0, -1)
    sums, squares = (np.cumsum(each[::-1])[::-1] for each in (values, values**2))
    errors = (squares - sums**2 / count) / count**2
    best = int(np.argmin(errors[: len(levels) // 2 + 1]))
    if best and fmean(levels[:best]) > (1 + SETTLING) * median(levels[best:]):
        return best
    return 0


def undisturbed(laps: Sequence[Lap]) -> list[float]:
    """GPU times that lie no further than `DISTURBED` medians up, in order."""
    limit = DISTURBED * median(lap.gpu_ms for lap in laps)
    return [lap.gpu_ms for lap in laps if lap.gpu_ms <= limit]


def noise_of(blocks: Sequence[Sequence[float]]) -> float:
    """Standard error of the median over the median, the largest of those from samples, blocks, and runs of blocks.

    Samples that are neighbours see the same clocks, so that they are worth less than as many independent ones; the
    medians of long enough stretches are independent.
    """
    found = relative_noise([sample for block in blocks for sample in block])
    size = 1
    while len(blocks) // size >= FEWEST_STRETCHES:
        stretches = [blocks[start : start + size] for start in range(0, len(blocks) - size + 1, size)]
        found = max(found, relative_noise([median(chain.from_iterable(stretch)) for stretch in stretches]))
        size *= 2
    return found


def pair_ratios(pairs: Sequence[Pair]) -> list[float]:
    """Target over reference, one of each two neighbouring pairs, whose orders are opposite: a steady drift cancels.

    Where dropping left no two neighbours, one of each pair.
    """
    ratios = {
        pair.number: median(undisturbed(pair.target)) / median(undisturbed(pair.reference))
        for pair in pairs
        if pair.reference
    }
    balanced = [
        math.sqrt(ratio * ratios[number + 1])
        for number, ratio in ratios.items()
        if number % 2 == 0 and number + 1 in ratios
    ]
    return balanced or list(ratios.values())


def percentile_99(samples: Sequence[float]) -> float | None:
    """The time that one of a hundred samples exceeds; None for fewer than `P99_SAMPLES`."""
    if len(samples) < P99_SAMPLES:
        return None
    return sorted(samples)[math.ceil(0.99 * len(samples)) - 1]


def drift_of(pairs: Sequence[Pair]) -> float:
    """How much slower the target was in the last third of the pairs than in the first, as a fraction."""
    third = len(pairs) // 3
    if third < 1:
        return 0.0
    first, last = ([lap.gpu_ms for pair in part for lap in pair.target] for part in (pairs[:third], pairs[-third:]))
    return median(last) / median(first) - 1


@dataclass(frozen=True)
class Builds:
    """Several engines of one network: compilers choose anew each time, and engines differ by some percent.

    Attributes:
        medians_ms: one a build, in order.
        median_ms: their median.
        between: spread from build to build over the median (a standard deviation, the noise within taken out).
        within: noise of one build's median, the root mean square of all.
    """

    medians_ms: tuple[float, ...]
    median_ms: float
    between: float
    within: float


def summarise_builds(medians_ms: Sequence[float], noises: Sequence[float]) -> Builds:
    """Tell apart how engines differ and how well each was measured.

    Args:
        medians_ms: of each build; at least one.
        noises: standard error of each median over that median.
    """
    middle = median(medians_ms)
    within = math.sqrt(fmean(noise**2 for noise in noises))
    spread = variance(medians_ms) / middle**2 if len(medians_ms) > 1 else 0.0
    return Builds(tuple(medians_ms), middle, math.sqrt(max(spread - within**2, 0.0)), within)


def remarks_on(kept: Kept, *, total: int, reference: bool) -> list[str]:
    """What to say of throttling, clocks, drift and other users of the GPU."""
    windows = [pair.window for pair in kept.pairs if pair.window is not None]
    said = []
    if kept.throttled:
        said.append(f"clocks were held down in {kept.throttled} of {total} windows; their samples were dropped")
    if kept.throughout:
        said.append(
            f"clocks were held down in {kept.throughout} of {total} windows, so nothing was dropped: these are the "
            "times of the GPU at its limit (lock its clocks near the base clock with nvidia-smi -lgc, where allowed)"
        )
    if kept.settling:
        said.append(f"the GPU still became faster in the first {kept.settling} windows; their samples were dropped")
    drift = drift_of(kept.pairs)
    if abs(drift) > DRIFTED:
        cure = "the ratio to the reference has that divided out" if reference else "there was no reference to divide by"
        said.append(f"the GPU became {abs(drift):.1%} {'slower' if drift > 0 else 'faster'} meanwhile; {cure}")
    lows = [window.sm_mhz_min for window in windows if window.sm_mhz_min is not None]
    highs = [window.sm_mhz_max for window in windows if window.sm_mhz_max is not None]
    if lows and highs and min(lows) < max(highs):
        said.append(f"its clock moved between {min(lows):.0f} and {max(highs):.0f} MHz")
    others = max((window.other_processes or 0 for window in windows), default=0)
    if others:
        said.append(f"{others} other process{'es' if others > 1 else ''} used the GPU meanwhile")
    failure = next((window.failure for window in windows if window.failure is not None), None)
    if failure is not None:
        said.append(f"the GPU stopped telling of itself: {failure}")
    return said
