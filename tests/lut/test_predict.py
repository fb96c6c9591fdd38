"""Prediction: units add up, whole networks calibrate the sum, and nothing is left out in silence."""

import numpy as np
import pytest

from lut import Coordinate, LatencyTable, Measurement, MissingFamilyError, NetworkMeasurement, Predictor, Unit, predict
from tests.lut.examples import CPU, convolution, network_row, row, sampled, staircase


def _rows() -> list[Measurement]:
    channels = sampled(0, 80)
    return [row(tuple(map(int, c)), float(ms)) for c, ms in zip(channels, staircase(channels), strict=True)]


def _units() -> list[Unit]:
    g, h = Coordinate((("g", 1),)), Coordinate((("h", 1),))
    return [
        Unit("first", convolution(), (Coordinate((), 64), g)),
        Unit("second", convolution(), (g, h)),
        Unit("third", convolution(), (h, Coordinate((), 128))),
    ]


def _truth(widths: dict[str, int]) -> float:
    return float(staircase(np.array([unit.channels(widths) for unit in _units()])).sum())


def _networks(scale: float, overhead: float, count: int, **more: object) -> list[NetworkMeasurement]:
    found = []
    for g, h in sampled(5, count).tolist():
        widths = {"g": g, "h": h}
        found.append(network_row(widths, scale * _truth(widths) + overhead, **more))
    return found


WIDTHS = {"g": 128, "h": 96}


def test_a_prediction_is_the_sum_of_its_units() -> None:
    found = predict(_units(), WIDTHS, LatencyTable(CPU, _rows()))
    assert [unit.unit for unit in found.units] == ["first", "second", "third"]
    assert found.total.ms == pytest.approx(sum(unit.estimate.ms for unit in found.units))
    assert found.total.ms == pytest.approx(_truth(WIDTHS), rel=0.05)
    assert found.calibration.networks == 0


def test_without_whole_networks_the_interval_is_wide() -> None:
    bare = predict(_units(), WIDTHS, LatencyTable(CPU, _rows())).total
    table = LatencyTable(CPU, _rows(), networks=_networks(1.0, 0.0, 12))
    known = predict(_units(), WIDTHS, table, network="net").total
    assert bare.high_ms / bare.low_ms > 1.4
    assert 1.02 < known.high_ms / known.low_ms < bare.high_ms / bare.low_ms


def test_scale_and_overhead_are_recovered_from_the_networks_own_rows() -> None:
    table = LatencyTable(CPU, _rows(), networks=_networks(1.1, 2.0, 12))
    found = predict(_units(), WIDTHS, table, network="net")
    assert found.calibration.networks == 12
    assert found.calibration.scale == pytest.approx(1.1, rel=0.05)
    assert found.calibration.overhead_ms == pytest.approx(2.0, rel=0.1)
    assert found.total.ms == pytest.approx(1.1 * _truth(WIDTHS) + 2.0, rel=0.04)


def test_another_networks_rows_calibrate_where_there_are_no_own_ones() -> None:
    networks = [network_row({"x": 8}, 1.2 * ms, units_ms=ms) for ms in (1.0, 1.01, 1.02)]
    found = predict(_units(), WIDTHS, LatencyTable(CPU, _rows(), networks=networks), network="another")
    assert found.calibration.scale == pytest.approx(1.2)
    assert found.calibration.overhead_ms == 0


def test_failed_networks_calibrate_nothing() -> None:
    networks = _networks(1.5, 0.0, 5, failure="timed out")
    found = predict(_units(), WIDTHS, LatencyTable(CPU, _rows(), networks=networks), network="net")
    assert found.calibration.networks == 0


def test_missing_families_raise_and_are_all_named() -> None:
    units = [
        *_units(),
        Unit("odd", convolution(5), (Coordinate((), 8), Coordinate((), 8))),
        Unit("strange", convolution(7), (Coordinate((), 8), Coordinate((), 8))),
    ]
    table = LatencyTable(CPU, _rows())
    with pytest.raises(MissingFamilyError, match=r"kernel=\(5, 5\).*kernel=\(7, 7\)"):
        predict(units, WIDTHS, table)
    found = predict(units, WIDTHS, table, allow_missing=True)
    assert found.missing == ("odd", "strange")
    assert len(found.units) == 3


def test_the_fast_ways_agree_with_the_prediction() -> None:
    table = LatencyTable(CPU, _rows(), networks=_networks(1.1, 2.0, 12))
    predictor = Predictor(_units(), table, network="net")
    total = predictor.predict(WIDTHS).total.ms
    assert predictor.latency_ms(WIDTHS) == pytest.approx(total)
    assert predictor.latencies_ms([WIDTHS, {"g": 64, "h": 64}])[0] == pytest.approx(total)
    assert predictor.unit_ms("second", WIDTHS) == pytest.approx(predictor.unit_ms(1, WIDTHS))
    assert predictor.unit_many_ms("second", [[128, 96]])[0] == pytest.approx(predictor.unit_ms(1, WIDTHS))
    assert predictor.groups == ("g", "h")


def test_extrapolating_one_unit_is_said_of_the_whole() -> None:
    table = LatencyTable(CPU, _rows())
    assert predict(_units(), WIDTHS, table).total.basis == "interpolated"
    assert predict(_units(), {"g": 4096, "h": 96}, table).total.basis == "extrapolated"
