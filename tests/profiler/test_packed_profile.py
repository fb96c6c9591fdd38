"""Tables of runtimes that time whole networks only: on a simulated one whose truth is known, and for plumbing on one
that is here. No times are claimed."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lut import LatencyTable, Predictor, TableFile, open_table, predict
from lut.records import MeasureConfig
from profiler.backends import BackendStatus
from profiler.backends.onnxruntime import OnnxRuntime
from profiler.export import write_onnx
from profiler.inplace import Owners
from profiler.network import Network, analyze
from profiler.packed_profile import Bench, profile_packed
from profiler.pieces import Pieces
from profiler.profile import ProfileConfig, profile
from profiler.profile_records import ProfileReport
from profiler.progress import Event
from profiler.variants import Variants, prepare
from tests.profiler.simulated_runtime import FINGERPRINT, SimulatedRuntime, true_ms, work_ms
from tests.pruner.example_task import SmallNet, example_inputs

CONFIG = ProfileConfig(networks_min=10, networks_max=10, target_error=0.0)
FEW = ProfileConfig(networks_min=3, networks_max=3, target_error=0.0)


@pytest.fixture(scope="module")
def variants() -> Variants:
    torch.manual_seed(0)
    return prepare(analyze(SmallNet().eval(), example_inputs()))


@pytest.fixture(scope="module")
def network(variants: Variants) -> Network:
    return variants.network


def fill(
    variants: Variants, path: Path, runtime: SimulatedRuntime, config: ProfileConfig = CONFIG, **more: Any
) -> ProfileReport:
    with TableFile(path, create=True) as store:
        bench = Bench(variants.network, variants, store, runtime, config, compiles=True)  # type: ignore[arg-type]
        return profile_packed(bench, 0.0, more.get("progress", lambda _: None), more.get("clock", lambda: 0.0))


@pytest.fixture(scope="module")
def filled(variants: Variants, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProfileReport, list[Event]]:
    path = tmp_path_factory.mktemp("packed") / "t.db"
    events: list[Event] = []
    return path, fill(variants, path, SimulatedRuntime(), progress=events.append), events


def truth_ms(variants: Variants, widths: dict[str, int], tmp_path: Path) -> float:
    write_onnx(variants.at(variants.widths_removal(widths)), tmp_path / "truth.onnx")
    return true_ms(onnx.load(tmp_path / "truth.onnx"))


def test_networks_that_were_not_measured_lie_within_their_intervals(
    variants: Variants, filled: tuple[Path, ProfileReport, list[Event]], tmp_path: Path
) -> None:
    network, table = variants.network, open_table(filled[0])
    generator = np.random.default_rng(5)
    inside, errors, naive = [], [], []
    for _ in range(20):
        widths = {name: int(generator.integers(max(size // 4, 1), size + 1)) for name, size in network.widths.items()}
        truth = truth_ms(variants, widths, tmp_path)
        total = predict(network.units, widths, table, network=network.hash).total
        inside.append(total.low_ms <= truth <= total.high_ms)
        errors.append(abs(total.ms / truth - 1))
        naive.append(abs(sum(alone_in_one_copy(variants, widths)) / truth - 1))
    assert np.mean(inside) >= 0.8
    assert np.mean(errors) < 0.05
    assert np.min(naive) > 0.5


def alone_in_one_copy(variants: Variants, widths: dict[str, int]) -> list[float]:
    """Units timed alone as networks, the naive way."""
    pieces = Pieces(variants.at(variants.widths_removal(widths)), Owners.of(variants))
    found = [pieces.cut_out(number) for number in range(len(variants.network.units))]
    return [true_ms(piece) for piece in found if piece is not None]


def test_launch_and_borders_are_in_no_unit_and_whole_networks_set_the_scale(
    variants: Variants, filled: tuple[Path, ProfileReport, list[Event]]
) -> None:
    network = variants.network
    with TableFile(filled[0]) as store:
        rows = store.measurements(FINGERPRINT)
    alone = {row.spec: row for row in rows if row.place == "isolated"}
    assert len(alone) == sum(row.place == "isolated" for row in rows)
    corrected = {row.spec: row for row in rows if row.place == "corrected"}
    assert set(alone) == set(corrected)
    pieces = Pieces(variants.at({}), Owners.of(variants))
    for number, unit in enumerate(network.units):
        piece = pieces.cut_out(number)
        row = alone[unit.spec(network.widths)]
        assert piece is not None
        assert row.median_ms is not None
        assert row.noise is not None
        truth = work_ms(piece)
        assert abs(row.median_ms - truth) < 4 * row.noise * row.median_ms + 1e-3
    sums = [
        sum(found[unit.spec(network.widths)].median_ms or 0 for unit in network.units) for found in (alone, corrected)
    ]
    assert 1.1 < sums[1] / sums[0] < 1.35


def test_a_report_tells_what_was_done_and_progress_where_it_stands(
    filled: tuple[Path, ProfileReport, list[Event]],
) -> None:
    _, report, events = filled
    assert (report.measured, report.reused, report.failed) == (10, 0, 0)
    assert report.packed is not None
    assert report.packed.units == report.rows > 0
    assert report.packed.scale == pytest.approx(1.25, abs=0.1)
    assert "distinct units were timed alone" in str(report.packed)
    assert events[-1].done == 10 == events[-1].total
    assert any("unit 2 of" in event.note for event in events)


def test_an_interrupted_session_keeps_its_units_and_the_next_times_only_the_rest(
    variants: Variants, filled: tuple[Path, ProfileReport, list[Event]], tmp_path: Path
) -> None:
    class Interrupted(SimulatedRuntime):
        def time(self, *given: Any, **more: Any) -> Any:
            if self.timed == 33:
                raise KeyboardInterrupt
            return super().time(*given, **more)

    with pytest.raises(KeyboardInterrupt):
        fill(variants, tmp_path / "t.db", Interrupted(), FEW)
    with TableFile(tmp_path / "t.db") as store:
        kept = [row for row in store.measurements(FINGERPRINT) if row.place == "isolated"]
    assert kept
    report = fill(variants, tmp_path / "t.db", SimulatedRuntime(), FEW)
    assert report.reused > 0
    assert report.measured + report.reused == 3
    with TableFile(tmp_path / "t.db") as store:
        specs = [row.spec for row in store.measurements(FINGERPRINT) if row.place == "isolated"]
    assert len(specs) == len(set(specs)) == len(kept) + report.rows
    again = SimulatedRuntime()
    report = fill(variants, tmp_path / "t.db", again, FEW)
    assert (report.measured, report.rows, again.timed) == (0, 0, 0)


def test_time_that_is_over_stops_between_units(variants: Variants, tmp_path: Path) -> None:
    ticks = itertools.count()
    config = ProfileConfig(networks_min=10, networks_max=10, target_error=0.0, max_time_s=8.0)
    report = fill(variants, tmp_path / "t.db", SimulatedRuntime(), config, clock=lambda: float(next(ticks)))
    assert report.stopped_because.startswith("8 s are over")
    assert 0 < report.rows < len(variants.network.units)


def test_a_unit_that_does_not_run_alone_is_a_row_and_is_told(variants: Variants, tmp_path: Path) -> None:
    report = fill(variants, tmp_path / "t.db", SimulatedRuntime(refuses="ReduceMean"), FEW)
    assert report.packed is not None
    assert report.packed.failed > 0
    assert "ReduceMean does not run alone here" in str(report.packed)
    assert report.predicted_ms is None
    with TableFile(tmp_path / "t.db") as store:
        table = LatencyTable(FINGERPRINT, store.measurements(FINGERPRINT), networks=store.networks(FINGERPRINT))
    assert len(table.failures) == report.packed.failed
    assert Predictor(variants.network.units, table, allow_missing=True).missing


def test_timings_that_were_disturbed_are_taken_again(variants: Variants, tmp_path: Path) -> None:
    report = fill(variants, tmp_path / "t.db", SimulatedRuntime(disturbed=0.1), FEW)
    assert report.packed is not None
    assert report.packed.failed == 0
    pieces = Pieces(variants.at({}), Owners.of(variants))
    with TableFile(tmp_path / "t.db") as store:
        alone = {row.spec: row for row in store.measurements(FINGERPRINT) if row.place == "isolated"}
    for number, unit in enumerate(variants.network.units):
        piece = pieces.cut_out(number)
        assert piece is not None
        assert alone[unit.spec(variants.network.widths)].median_ms == pytest.approx(work_ms(piece), rel=0.1, abs=2e-3)


def test_a_machine_that_is_always_disturbed_makes_failures_and_no_times(variants: Variants, tmp_path: Path) -> None:
    report = fill(variants, tmp_path / "t.db", SimulatedRuntime(disturbed=0.9), FEW)
    assert "the machine is disturbed" in str(report.packed)


def test_a_runtime_that_times_no_nodes_is_profiled_by_whole_networks(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntime, "status", lambda self: BackendStatus(self.name, True, "x", ("measures",)))
    shortly = MeasureConfig(warmup_s=0.0, min_time_s=0.0, max_time_s=0.01, min_samples=3, max_samples=5)
    config = ProfileConfig(
        networks_min=2, networks_max=2, target_error=0.0, measure=shortly, measure_copies=shortly, copies=(1, 2)
    )
    report = profile(network, tmp_path / "t.db", config=config)
    assert report.measured == 2
    assert report.packed is not None
    assert report.packed.failed == 0
    assert report.predicted_ms is not None
    prediction = predict(network.units, network.widths, open_table(tmp_path / "t.db"), network=network.hash)
    assert not prediction.missing
    assert prediction.count("measured") == len(network.units)
