"""The fidelity sweep: held-out widths, figures with known truth, and what is kept, resumed and reported."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fidelity, fidelity_cell, fidelity_reuse, fidelity_transfer
from benchmarks.fidelity import Sweep, last_words, main
from benchmarks.fidelity_figures import by_kind, judge, judge_ours, judge_peer, judge_twice, ratio_figures, truths
from benchmarks.fidelity_networks import NAMES, make_network
from benchmarks.fidelity_peers import FLOPS, PEERS, fit_line, interpolate
from benchmarks.fidelity_report import make_report, read_lines
from benchmarks.fidelity_store import (
    Cell,
    Isolated,
    Kind,
    Profiled,
    Reuse,
    Transfer,
    Vector,
    hash_sources,
    path_of,
    read_cell,
    read_setting,
    table_of,
    write_cell,
)
from benchmarks.fidelity_vectors import draw, made_up_importances
from benchmarks.isolated import Pieces
from lut import LatencyTable, Predictor, TableError, open_table
from profiler.backends import get_backend
from profiler.backends.onnxruntime_plain import evaluate
from profiler.inplace import Owners
from profiler.network import analyze
from profiler.variants import prepare
from pruner.cost import Latency
from pruner.tabulate import Options, Tabulator

SWEPT = [name for name in ("onnxruntime", "openvino") if "times nodes" in get_backend(name).status().abilities]


def vector(ms: float, passes: tuple[float, float], kind: str = "free", **peers: float) -> Vector:
    return Vector(kind, {"a": 3}, ms, 0.9 * ms, 1.1 * ms, ms, 0, list(passes), dict(peers))


def finished() -> Cell:
    return Cell(
        profiled=Profiled(12.3, 17, 0, 0, 340, 0.01, 0.02, "predictions are good enough"),
        vectors=[vector(1.0, (1.0, 1.0)), vector(2.04, (2.0, 2.0), "edge"), vector(4.4, (4.0, 4.0), "plan")],
        isolated=Isolated(3.0, 1, 20, 0, 0, [[1.2, 0.9, 1.0]]),
        units=20,
        groups=5,
        unpruned_ms=4.5,
    )


@pytest.mark.skipif(not SWEPT, reason="no runtime is installed")
def test_a_tiny_sweep_measures_what_it_predicted_and_runs_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process instead of children: starting these takes longer than what they do."""
    measured = []

    def measure(self: Sweep, name: str, runtime: str, kind: Kind) -> None:
        assert kind is Cell
        measured.append(runtime)
        cell = fidelity_cell.measure_cell(name, runtime, self.store, fidelity_cell.limits_of(quick=True, seconds=None))
        write_cell(path_of(self.store, name, runtime), cell, read_setting())

    monkeypatch.setattr(Sweep, "measure", measure)
    quick = ["--quick", "--store", str(tmp_path), "--out", str(tmp_path / "docs" / "fidelity.md"), "--runtimes", *SWEPT]
    assert main(quick) == 0
    assert main(quick) == 0
    assert measured == SWEPT
    for runtime in SWEPT:
        check_cell(tmp_path, runtime)
    report = (tmp_path / "docs" / "fidelity.md").read_text(encoding="utf-8")
    assert all(f"### {runtime}" in report for runtime in SWEPT)
    check_reuse(tmp_path, SWEPT[0])
    check_predicting_again(tmp_path, [*quick, "--predict"])
    assert (tmp_path / "docs" / "fidelity.svg").exists()


def check_reuse(store: Path, runtime: str) -> None:
    """The network's own rows stand in for another's: beside them all is known at once, alone nothing is at first."""
    shutil.copy(table_of(store, "tiny", runtime), table_of(store, "other", runtime))
    found = fidelity_reuse.measure_reuse("tiny", runtime, store)
    table_of(store, "other", runtime).unlink()
    assert (found.others, found.after) == (["other"], [0, 1, 2, 4])
    assert found.alone[0] is None
    assert None not in found.beside
    rows = fidelity_reuse.read_rows(table_of(store, "tiny", runtime))[1]
    one, two = (fidelity_reuse.first_of(rows, count) for count in (1, 2))
    assert rows[0][: 2 * len(one[0])] == two[0]
    assert fidelity_reuse.first_of(rows, len(rows[1])) == rows


def check_predicting_again(store: Path, command: list[str]) -> None:
    """A cell of older sources gets new predictions; what was measured stays, and the report says so."""
    path = path_of(store, "tiny", SWEPT[0])
    stored = read_cell(path, Cell)
    assert stored is not None
    setting, cell = stored
    said = [each.ms for each in cell.vectors]
    old = replace(cell, vectors=[replace(each, ms=7.0) for each in cell.vectors])
    write_cell(path, old, replace(setting, sources="older"))
    assert main(command) == 0
    anew = read_cell(path, Cell)
    assert anew is not None
    assert [each.ms for each in anew[1].vectors] == pytest.approx(said)
    assert [each.passes_ms for each in anew[1].vectors] == [each.passes_ms for each in cell.vectors]
    assert (anew[0].sources, anew[1].predicted_with) == ("older", hash_sources())
    assert "1 of these were predicted again" in (store / "docs" / "fidelity.md").read_text(encoding="utf-8")


def check_cell(store: Path, runtime: str) -> None:
    stored = read_cell(path_of(store, "tiny", runtime), Cell)
    early = json.loads((store / f"tiny.{runtime}.predicted.json").read_text(encoding="utf-8"))["cell"]
    assert stored is not None
    cell = stored[1]
    assert [each.kind for each in cell.vectors] == ["free", "edge", "plan"]
    table = open_table(table_of(store, "tiny", runtime))
    seen = {row.widths for row in table.networks}
    for kept, predicted in zip(cell.vectors, early["vectors"], strict=True):
        assert tuple(sorted(kept.widths.items())) not in seen
        assert len(kept.passes_ms) == 2
        assert min(kept.passes_ms) > 0
        assert set(kept.peers_ms) == set(PEERS)
        assert predicted == predicted | {"ms": kept.ms, "low_ms": kept.low_ms, "passes_ms": [], "peers_ms": {}}
    assert len(cell.again_ms) == len(table.networks)
    check_tabled_latency(table)
    assert cell.isolated is not None
    assert (cell.isolated.failed, cell.isolated.missing) == (0, 0)
    assert cell.isolated.networks == len(table.networks) == len(cell.isolated.sums)


def check_tabled_latency(table: LatencyTable) -> None:
    """What a solver is told of the latency is what the predictor says."""
    model, picture = make_network("tiny")
    network = analyze(model, (picture,))
    predictor = Predictor(network.units, table, network=network.hash)
    full = network.widths
    names = tuple(full)
    options = Options(names, tuple(np.array([8, 16, full[name]]) for name in names), {}, {}, {})
    tabled = Tabulator(options, full).cost(Latency(predictor))
    for choice in (np.array([2] * len(names)), np.array([number % 3 for number in range(len(names))])):
        widths = {name: int(own[o]) for name, own, o in zip(names, options.widths, choice, strict=True)}
        assert tabled.at(choice) == pytest.approx(predictor.latency_ms(widths))


def test_units_cut_out_of_the_graph_compute_one_after_the_other_what_the_network_does() -> None:
    pytest.importorskip("onnxruntime")
    model, picture = make_network("tiny")
    network = analyze(model, (picture,))
    variants = prepare(network)
    half = variants.at(variants.widths_removal({name: size // 2 for name, size in network.widths.items()}))
    pieces = Pieces(half, Owners.of(variants))
    values: dict[str, Any] = {half.graph.input[0].name: picture.numpy()}
    for number in range(len(network.units)):
        piece = pieces.cut_out(number)
        assert piece is not None
        values |= evaluate(piece.SerializeToString(), [values[item.name] for item in piece.graph.input])
    name = half.graph.output[0].name
    expected = evaluate(half.SerializeToString(), [picture.numpy()])[name]
    np.testing.assert_allclose(values[name], expected, rtol=1e-4, atol=1e-6)


def test_figures_of_predictions_whose_errors_are_known() -> None:
    measured = np.array([1.0, 2.0, 4.0, 8.0])
    found = judge([1.1, 1.8, 4.0, 8.0], measured)
    assert found.mae == pytest.approx(0.05)
    assert found.bias == pytest.approx(0.0)
    assert found.p95 == pytest.approx(0.1)
    assert found.tau == pytest.approx(1.0)
    assert judge([2.0, 1.0, 4.0, 8.0], measured).tau == pytest.approx(4 / 6)
    assert judge([1.0], measured[:1]).tau is None


def test_truth_is_the_geometric_mean_and_measuring_twice_has_an_error_of_its_own() -> None:
    vectors = [vector(2.0, (1.0, 4.0)), vector(3.0, (3.0, 3.3))]
    assert truths(vectors) == pytest.approx([2.0, 9.9**0.5])
    assert judge_twice(vectors).mae == pytest.approx((3.0 + 0.1) / 2)


def test_coverage_counts_truths_inside_the_intervals_and_kinds_are_judged_apart() -> None:
    vectors = [vector(1.0, (1.05, 1.05)), vector(1.0, (1.2, 1.2)), vector(2.0, (2.0, 2.0), "plan")]
    assert judge_ours(vectors).coverage == pytest.approx(2 / 3)
    assert by_kind(vectors)["plan"] == 0.0
    assert by_kind(vectors)["edge"] is None
    assert "coverage" in judge_ours(vectors).misses()


def test_a_peer_that_did_not_predict_all_has_no_figures() -> None:
    vectors = [vector(1.0, (1.0, 1.0), **{FLOPS: 2.0}), vector(1.0, (1.0, 1.0))]
    assert judge_peer(vectors, FLOPS) is None
    found = judge_peer(vectors[:1], FLOPS)
    assert found is not None
    assert found.mae == pytest.approx(1.0)


def test_sums_of_units_are_compared_with_whole_networks() -> None:
    assert ratio_figures([[3.0, 1.0, 2.0], [4.0, 2.0, 2.0]], 1) == pytest.approx((0.75, 0.25))
    assert ratio_figures([], 0) is None


def test_the_linear_peers_find_a_line_and_interpolation_meets_its_points() -> None:
    macs = np.array([1e6, 2e6, 4e6, 8e6])
    assert fit_line(macs, 0.5 + 1e-6 * macs)(np.array([3e6, 16e6])) == pytest.approx([3.5, 16.5])
    found = interpolate(np.array([2.0, 1.0, 2.0]), np.array([3.0, 1.0, 5.0]), np.array([0.5, 1.5, 2.0, 9.0]))
    assert found == pytest.approx([1.0, 2.5, 4.0, 4.0])


def test_edge_vectors_stand_on_a_step_or_one_channel_over_it() -> None:
    full, steps = {"a": 64, "b": 48, "c": 6}, {"a": 8, "b": 16, "c": 16}
    rest: Mapping[str, set[int]] = {name: set() for name in full}
    for seed in range(200):
        widths = draw(full, steps, np.random.default_rng(seed))
        for name, width in widths.items():
            assert 1 <= width <= full[name]
            rest[name].add(width % min(steps[name], full[name]))
    assert rest == {"a": {0, 1}, "b": {0, 1}, "c": {0}}


def test_made_up_importances_are_positive_ascending_and_the_same_again() -> None:
    one, other = (made_up_importances({"a": 9}, np.random.default_rng(1))["a"] for _ in range(2))
    assert (one == other).all()
    assert (np.diff(one) > 0).all()
    assert one[0] > 0


def test_cells_are_read_as_they_were_written(tmp_path: Path) -> None:
    setting, cell = read_setting(), finished()
    moved = Transfer(["vit"], Profiled(5.0, 16, 0, 0, 300, None, None, "…"), 10, 4)
    write_cell(path_of(tmp_path, "resnet18", "openvino"), cell, setting)
    write_cell(path_of(tmp_path, "resnet18", "openvino", Transfer), moved, setting)
    reused = Reuse(["vit"], [0, 4], [None, 0.05], [0.027, 0.02])
    write_cell(path_of(tmp_path, "resnet18", "openvino", Reuse), reused, setting)
    assert read_cell(path_of(tmp_path, "resnet18", "openvino", Reuse), Reuse) == (setting, reused)
    assert read_cell(path_of(tmp_path, "resnet18", "openvino"), Cell) == (setting, cell)
    assert read_cell(path_of(tmp_path, "resnet18", "openvino", Transfer), Transfer) == (setting, moved)
    assert read_cell(path_of(tmp_path, "resnet18", "onnxruntime"), Cell) is None
    assert "| resnet18 | – / 2.7% | 5.0% / 2.0% |" in make_report(read_lines(["resnet18"], tmp_path))


def test_cells_that_were_not_run_are_shown_empty_and_misses_are_marked_and_counted(tmp_path: Path) -> None:
    write_cell(path_of(tmp_path, "resnet18", "openvino"), finished(), read_setting())
    write_cell(path_of(tmp_path, "vit", "openvino"), Cell(failure="killed by signal 9"), read_setting())
    report = make_report(read_lines(["resnet18", "vit"], tmp_path))
    row = next(line for line in report.splitlines() if line.startswith("| resnet18 | 20 |"))
    assert "**4.0%**" in row
    assert "| 0.0% | 2.0% | 10.0% |" in row
    assert [set(line) for line in report.splitlines() if line.startswith("| vit |")] == [set("| vit")] * 10
    assert "Of 1 networks on a runtime 0 reach all four goals" in report
    assert "Not run: resnet18 on onnxruntime, vit on onnxruntime." in report
    assert "vit on openvino: killed by signal 9" in report


def test_a_failed_cell_is_kept_with_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, timeout_s=0.01)
    sweep.run(sweep.missing(["vit", "edsr"], ["onnxruntime"], Cell, set()), Cell)
    for name in ("vit", "edsr"):
        stored = read_cell(path_of(tmp_path, name, "onnxruntime"), Cell)
        assert stored is not None
        assert stored[1].failure == "timeout after 0.01 s"
    assert sweep.missing(["vit", "edsr"], ["onnxruntime"], Cell, {"edsr"}) == [("edsr", "onnxruntime")]


def test_last_words_are_the_error_with_its_advice() -> None:
    trace = "Traceback\n  File x\nlut.errors.BackendError: It is missing.\nInstall it"
    assert last_words(1, trace) == "lut.errors.BackendError: It is missing. Install it"
    assert last_words(-9, trace) == "killed by signal 9"
    assert "said nothing" in last_words(1, "")


def test_tables_of_all_other_networks_on_the_runtime_are_taken(tmp_path: Path) -> None:
    for name, runtime in (("vit", "openvino"), ("edsr", "openvino"), ("lffn", "onnxruntime"), ("lffn", "openvino")):
        table_of(tmp_path, name, runtime).touch()
    assert list(fidelity_transfer.others_tables(tmp_path, "vit", "openvino")) == ["edsr", "lffn"]
    with pytest.raises(TableError, match="no other network's table"):
        fidelity_transfer.measure_transfer("tiny", "tensorrt", tmp_path, fidelity_cell.QUICK.profile)


def test_unseen_networks_give_no_rows_to_others_and_are_told_apart(tmp_path: Path) -> None:
    for name in ("vit", "edsr", "unet"):
        table_of(tmp_path, name, "openvino").touch()
    assert list(fidelity_transfer.others_tables(tmp_path, "vit", "openvino")) == ["edsr"]
    write_cell(path_of(tmp_path, "unet", "openvino"), finished(), read_setting())
    lines = read_lines(["vit"], tmp_path), read_lines(["unet"], tmp_path)
    report = make_report(*lines)
    before, after = report.split("## Networks by which nothing was chosen")
    assert "Of 1 by which nothing was chosen" in before
    assert "| unet |" not in before
    assert "| unet |" in after
    assert "Of 1 networks" not in report


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--only", "resnet19", "--store", str(tmp_path)]) == 2
    assert "resnet19" in capsys.readouterr().err


def test_every_network_can_be_made_and_the_report_hides_no_change_of_sources(tmp_path: Path) -> None:
    assert len(NAMES) >= 11
    (tmp_path / "lut").mkdir()
    before = hash_sources(tmp_path)
    (tmp_path / "lut" / "table.py").write_text("1", encoding="utf-8")
    assert hash_sources(tmp_path) != before
    assert fidelity.MODULES[Cell] == fidelity_cell.__name__
