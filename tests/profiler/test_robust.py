"""Noise and the mean of the middle."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.robust import midmean, relative_noise


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=50), st.floats(1e-2, 1e2))
def test_noise_and_midmean_do_not_depend_on_the_unit(samples: list[float], scale: float) -> None:
    scaled = [sample * scale for sample in samples]
    assert relative_noise(scaled) == pytest.approx(relative_noise(samples), abs=1e-9)
    assert midmean(scaled) == pytest.approx(midmean(samples) * scale)
    assert min(samples) * 0.999 <= midmean(samples) <= max(samples) * 1.001


def test_one_sample_says_nothing_about_noise() -> None:
    assert relative_noise([1.0]) == inf
