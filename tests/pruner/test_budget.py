"""Limits on the way to a budget."""

import pytest

from pruner.budget import Limits


def test_limits_fall_in_equal_ratios_and_end_at_the_budget() -> None:
    limits, full = Limits(ms=2.0, memory_bytes=1e6), Limits(ms=16.0, memory_bytes=8e6)
    way = [limits.on_the_way(share, full) for share in (1 / 3, 2 / 3, 1)]
    assert [each.ms for each in way] == pytest.approx([8.0, 4.0, 2.0])
    assert [each.memory_bytes for each in way] == pytest.approx([4e6, 2e6, 1e6])
    assert Limits(memory_bytes=1e6).on_the_way(0.5, full).ms is None


def test_limits_are_said_in_words() -> None:
    assert str(Limits(2.5, 1.25e6)) == "2.5 ms and 1.25 MB"
    assert str(Limits(memory_bytes=1.25e6)) == "1.25 MB"
