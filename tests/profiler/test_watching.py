"""What watching parts costs, told from their sum and the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.watching import cost_of_watching


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=30), st.floats(0, 1))
def test_what_watching_costs_brings_the_parts_down_to_the_whole(parts: list[float], share: float) -> None:
    whole = share * sum(parts)
    cost = cost_of_watching(parts, whole)
    assert sum(max(part - cost, 0.0) for part in parts) == pytest.approx(whole, abs=1e-9 * sum(parts))


def test_watching_costs_nothing_where_the_parts_are_no_longer_than_the_whole() -> None:
    assert cost_of_watching([1.0, 2.0], 3.5) == 0
    assert cost_of_watching([], 1.0) == 0
    assert cost_of_watching([0.001, 1.0, 1.0], 1.801) == pytest.approx(0.0995, abs=1e-3)
