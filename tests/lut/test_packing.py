"""Layouts at fixed addresses: small ones by hand, and what holds for any."""

from hypothesis import given
from hypothesis import strategies as st

from lut.packing import best_fit, live_peak, packed_bytes, shared_slots

Tensor = tuple[int, int, int]
tensors = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 5)), max_size=12)
"""Size, first step, and for how many more steps it lives."""


def parts(drawn: list[Tensor]) -> tuple[list[int], list[tuple[int, int]]]:
    return [size for size, _, _ in drawn], [(first, first + more) for _, first, more in drawn]


CHAIN = [(3, 0, 1), (8, 1, 1), (8, 2, 1), (4, 3, 1), (24, 4, 1), (6, 5, 1)]
"""Each is read by the maker of the next alone."""


def test_gaps_that_are_too_narrow_cost_memory() -> None:
    sizes, spans = parts(CHAIN)
    assert live_peak(sizes, spans) == 30
    assert best_fit(sizes, spans) == 34  # 3 and 8 free side by side for the 4, then 24 from 4 to 28, then 6 behind it
    assert shared_slots(sizes, spans) == 24 + 8 + 4
    assert packed_bytes(sizes, spans) == 34


def test_slots_are_better_where_each_tensor_is_larger_than_the_one_before() -> None:
    sizes, spans = parts([(3, 0, 1), (10, 1, 1), (20, 2, 1), (40, 3, 1), (80, 4, 1)])
    assert best_fit(sizes, spans) == 153
    assert shared_slots(sizes, spans) == packed_bytes(sizes, spans) == live_peak(sizes, spans) == 120


def test_the_narrowest_gap_is_taken() -> None:
    sizes, spans = parts([(5, 0, 0), (1, 0, 9), (2, 0, 0), (1, 0, 9), (2, 1, 8), (5, 1, 8)])
    assert best_fit(sizes, spans) == 9


def test_what_is_free_above_the_tensors_is_a_gap_like_any_other() -> None:
    sizes, spans = parts([(5, 0, 1), (2, 0, 9), (4, 1, 0), (3, 2, 1), (5, 3, 0)])
    assert best_fit(sizes, spans) == 11  # the 3 goes above 7, where 4 are free, so that the last 5 fits below
    assert best_fit(*parts([(5, 0, 9), (4, 1, 0), (6, 2, 0)])) == 5 + 6  # only what lacks is added


def test_nothing_needs_nothing() -> None:
    assert live_peak([], []) == best_fit([], []) == shared_slots([], []) == 0


def simulated_peak(sizes: list[int], spans: list[tuple[int, int]]) -> int:
    """The same by looking at every step."""
    steps = range(max((last for _, last in spans), default=0) + 1)
    return max(
        sum(size for size, (first, last) in zip(sizes, spans, strict=True) if first <= step <= last) for step in steps
    )


@given(drawn=tensors)
def test_the_peak_is_that_of_a_simulation_and_no_layout_is_below_it(drawn: list[Tensor]) -> None:
    sizes, spans = parts(drawn)
    peak = live_peak(sizes, spans)
    assert peak == simulated_peak(sizes, spans)
    assert peak <= packed_bytes(sizes, spans) <= sum(sizes)


@given(drawn=tensors, shift=st.integers(0, 9))
def test_tensors_that_live_apart_share_their_memory(drawn: list[Tensor], shift: int) -> None:
    sizes, spans = parts(drawn)
    later = [(first + 40 + shift, last + 40 + shift) for first, last in spans]
    for layout in (live_peak, shared_slots):
        assert layout(sizes * 2, spans + later) == layout(sizes, spans)
    assert best_fit(sizes * 2, spans + later) >= best_fit(sizes, spans)


@given(drawn=tensors, scale=st.integers(1, 7))
def test_twice_the_sizes_need_twice_the_memory(drawn: list[Tensor], scale: int) -> None:
    sizes, spans = parts(drawn)
    assert packed_bytes([scale * size for size in sizes], spans) == scale * packed_bytes(sizes, spans)
