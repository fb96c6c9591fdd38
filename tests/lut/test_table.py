"""The table in memory: which fingerprint it is, what it holds, and what it refuses to price."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lut import (
    Coordinate,
    DeviceFingerprint,
    LatencyTable,
    MissingFamilyError,
    TableError,
    TableFile,
    Unit,
    UnitFamily,
    UnitSpec,
    open_table,
)
from tests.lut.examples import CPU, GPU, convolution, network_row, row, sampled, staircase


def _write(path: Path, *fingerprints: DeviceFingerprint, precision: str = "fp32") -> Path:
    with TableFile(path, create=True) as file:
        for number, fingerprint in enumerate(fingerprints):
            file.add_measurements(fingerprint, [row((8, 8), 1.0 + number, convolution(precision=precision))])
    return path


def test_the_only_fingerprint_is_taken(tmp_path: Path) -> None:
    table = open_table(_write(tmp_path / "t.db", CPU))
    assert table.fingerprint == CPU
    assert table.families == (convolution(),)
    assert table.precision == "fp32"


@pytest.mark.parametrize("choice", [{"backend": "tensorrt"}, {"device": "rtx 4090"}, {"compute_capability": "8.9"}])
def test_flags_choose_among_fingerprints(tmp_path: Path, choice: dict[str, str]) -> None:
    path = _write(tmp_path / "t.db", CPU, GPU)
    assert open_table(path, **choice).fingerprint == GPU  # type: ignore[arg-type]
    assert open_table(path, threads=1).fingerprint == CPU


def test_several_that_fit_are_listed_with_the_flags(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.db", CPU, GPU)
    with pytest.raises(TableError) as caught:
        open_table(path)
    for expected in (
        "Some CPU",
        "RTX 4090",
        "--backend",
        "--device",
        "--compute-capability",
        "--precision",
        "--threads",
    ):
        assert expected in str(caught.value)


def test_two_that_read_alike_are_told_apart(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.db", GPU, replace(GPU, driver="575.51"))
    with pytest.raises(TableError, match=r"driver 575\.51 \(not 570\.86\)"):
        open_table(path)


def test_none_that_fits_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="it holds: Some CPU"):
        open_table(_write(tmp_path / "t.db", CPU), backend="openvino")


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no measurement yet"):
        open_table(_write(tmp_path / "t.db"))


def test_precisions_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    for precision in ("fp32", "int8"):
        _write(path, CPU, precision=precision)
        with TableFile(path) as file:
            file.add_network(CPU, network_row({"a": 8}, 2.0, precision=precision))
    with pytest.raises(TableError, match="--precision"):
        open_table(path)
    chosen = open_table(path, precision="int8")
    assert [network.precision for network in chosen.networks] == ["int8"]
    assert len(chosen.families) == 2  # an int8 network has units in fp32


def test_a_missing_family_is_named_and_never_free() -> None:
    table = LatencyTable(CPU, [row((8, 8), 1.0)], name="device.db")
    with pytest.raises(MissingFamilyError, match=r"device\.db has no latency of: convolution .*kernel=\(5, 5\)"):
        table.estimate(UnitSpec(convolution(5), (8, 8)))


def test_failures_are_kept_and_counted_but_never_priced() -> None:
    failed = replace(row((8, 8), 1.0), median_ms=None, noise=None, failure="timed out")
    table = LatencyTable(CPU, [failed, failed])
    assert table.failures == [failed, failed]
    with pytest.raises(MissingFamilyError, match="2 tries failed"):
        table.estimate(failed.spec)


def test_rows_at_the_same_channels_are_combined() -> None:
    table = LatencyTable(CPU, [row((8, 8), ms) for ms in (1.0, 1.1, 9.0)])
    points = table.points(convolution())
    assert points.ms.tolist() == [1.1]
    assert points.rows.tolist() == [3]
    assert table.estimate(UnitSpec(convolution(), (8, 8))).ms == pytest.approx(1.1)


def test_rows_measured_in_place_win_over_isolated_ones() -> None:
    table = LatencyTable(CPU, [row((8, 8), 1.0), replace(row((8, 8), 2.0), place="isolated")])
    assert table.points(convolution()).ms.tolist() == [1.0]
    assert table.set_aside == 1


def test_corrected_rows_win_over_the_isolated_ones_that_they_correct_and_not_over_those_in_place() -> None:
    isolated, corrected = (
        replace(row((8, 8), 2.0), place="isolated"),
        replace(row((8, 8), 2.5), place="corrected"),
    )
    table = LatencyTable(CPU, [isolated, corrected])
    assert table.estimate(row((8, 8), 1.0).spec).ms == pytest.approx(2.5)
    assert table.set_aside == 1
    table = LatencyTable(CPU, [isolated, row((8, 8), 1.0), corrected])
    assert table.estimate(row((8, 8), 1.0).spec).ms == pytest.approx(1.0)
    assert table.set_aside == 2


def test_the_wrong_number_of_channels_is_our_bug() -> None:
    with pytest.raises(ValueError, match="2 channel counts"):
        LatencyTable(CPU, [row((8, 8), 1.0)]).estimate_many(convolution(), [[8, 8, 8]])


def test_many_estimates_are_the_same_as_one_by_one() -> None:
    channels = sampled(0, 40)
    table = LatencyTable(
        CPU, [row(tuple(map(int, c)), float(ms)) for c, ms in zip(channels, staircase(channels), strict=True)]
    )
    others = sampled(1, 20)
    many = table.estimate_many(convolution(), others)
    for index, each in enumerate(others.tolist()):
        one = table.estimate(UnitSpec(convolution(), tuple(each)))
        assert one.ms == pytest.approx(float(many.ms[index]))
        assert one.basis == many[index].basis


def test_a_groups_step_is_that_of_its_costliest_units() -> None:
    cheap = UnitFamily("elementwise", "fp32", ((1, "c0", 28, 28),), ((1, "c0", 28, 28),))
    channels = sampled(0, 60)
    rows = [row(tuple(map(int, c)), float(ms)) for c, ms in zip(channels, staircase(channels), strict=True)]
    counts = np.arange(4, 128, 3)
    rows += [row((int(count),), 1e-4 * (1 + -(-int(count) // 64)), cheap) for count in counts]
    table = LatencyTable(CPU, rows)
    units = [
        Unit("a", convolution(), (Coordinate((("g", 1),)), Coordinate((), 64))),
        Unit("b", convolution(), (Coordinate((), 64), Coordinate((("h", 4),)))),
        Unit("c", cheap, (Coordinate((("g", 1),)),)),
    ]
    assert table.step(convolution(), 0) == 16
    assert table.width_step("g", units, {"g": 128, "h": 32}) == 16
    assert table.width_step("g", units) == 16
    assert table.width_step("h", units) == 4
    assert table.width_step("nowhere", units) == 1
