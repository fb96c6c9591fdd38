"""A family's surface: through its points, right between them, honest about what it does not know."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lut import BASES, Points, Surface
from tests.lut.examples import sampled, staircase


def _surface(channels: NDArray[np.int64], ms: NDArray[np.float64]) -> Surface:
    return Surface(Points(channels, ms, np.full(len(ms), 0.005), np.ones(len(ms), dtype=np.int64)))


def _noisy(seed: int, ms: NDArray[np.float64], noise: float = 0.03) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ms * np.exp(noise * np.random.default_rng(seed).standard_normal(len(ms)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_staircase_under_3_percent_of_noise_is_recovered_within_4(seed: int) -> None:
    channels = sampled(seed, 60)
    surface = _surface(channels, _noisy(seed, staircase(channels)))
    others = sampled(seed + 100, 500)
    assert surface.steps == (16, 16)
    assert np.abs(surface.estimate_many(others).ms / staircase(others) - 1).mean() <= 0.04


def test_intervals_cover_what_is_measured_elsewhere() -> None:
    covered = []
    for seed in range(10):
        channels = sampled(seed, 60)
        surface = _surface(channels, _noisy(seed, staircase(channels)))
        others = sampled(seed + 100, 300)
        measured = _noisy(seed + 1000, staircase(others))
        found = surface.estimate_many(others)
        covered.append(((found.low_ms <= measured) & (measured <= found.high_ms)).mean())
    assert np.mean(covered) >= 0.85


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_intervals_from_few_points_are_wide_enough_too(count: int) -> None:
    covered = []
    for seed in range(20):
        channels = sampled(seed, count)
        surface = _surface(channels, _noisy(seed, staircase(channels)))
        others = sampled(seed + 100, 200)
        found = surface.estimate_many(others)
        covered.append(((found.low_ms <= staircase(others)) & (staircase(others) <= found.high_ms)).mean())
    assert np.mean(covered) >= 0.75


@pytest.mark.parametrize("count", [1, 2, 3, 10, 60])
def test_the_surface_passes_through_measured_points(count: int) -> None:
    channels = sampled(3, count)
    ms = staircase(channels)
    found = _surface(channels, ms).estimate_many(channels)
    assert np.allclose(found.ms, ms, rtol=0.03)
    assert (found.basis == BASES.index("measured")).all()


def test_points_that_follow_no_trend_are_still_passed_through() -> None:
    channels = np.array([[count] for count in range(16, 17 * 16, 16)])
    ms = np.exp(np.random.default_rng(0).standard_normal(len(channels)))
    assert np.allclose(_surface(channels, ms).estimate_many(channels).ms, ms, rtol=0.1)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 4), st.integers(1, 40))
def test_an_estimate_is_never_nothing(data: st.DataObject, coordinates: int, count: int) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    channels = np.unique(generator.integers(1, 300, (count, coordinates)), axis=0)
    ms = np.exp(generator.normal(0, data.draw(st.floats(0, 4)), len(channels)))
    found = _surface(channels, ms).estimate_many(generator.integers(0, 5000, (50, coordinates)))
    assert np.isfinite(found.high_ms).all()
    assert (found.low_ms > 0).all()
    assert (found.low_ms <= found.ms).all()
    assert (found.ms <= found.high_ms).all()


def test_the_basis_says_what_was_measured_and_what_lies_outside() -> None:
    surface = _surface(np.array([[16, 16], [64, 128], [64, 16]]), np.array([1.0, 3.0, 2.0]))
    found = surface.estimate_many(np.array([[64, 128], [32, 32], [65, 128], [16, 8], [16, 128]]))
    names = [BASES[code] for code in found.basis]
    assert names == ["measured", "interpolated", "extrapolated", "extrapolated", "interpolated"]


def test_the_interval_widens_outside_the_measured_points() -> None:
    channels = sampled(0, 60)
    found = _surface(channels, staircase(channels)).estimate_many(np.array([[256, 256], [512, 512], [1024, 1024]]))
    width = found.high_ms / found.low_ms
    assert width[0] < width[1] < width[2]


def test_one_point_says_little_about_others() -> None:
    found = _surface(np.array([[64, 64]]), np.array([1.0])).estimate_many(np.array([[64, 64], [16, 64]]))
    assert found.ms[0] == pytest.approx(1.0)
    assert found.low_ms[1] < 0.3
    assert found.high_ms[1] > 0.9


def test_a_unit_without_channels_costs_the_median_of_its_rows() -> None:
    surface = Surface(Points(np.zeros((1, 0), dtype=np.int64), np.array([1.5]), np.array([0.01]), np.array([3])))
    found = surface.estimate_many(np.zeros((2, 0), dtype=np.int64))
    assert found.ms == pytest.approx([1.5, 1.5])
    assert surface.steps == ()
