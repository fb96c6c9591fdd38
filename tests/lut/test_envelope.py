"""The lower envelope: keeping more channels is always allowed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lut import Coordinate, LatencyTable, Predictor, Unit
from lut.envelope import lower_envelope
from tests.lut.examples import CPU, convolution, row, sampled, staircase


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_the_envelope_is_the_least_time_at_this_or_any_wider_width(times: list[int]) -> None:
    ms = np.array(times, dtype=np.float64)
    found, attained = lower_envelope(ms)
    assert found.tolist() == [min(times[place:]) for place in range(len(times))]
    assert (attained >= np.arange(len(times))).all()
    assert (ms[attained] == found).all()
    assert (np.diff(found) >= 0).all()


def _table() -> LatencyTable:
    channels = sampled(0, 80)
    return LatencyTable(
        CPU, [row(tuple(map(int, c)), float(ms)) for c, ms in zip(channels, staircase(channels), strict=True)]
    )


def test_a_staircase_that_is_slower_off_its_steps_is_attained_on_them() -> None:
    counts, ms, attained = _table().envelope(convolution(), (128, 64), 0)
    assert counts.tolist() == list(range(1, 129))
    assert (np.diff(ms) >= -1e-12).all()
    assert set(attained.tolist()) <= set(range(16, 129, 16))


def test_widths_that_a_wider_one_undercuts_are_not_worth_having() -> None:
    units = [Unit("only", convolution(), (Coordinate((("g", 1),)), Coordinate((), 64)))]
    predictor = Predictor(units, _table())
    assert predictor.worth_having("g", (30, 32, 60, 64, 100, 112, 128), {"g": 128}) == (32, 64, 112, 128)
    assert predictor.worth_having("unknown", (1, 2), {"g": 128}) == (2,)
