"""Takes samples of one callable, and tells which of them were disturbed."""

import math
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

BLOCK = 4
"""Samples of the target before as many of the reference, and the other way round."""
SHORT_S = 50e-6
"""A run shorter than this is sampled in batches of `BATCH_S`, so that the clock's resolution does not matter."""
BATCH_S = 200e-6
DISTURBED = 3.0
"""A sample above this many medians was disturbed (another process, a migration, an interrupt)."""
MOST_WARMUP_RUNS = 100_000
STANDING_CLOCK = "The clock does not move forward on this machine: no sample could be taken."


class Sample(NamedTuple):
    """One time, its number, and whether the system took the processor away meanwhile."""

    number: int
    seconds: float
    interrupted: bool


class Sampler:
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
        self.samples: list[Sample] = []
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
            self.samples.append(Sample(number, took / self.batch, self.interruptions() > before))
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
