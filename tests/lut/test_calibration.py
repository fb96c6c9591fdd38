"""Calibration: scale and overhead from whole networks, few or disturbed ones included."""

import numpy as np
import pytest

from lut import Calibration, calibrate
from lut.calibration import calibrated, likely_half


def test_nothing_measured_is_nothing_known() -> None:
    assert calibrate(np.zeros(0), np.zeros(0)) == Calibration()
    assert likely_half(Calibration(), 0.0) >= 0.1


def test_few_networks_give_a_scale_only() -> None:
    found = calibrate(np.array([10.0, 20.0]), np.array([11.0, 22.0]))
    assert found.scale == pytest.approx(1.1)
    assert (found.overhead_ms, found.networks) == (0.0, 2)


def test_overhead_is_recovered() -> None:
    sums = np.linspace(2, 12, 10)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(10))
    found = calibrate(sums, (0.95 * sums + 0.8) * noise)
    assert found.scale == pytest.approx(0.95, rel=0.03)
    assert found.overhead_ms == pytest.approx(0.8, rel=0.15)
    assert found.spread < 0.03


def test_one_disturbed_network_does_not_move_the_fit() -> None:
    sums = np.linspace(2, 12, 10)
    measured = 1.05 * sums + 0.5
    measured[4] *= 2
    found = calibrate(sums, measured)
    assert found.scale == pytest.approx(1.05, rel=0.02)
    assert found.overhead_ms == pytest.approx(0.5, rel=0.1)


def test_short_kernels_that_are_timed_too_long_are_taken_off_the_sum() -> None:
    sums = np.linspace(2, 12, 10)
    found = calibrate(sums, 1.2 * sums - 0.5)
    assert (found.scale, found.overhead_ms) == (pytest.approx(1.2), pytest.approx(-0.5))
    assert calibrated(found, np.array([4.0])) == pytest.approx([4.3])


def test_a_latency_never_falls_to_nothing() -> None:
    found = calibrate(np.linspace(2, 12, 10), 1.2 * np.linspace(2, 12, 10) - 0.5)
    small = calibrated(found, np.array([1e-3, 0.1, 0.4]))
    assert (small > 0).all()
    assert (np.diff(small) > 0).all()


@pytest.mark.parametrize("too", [0.2, 1.0, 5.0])
def test_intervals_are_stretched_or_shrunk_until_nine_of_ten_networks_lie_inside(too: float) -> None:
    generator = np.random.default_rng(1)
    sums = generator.uniform(2, 12, 200)
    measured = sums * np.exp(0.05 * generator.standard_normal(200))
    found = calibrate(sums, measured, 1.645 * 0.05 * too * sums)
    half = likely_half(found, 1.645 * 0.05 * too)
    assert half == pytest.approx(1.645 * 0.05, rel=0.15)


def test_few_networks_do_not_prove_that_intervals_may_be_narrow() -> None:
    sums = np.array([1.0, 2.0, 3.0])
    found = calibrate(sums, sums, 0.01 * sums)
    assert likely_half(found, 0.01) > 0.03


def test_however_little_is_known_an_interval_has_an_end() -> None:
    generator = np.random.default_rng(0)
    sums = generator.uniform(1, 2, 12)
    found = calibrate(sums, sums * np.exp(generator.normal(0, 9, 12)), 0.01 * sums)
    assert np.isfinite(np.exp(likely_half(found, 1e6)))


def test_an_overhead_that_only_networks_without_their_own_rows_ask_for_is_not_believed() -> None:
    measured = np.linspace(2, 12, 12)
    shrunk = 0.97 * measured - 0.2  # without their own rows the smallest come out too small
    assert calibrate(shrunk, measured).overhead_ms > 0.15
    found = calibrate(shrunk, measured, 0.05 * measured, measured)
    assert (found.scale, found.overhead_ms) == (pytest.approx(1.0), 0.0)


def test_an_overhead_that_runs_really_have_is_believed() -> None:
    sums = np.linspace(2, 12, 12)
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(12))
    found = calibrate(0.98 * sums, (sums + 0.5) * noise, 0.05 * sums, sums)
    assert found.overhead_ms == pytest.approx(0.5, rel=0.2)
