"""The sampling loop on simulated machines and clocks: no real time passes here."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from math import inf

import numpy as np
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler import timing, turns
from profiler.robust import median_ratio
from profiler.run_sampler import BATCH_S

measure = partial(timing.measure, interruptions=lambda: 0)
take_turns = partial(turns.take_turns, interruptions=lambda: 0)
"""The machine that runs these tests may be busy; the simulated one is not."""


class Machine:
    """A machine whose clock moves only when something runs."""

    def __init__(self, speed: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.speed = speed
        self.runs = 0

    def clock(self) -> float:
        return self.now

    def job(self, seconds: float, factors: Iterator[float] | None = None) -> Callable[[], None]:
        """Something that takes that long, times the next factor, at the speed of the moment."""

        def run() -> None:
            self.runs += 1
            self.now += seconds * (1.0 if factors is None else next(factors)) / self.speed(self.now)

        return run


CONFIG = MeasureConfig(warmup_s=0.01, min_time_s=0.05, max_time_s=5.0, min_samples=20, noise_target=0.01)


def noisy(spread: float) -> Iterator[float]:
    generator = np.random.default_rng(0)
    while True:
        yield float(np.exp(generator.normal(0.0, spread)))


def test_a_steady_machine_is_measured_exactly_and_no_longer_than_asked() -> None:
    machine = Machine()
    found = measure(machine.job(1e-3), CONFIG, clock=machine.clock)
    assert found.median_ms == pytest.approx(1.0)
    assert found.noise == pytest.approx(0.0, abs=1e-9)
    assert found.discarded == 0
    assert machine.now < 0.01 + 0.05 + 0.01


def test_the_machines_drift_divides_out_of_the_ratio() -> None:
    machine = Machine(speed=lambda now: 1.0 / (1.0 + now))
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.4, max_time_s=5.0, noise_target=0.005)
    found = measure(machine.job(3e-3), config, reference=machine.job(2e-3), clock=machine.clock)
    assert found.ratio == pytest.approx(1.5, rel=0.01)
    assert found.median_ms > 3.0 * 1.1
    assert len(found.reference_ms) == len(found.samples_ms)


def test_runs_after_the_other_was_run_do_not_count_since_their_caches_are_cold() -> None:
    machine, last, factors = Machine(), [""], noisy(0.05)

    def with_caches(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            machine.now += seconds * next(factors) * (1.0 if last[0] == name else 1.5)
            last[0] = name

        return run

    config = MeasureConfig(warmup_s=0.0, min_time_s=1.0, max_time_s=100.0, min_samples=2000, noise_target=0.003)
    target, reference = with_caches("target", 3e-3), machine.job(2e-3)

    def other() -> None:
        last[0] = "reference"
        reference()

    found = measure(target, config, reference=other, clock=machine.clock)
    assert found.ratio == pytest.approx(1.5, rel=0.005)


def test_noise_stops_the_sampling_only_when_it_is_small() -> None:
    counts = []
    for spread in (0.01, 0.1):
        machine = Machine()
        found = measure(machine.job(1e-3, noisy(spread)), CONFIG, clock=machine.clock)
        assert found.noise <= CONFIG.noise_target
        counts.append(len(found.samples_ms))
    assert counts[0] < counts[1]


def test_a_machine_too_noisy_stops_at_the_longest_time_and_says_its_noise() -> None:
    machine = Machine()
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.01, max_time_s=0.1, noise_target=1e-6)
    found = measure(machine.job(1e-3, noisy(0.3)), config, clock=machine.clock)
    assert found.noise > config.noise_target
    assert machine.now < 0.2


def test_no_more_samples_are_taken_than_allowed() -> None:
    machine = Machine()
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.0, max_time_s=inf, noise_target=0.0, max_samples=30)
    found = measure(machine.job(1e-3, noisy(0.3)), config, clock=machine.clock)
    assert len(found.samples_ms) + found.discarded == 30


def test_disturbed_samples_are_dropped_and_counted() -> None:
    machine = Machine()
    factors = chain(repeat(1.0, 30), repeat(50.0, 3), repeat(1.0))
    found = measure(machine.job(1e-3, factors), CONFIG, clock=machine.clock)
    assert found.discarded == 3
    assert max(found.samples_ms) == pytest.approx(1.0)


def test_a_clock_that_jumps_backwards_loses_that_sample_and_counts_it() -> None:
    machine = Machine()
    factors = chain(repeat(1.0, 25), [-400.0], repeat(1.0))
    found = measure(machine.job(1e-3, factors), CONFIG, clock=machine.clock)
    assert found.discarded == 1
    assert min(found.samples_ms) == pytest.approx(1.0)


def test_a_clock_that_stands_still_is_an_error_and_not_a_time() -> None:
    config = MeasureConfig(max_samples=10)
    with pytest.raises(BackendError, match="clock"):
        measure(lambda: None, config, clock=lambda: 1.0)
    with pytest.raises(BackendError, match="clock"):
        take_turns([lambda: None], config, runs=10, clock=lambda: 1.0)


def test_short_runs_are_batched_and_their_time_is_one_runs() -> None:
    machine = Machine()
    coarse = 1e-5
    found = measure(machine.job(7e-6), CONFIG, clock=lambda: round(machine.now / coarse) * coarse)
    assert found.batch * 7e-6 >= BATCH_S / 2
    assert found.median_ms == pytest.approx(7e-3, rel=0.1)


def test_cold_samples_are_single_runs_with_the_eviction_outside_their_time() -> None:
    machine = Machine()
    evictions = machine.job(5e-3)
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.0, cache="cold")
    found = measure(machine.job(1e-5), config, evict=evictions, clock=machine.clock)
    assert found.batch == 1
    assert found.median_ms == pytest.approx(1e-2)


def test_cold_samples_need_an_eviction() -> None:
    with pytest.raises(ValueError, match="evict"):
        measure(lambda: None, MeasureConfig(cache="cold"))


def test_callables_that_take_turns_see_the_same_machine_and_tell_which_runs_were_kept() -> None:
    machine = Machine(speed=lambda now: 1.0 / (1.0 + now))
    calls: list[float] = []
    job = machine.job(2e-3)

    def second() -> None:
        before = machine.now
        job()
        calls.append(machine.now - before)

    first, other = take_turns([machine.job(3e-3), second], CONFIG, runs=20, clock=machine.clock)
    assert len(first.samples_ms) == len(other.samples_ms) == 20
    assert [calls[number] * 1e3 for number in other.numbers] == pytest.approx(list(other.samples_ms))
    assert median_ratio(first.samples_ms, other.samples_ms) == pytest.approx(1.5, rel=0.03)


def test_turns_end_after_the_longest_time_but_not_before_two_rounds() -> None:
    machine = Machine()
    config = MeasureConfig(warmup_s=0.0, max_time_s=0.5)
    (runs,) = take_turns([machine.job(1.0)], config, runs=1000, clock=machine.clock)
    assert len(runs.samples_ms) == 8


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_runs_into_which_another_process_fell_are_dropped(share: float) -> None:
    """Time slices of 4 ms, too short beside a run of 10 to stand out: only the system's count tells."""
    machine = Machine()
    generator = np.random.default_rng(0)
    count = 0

    def interrupted() -> Iterator[float]:
        nonlocal count
        while True:
            hit = generator.random() < share
            count += hit
            yield 1.4 if hit else 1.0

    config = MeasureConfig(warmup_s=0.0, min_time_s=1.0, max_time_s=3.0, noise_target=0.01)
    found = measure(machine.job(1e-2, interrupted()), config, clock=machine.clock, interruptions=lambda: count)
    assert max(found.samples_ms) == pytest.approx(10.0)
    assert (found.discarded > 0) == (share > 0)


def test_where_every_run_is_interrupted_they_are_all_one_has() -> None:
    machine = Machine()
    found = measure(machine.job(1e-3), CONFIG, clock=machine.clock, interruptions=lambda: machine.runs)
    assert len(found.samples_ms) >= CONFIG.min_samples
    assert found.discarded == 0
