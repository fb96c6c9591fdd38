"""A recheck's verdict on made-up times whose truth is known, over many draws of the noise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut import Measurement
from lut.recheck import (
    Floats,
    Pairs,
    adopt,
    compare,
    deviations,
    is_adopted,
    judge,
    pair_networks,
    pair_up,
    spread_over_cost,
    too_many,
)
from tests.lut.examples import CONFIG, convolution, network_row, row

DRAWS = 60


def drawn(seed: int, factors: Floats, noise: float = 0.01, outliers: int = 0) -> Pairs:
    """Old times spread over a factor of 300, and new ones: by these factors slower, with noise from run to run."""
    generator = np.random.default_rng(seed)
    true = np.geomspace(0.005, 1.5, len(factors))
    run = np.hypot(noise, 0.015)
    old, new = (true * by * np.exp(generator.normal(0, run, len(true))) for by in (1.0, factors))
    new[generator.permutation(len(true))[:outliers]] *= 1.6
    return Pairs(tuple(range(len(true))), old, new, deviations(old, new, noise, noise))


def kinds(factors: Floats, *, noise: float = 0.01, outliers: int = 0) -> list[str]:
    return [judge(drawn(seed, factors, noise, outliers)).kind for seed in range(DRAWS)]


def share(found: list[str], kind: str) -> float:
    return found.count(kind) / len(found)


def test_rows_of_an_unchanged_device_hold() -> None:
    assert share(kinds(np.ones(20)), "holds") >= 0.95


def test_a_single_odd_row_does_not_overthrow_the_rest() -> None:
    assert share(kinds(np.ones(20), outliers=1), "holds") >= 0.95


@pytest.mark.parametrize("factor", [0.8, 1.15, 2.0])
def test_a_common_factor_is_found_and_its_size_told(factor: float) -> None:
    assert share(kinds(np.full(20, factor)), "holds up to a factor") >= 0.95
    assert judge(drawn(0, np.full(20, factor))).comparison.ratio == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("changed", [6, 10])
def test_rows_of_which_some_got_slower_do_not_hold(changed: int) -> None:
    factors = np.ones(20)
    factors[np.linspace(0, 19, changed).astype(int)] = 1.5
    assert share(kinds(factors), "does not hold") >= 0.95


def test_rows_that_change_each_in_their_own_way_do_not_hold() -> None:
    factors = np.exp(np.random.default_rng(0).normal(0, 0.3, 20))
    assert share(kinds(factors), "does not hold") >= 0.95


def test_times_too_noisy_to_tell_are_not_judged() -> None:
    assert share(kinds(np.ones(20), noise=0.3), "cannot be told") >= 0.95


def test_nothing_to_compare_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="nothing"):
        judge(pair_up([row((8, 8), 1.0)], [row((8, 9), 1.0)]))


def test_the_ratio_is_that_of_what_can_be_told_and_not_of_tiny_units() -> None:
    old = np.array([0.001] * 30 + [1.0] * 5)
    new = np.array([0.002] * 30 + [1.0] * 5)
    found = compare(Pairs(tuple(range(35)), old, new, deviations(old, new)))
    assert found is not None
    assert found.ratio == 1.0


@given(st.floats(0.2, 5.0), st.integers(0, 50))
def test_exchanging_both_sets_turns_the_ratio_round(factor: float, seed: int) -> None:
    pairs = drawn(seed, np.full(9, factor))
    there = compare(pairs)
    back = compare(Pairs(pairs.keys, pairs.new_ms, pairs.old_ms, pairs.deviation))
    assert there is not None
    assert back is not None
    assert there.ratio * back.ratio == pytest.approx(1.0)
    assert (there.within, there.conflict) == (back.within, back.conflict)


def test_pairs_are_of_the_same_spec_place_and_cache_and_failures_have_no_part() -> None:
    here = row((8, 8), 1.0)
    others = [
        row((8, 9), 1.0),
        row((8, 8), 1.0, convolution(5)),
        replace(here, place="isolated"),
        replace(here, config=replace(CONFIG, cache="cold")),
        Measurement(here.spec, CONFIG, (), None, None, failure="out of memory"),
        replace(here, median_ms=0.0),
    ]
    assert compare(pair_up([here], others)) is None
    found = pair_up([here, row((8, 8), 3.0), row((8, 8), 2.0)], [replace(here, median_ms=4.0), *others])
    assert (found.old_ms.tolist(), found.new_ms.tolist()) == ([2.0], [4.0])


def test_rows_that_ran_other_kernels_are_no_pair_but_those_that_tell_none_are() -> None:
    here = row((8, 8), 1.0)
    one, other = (replace(here, kernels=((name, 1.0),)) for name in ("direct", "winograd"))
    assert compare(pair_up([one], [other])) is None
    for old, new in ((one, one), (here, other), (one, here)):
        assert pair_up([old], [new]).old_ms.tolist() == [1.0]
    assert pair_up([one], [other], forms=False).old_ms.tolist() == [1.0]


def test_networks_are_paired_by_widths() -> None:
    old = [network_row({"a": 8}, 2.0), network_row({"a": 4}, 1.0)]
    new = [network_row({"a": 8}, 3.0), network_row({"a": 2}, 1.0), network_row({"a": 4}, 1.0, failure="crash")]
    found = pair_networks(old, new)
    assert (found.old_ms.tolist(), found.new_ms.tolist()) == ([2.0], [3.0])


def test_a_few_odd_rows_of_many_are_no_conflict_and_many_are() -> None:
    assert not too_many(40, 1000)
    assert not too_many(1, 2)
    assert too_many(2, 2)
    assert too_many(200, 1000)


@given(st.lists(st.floats(1e-3, 1e3), max_size=60), st.integers(1, 25))
def test_what_is_chosen_begins_with_the_dearest_and_names_none_twice(costs: list[float], count: int) -> None:
    chosen = spread_over_cost(costs, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(costs))
    assert [costs[index] for index in chosen] == sorted((costs[index] for index in chosen), reverse=True)
    if costs:
        assert costs[chosen[0]] == max(costs)


def test_an_adopted_row_is_marked_and_less_certain() -> None:
    measured = row((8, 8), 1.0)
    found = adopt(measured, 0.03)
    assert is_adopted(found)
    assert not is_adopted(measured)
    assert (found.median_ms, found.samples_ms) == (1.0, ())
    assert found.noise == pytest.approx(np.hypot(0.01, 0.03))
    merged_into_another = replace(measured, samples_ms=(), median_ms=1e-4, noise=1.0)
    assert not is_adopted(merged_into_another)
    failed = replace(measured, median_ms=None, samples_ms=(), failure="crash")
    assert adopt(failed, 0.03) == failed
    assert not is_adopted(failed)
