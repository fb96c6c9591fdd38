"""Time single runs of several callables by turns, so that all of them see the same state of the machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.pinning import count_interruptions
from profiler.run_sampler import BLOCK, STANDING_CLOCK, Sampler


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
    samplers = [Sampler(part, clock, None, interruptions) for part in parts]
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
