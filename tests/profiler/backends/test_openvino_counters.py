"""Runs told apart from the means that counters show."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.openvino_counters import split_means


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_runs_told_apart_from_means_give_the_same_means(times: list[int]) -> None:
    totals = np.cumsum(times)
    counts = np.arange(1, len(times) + 1)
    found = split_means((totals // counts).tolist())
    assert len(found) == len(times)
    assert min(found) >= 0
    assert np.all(np.abs(np.cumsum(found) - totals) <= counts - 1 + 1e-6)


@given(st.integers(0, 500), st.integers(0, 5000), st.integers(2, 40))
def test_a_steady_time_is_found_in_spite_of_a_slow_first_run(steady: int, first: int, count: int) -> None:
    totals = first + steady * np.arange(count + 1)
    found = split_means((totals // np.arange(1, count + 2)).tolist())
    assert found[0] == first
    assert abs(np.mean(found[1:]) - steady) <= 1
