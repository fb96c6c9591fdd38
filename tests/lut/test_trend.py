"""The trend: non-negative, and it finds a staircase's step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut.trend import fit_trend, solve_non_negative
from tests.lut.examples import sampled, staircase


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_the_non_negative_solution_is_optimal(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    design = generator.standard_normal((size + 5, size))
    target = generator.standard_normal(size + 5)
    gram, moment = design.T @ design, design.T @ target
    x = solve_non_negative(gram, moment)
    slope = moment - gram @ x
    assert (x >= 0).all()
    assert (slope <= 1e-7).all()
    assert abs(slope @ x) <= 1e-6


@pytest.mark.parametrize("step", [8, 16, 32])
@pytest.mark.parametrize("seed", range(3))
def test_the_step_of_a_staircase_is_found(step: int, seed: int) -> None:
    channels = sampled(seed, 60)
    ms = staircase(channels, step) * np.exp(0.02 * np.random.default_rng(seed).standard_normal(60))
    assert fit_trend(channels, ms).steps == (step, step)


def test_a_smooth_cost_has_no_step() -> None:
    channels = sampled(0, 60)
    ms = (0.1 + 1e-4 * channels.prod(axis=1)) * np.exp(0.01 * np.random.default_rng(0).standard_normal(60))
    assert max(fit_trend(channels, ms).steps) <= 2


def test_points_on_a_grid_prove_no_step() -> None:
    channels = sampled(0, 60) // 16 * 16 + 16
    assert fit_trend(channels, staircase(channels)).steps == (1, 1)


def test_one_disturbed_run_does_not_bend_the_trend() -> None:
    channels = sampled(1, 60)
    ms = staircase(channels)
    ms[7] *= 3
    trend = fit_trend(channels, ms)
    others = np.arange(60) != 7
    assert np.abs(trend.at(channels[others]) / ms[others] - 1).mean() < 0.02
