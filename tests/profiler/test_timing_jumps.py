"""A clock that jumps while sampling (set by hand, or by the network): lost samples are counted, the median stands."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut.records import MeasureConfig
from profiler import timing, turns

measure = partial(timing.measure, interruptions=lambda: 0)
take_turns = partial(turns.take_turns, interruptions=lambda: 0)

CONFIG = MeasureConfig(warmup_s=0.0, min_time_s=0.02, max_time_s=0.5, min_samples=20, max_samples=200)
RUN_S = 1e-3

jumps = st.lists(st.tuples(st.integers(12, 400), st.floats(-1e5, -0.01) | st.floats(0.01, 1e5)), min_size=1, max_size=3)
"""(reading of the clock at which it jumps, by how many seconds), after the runs that warm up."""


class JumpingClock:
    """Stands still but for what runs, and jumps when it is read for the n-th time."""

    def __init__(self, jumps: list[tuple[int, float]]) -> None:
        self.now, self.reads, self.runs = 0.0, 0, 0
        self.jumps = jumps

    def read(self) -> float:
        self.reads += 1
        self.now += sum(seconds for number, seconds in self.jumps if number == self.reads)
        return self.now

    def run(self) -> None:
        self.runs += 1
        self.now += RUN_S

    def slower(self) -> None:
        self.run()
        self.now += RUN_S


@settings(deadline=None)
@given(jumps)
def test_jumps_of_the_clock_do_not_change_the_median_and_are_counted(jumps: list[tuple[int, float]]) -> None:
    clock = JumpingClock(jumps)
    found = measure(clock.run, CONFIG, clock=clock.read)
    assert found.median_ms == pytest.approx(1.0)
    assert max(found.samples_ms) == pytest.approx(1.0)
    assert found.discarded <= len(jumps)
    assert clock.runs <= CONFIG.max_samples + 2 + 4


@settings(deadline=None)
@given(jumps)
def test_jumps_divide_out_of_the_ratio_to_a_reference(jumps: list[tuple[int, float]]) -> None:
    clock = JumpingClock(jumps)
    found = measure(clock.slower, CONFIG, reference=clock.run, clock=clock.read)
    assert found.median_ms == pytest.approx(2.0)
    assert found.reference_median_ms == pytest.approx(1.0)
    assert found.ratio is None or found.ratio == pytest.approx(2.0)


@settings(deadline=None)
@given(jumps)
def test_turns_end_and_keep_what_the_clock_did_not_spoil(jumps: list[tuple[int, float]]) -> None:
    clock = JumpingClock(jumps)
    for runs in take_turns([clock.run, clock.run], CONFIG, runs=40, clock=clock.read):
        assert runs.samples_ms == pytest.approx([1.0] * len(runs.samples_ms))
        assert len(runs.samples_ms) + runs.discarded <= 40
        assert runs.discarded <= len(jumps)
    assert clock.runs <= 2 * (2 + 40 + 10)
