"""Calibration: scale and overhead from whole networks, few or disturbed ones included."""

import numpy as np
import pytest

from lut import Calibration, calibrate
from lut.calibration import likely_spread


def test_nothing_measured_is_nothing_known() -> None:
    assert calibrate([]) == Calibration()
    assert likely_spread(Calibration()) >= 0.1


def test_few_networks_give_a_scale_only() -> None:
    found = calibrate([(10.0, 11.0), (20.0, 22.0)])
    assert found.scale == pytest.approx(1.1)
    assert (found.overhead_ms, found.networks) == (0.0, 2)


def test_overhead_is_recovered() -> None:
    sums = np.linspace(2, 12, 10)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(10))
    found = calibrate(list(zip(sums, (0.95 * sums + 0.8) * noise, strict=True)))
    assert found.scale == pytest.approx(0.95, rel=0.03)
    assert found.overhead_ms == pytest.approx(0.8, rel=0.15)
    assert found.spread < 0.03


def test_one_disturbed_network_does_not_move_the_fit() -> None:
    sums = np.linspace(2, 12, 10)
    measured = 1.05 * sums + 0.5
    measured[4] *= 2
    found = calibrate(list(zip(sums, measured, strict=True)))
    assert found.scale == pytest.approx(1.05, rel=0.02)
    assert found.overhead_ms == pytest.approx(0.5, rel=0.1)


def test_an_overhead_is_never_negative() -> None:
    sums = np.linspace(2, 12, 10)
    assert calibrate(list(zip(sums, 1.2 * sums - 0.5, strict=True))).overhead_ms == 0
