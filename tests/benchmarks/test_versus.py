"""The versus sweep: peers whose choices are known, the search by latency, figures, and what is kept and reported."""

import gzip
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks import versus_cell, versus_data
from benchmarks.versus import estimate, forget, main, parse, wanted_cells
from benchmarks.versus_data import Batches, DataMissingError, Pictures, moved, read_digits, read_fashion, read_idx
from benchmarks.versus_figures import (
    Point,
    Results,
    fastest,
    importance_lost,
    read_results,
    speedup,
    speedup_at,
    verdicts,
)
from benchmarks.versus_methods import METHODS, OURS, SCRATCH, cannot_run, solver_of
from benchmarks.versus_networks import NETWORKS, QUICK
from benchmarks.versus_peers import (
    ByOne,
    Flops,
    Kept,
    Memory,
    Uniform,
    neighbours_of,
    removal_order,
    rounded_up,
    steps_of,
    unpriced,
)
from benchmarks.versus_report import make_report
from benchmarks.versus_search import UnreachableError, search
from benchmarks.versus_store import (
    Base,
    Key,
    Places,
    Plan,
    Timed,
    Tuned,
    hash_sources,
    read_record,
    read_setting,
    write_record,
)
from benchmarks.versus_sweep import Job, Sweep
from lut.records import MeasureConfig
from profiler.backends import get_backend
from profiler.network import Network, analyze
from pruner.loop import WITHIN

RUNS = "times nodes" in get_backend("onnxruntime").status().abilities


@pytest.fixture(scope="module")
def network() -> Network:
    return analyze(NETWORKS[QUICK].build(0), (torch.zeros(NETWORKS[QUICK].shape),))


def sweep_in(store: Path, said: list[str] | None = None) -> Sweep:
    lines = [] if said is None else said
    return Sweep(Places(store), ("onnxruntime",), 1, 60.0, lines.append)


@pytest.mark.skipif(not RUNS, reason="ONNX Runtime is not installed")
def test_a_tiny_sweep_is_planned_tuned_timed_and_reported_and_runs_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process instead of children: starting these takes longer than what they do."""
    done = []

    def start_child(self: Sweep, job: Job) -> None:
        done.append((job.stage, job.key.method))
        versus_cell.run_stage(job.stage, job.keys, self.places.store)

    monkeypatch.setattr(Sweep, "start_child", start_child)
    monkeypatch.setattr("pruner.bench.LOOP_CONFIG", MeasureConfig(min_time_s=0.1, max_time_s=0.5))
    out = tmp_path / "docs" / "versus.md"
    quick = ["--quick", "--runtimes", "onnxruntime", "--jobs", "1", "--store", str(tmp_path), "--out", str(out)]
    assert main(quick) == 0
    assert main(quick) == 0
    methods = (OURS, "seed_step")
    assert done == [("base", ""), ("table", ""), *(("plan", m) for m in methods), *(("tuned", m) for m in methods)]
    results = read_results([QUICK], tmp_path, ["onnxruntime"])
    assert {key.method for key in results.points} == set(methods)
    for point in results.points.values():
        assert point.ratio > 0
        assert sum(point.plan.widths.values()) < sum(point.plan.sizes.values())
        tuned = read_record(Places(tmp_path).cell(point.key, "tuned"), Tuned)
        assert tuned is not None
        assert tuned[1].parameters < results.bases[QUICK, 0].parameters
    report = out.read_text(encoding="utf-8")
    assert "### tiny on onnxruntime" in report
    assert out.with_suffix(".svg").exists()


def test_the_order_of_removals_is_score_over_cost_and_costs_are_priced_anew() -> None:
    scores = {"a": np.array([1.0, 4.0, 9.0]), "b": np.array([2.0, 5.0])}

    def priced(widths: Mapping[str, int], group: str) -> float:
        return float(widths["b" if group == "a" else "a"])  # a product of both widths

    # a: 1/2 before b: 2/3; then b at 2 channels of a: 2/2 before a: 4/2; then a at one channel of b: 4/1
    assert removal_order(scores, priced, {"a": {"b"}, "b": {"a"}}) == ["a", "b", "a"]
    assert removal_order(scores, unpriced, {}) == ["a", "b", "a"]
    assert removal_order({"a": scores["a"], "b": 9 * scores["b"]}, unpriced, {}) == ["a", "a", "b"]


def test_costs_of_a_channel_are_differences_of_the_whole_network(network: Network) -> None:
    widths = {name: size - 3 for name, size in network.widths.items()}
    for group in network.widths:
        fewer = {**widths, group: widths[group] - 1}
        assert Flops(network)(widths, group) == pytest.approx(network.macs(widths) - network.macs(fewer))
        tensors = network.cut.liveness.activations
        activations = [tensor for tensor in tensors if network.units[tensor.first].macs_each]
        saved = sum(tensor.at(widths) for tensor in activations) - sum(tensor.at(fewer) for tensor in activations)
        assert Memory(network)(widths, group) == pytest.approx(saved)
        assert saved > 0


def test_one_by_one_keeps_the_best_never_empties_a_group_and_rounds_up(network: Network) -> None:
    generator = np.random.default_rng(0)
    scores = {name: generator.random(size) for name, size in network.widths.items()}
    plain = ByOne(scores, Memory(network), neighbours_of(network))
    stepped = ByOne(scores, Memory(network), neighbours_of(network), dict.fromkeys(scores, 16))
    assert plain.kept(0.0) == {name: tuple(range(len(own))) for name, own in scores.items()}
    assert set(plain.widths(1.0).values()) == {1}
    for name, width in plain.widths(0.4).items():
        assert stepped.widths(0.4)[name] == rounded_up(width, 16)
        assert set(plain.kept(0.4)[name]) == set(np.argsort(-scores[name])[:width].tolist())


def test_steps_are_the_tables_and_a_narrow_group_is_divided_in_four(network: Network) -> None:
    assert steps_of(network, lambda group, units, widths: 5) == dict.fromkeys(network.widths, 5)
    found = steps_of(network, lambda group, units, widths: 16)
    assert found == {name: size // 4 for name, size in network.widths.items()}
    assert set(found.values()) == {8, 12}


def test_uniform_keeps_the_same_share_of_every_group() -> None:
    peer = Uniform({"a": np.arange(10.0), "b": np.arange(4.0), "c": np.arange(1.0)})
    assert peer.kept(0.5) == {"a": (5, 6, 7, 8, 9), "b": (2, 3), "c": (0,)}


def test_torch_prunings_choice_is_told_in_our_groups_or_refused(network: Network) -> None:
    """That what it left equals what we cut, element by element, is checked inside at every strength."""
    module = pytest.importorskip("benchmarks.versus_torch_pruning", reason="Torch-Pruning is not installed")
    batches = Batches(read_digits(), 64, 32, plain=True)
    for importance in module.IMPORTANCES:
        peer = module.TorchPruning(network.model, network.inputs, network.groups, importance, batches)
        kept = [peer.kept(strength) for strength in (0.0, 0.3, 0.9)]
        counts = [sum(map(len, each.values())) for each in kept]
        assert counts[0] == sum(network.widths.values()) > counts[1] > counts[2]
        assert min(map(len, kept[2].values())) >= 1
    peer.groups = [replace(group, members=group.members[:1]) for group in peer.groups]
    with pytest.raises(module.DifferentGroupsError, match="something else"):
        peer.kept(0.5)


class Dial:
    """A peer of 1,000 channels whose strength is the share that goes."""

    def kept(self, strength: float) -> Kept:
        return {"a": tuple(range(round(1000 * (1 - strength))))}


def test_a_search_ends_within_the_aim_and_uses_it() -> None:
    asked = []

    def measure(kept: Kept) -> tuple[float, float]:
        asked.append(len(kept["a"]))
        return 0.1 + 0.9 * (len(kept["a"]) / 1000) ** 2, 0.001

    for budget in (0.75, 0.5, 0.3):
        found = search(Dial(), measure, budget)
        assert WITHIN[0] * budget <= found.ratio <= WITHIN[1] * budget
        assert found.trials[-1] == (found.strength, found.ratio)
    assert len(asked) < 24


def test_a_staircase_is_entered_at_its_edge_and_no_network_is_measured_twice() -> None:
    asked = []

    class Steps(Dial):
        def kept(self, strength: float) -> Kept:
            return {"a": tuple(range(rounded_up(len(super().kept(strength)["a"]), 250)))}

    def measure(kept: Kept) -> tuple[float, float]:
        asked.append(len(kept["a"]))
        return len(kept["a"]) / 1000, 0.0

    found = search(Steps(), measure, 0.6)
    assert (found.ratio, len(found.kept["a"])) == (0.5, 500)
    assert len(asked) == len(set(asked))


def test_a_budget_out_of_reach_is_refused_with_the_least_that_was_measured() -> None:
    with pytest.raises(UnreachableError, match=r"least of \d+ measured is 40\.0%"):
        search(Dial(), lambda kept: (0.4 + 0.6 * len(kept["a"]) / 1000 if len(kept["a"]) else 0.4, 0.0), 0.3)


def test_what_a_curve_takes_to_reach_an_accuracy_is_read_between_points_and_never_beyond_them() -> None:
    points = [(0.3, 0.80), (0.5, 0.90), (0.7, 0.88), (1.0, 0.94)]
    assert fastest(points, 0.85) == pytest.approx(0.4)
    assert fastest(points, 0.92) == pytest.approx(0.75)  # the point at 0.7 is worse than one before it
    assert fastest(points, 0.80) == pytest.approx(0.3)
    assert fastest(points, 0.79) is None
    assert fastest(points, 0.95) is None


def test_a_peer_that_never_gets_there_is_slower_and_one_that_starts_above_is_met_at_its_own_accuracy() -> None:
    ours, peer = [(0.4, 0.7), (0.8, 0.85), (1.0, 0.9)], [(0.5, 0.8), (1.0, 0.9)]
    assert speedup_at(ours, peer, 0.8, 0.85) == pytest.approx(0.75 / 0.8)
    assert speedup_at(ours, peer, 0.4, 0.95) == math.inf
    assert speedup_at(ours, peer, 0.4, 0.7) == pytest.approx(0.5 / (0.4 + 0.4 * 10 / 15))
    assert speedup_at([(0.4, 0.7)], peer, 0.4, 0.7) == 0.0
    assert speedup_at([(0.4, 0.86), (0.8, 0.85)], peer, 0.8, 0.85) == pytest.approx(0.75 / 0.4)
    assert speedup_at([(0.4, 0.8), (0.6, 0.9), (0.8, 0.85)], peer, 0.8, 0.85) == pytest.approx(0.75 / 0.5)


def test_what_a_plan_gives_up_is_told_by_the_scores_that_all_share(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    assert importance_lost(path, Plan(kept={"a": "0"})) is None
    save_file({"a": np.array([1.0, 2.0, 3.0]), "b": np.array([4.0])}, path)
    assert importance_lost(path, Plan(kept={"a": "0,2"})) == pytest.approx(0.2)
    assert importance_lost(path, Plan(kept={"a": "0-2", "b": "0"})) == pytest.approx(0.0)


def results_of(accuracies: Mapping[tuple[str, int, int], tuple[float, float]]) -> Results:
    results = Results(bases={("resnet20", seed): Base(0.92, 0.93) for seed in (0, 1)})
    for (method, budget, seed), (ratio, accuracy) in accuracies.items():
        key = Key("resnet20", "onnxruntime", method, budget, seed)
        plan = Plan(ratio=ratio, solver="milp")
        results.points[key] = Point(key, ratio, accuracy, None, plan, {"onnxruntime": ratio, "openvino": 2 * ratio})
    return results


TWO_SEEDS = {
    (OURS, 50, 0): (0.5, 0.90),
    (OURS, 50, 1): (0.5, 0.91),
    ("seed", 50, 0): (0.5, 0.86),
    ("seed", 50, 1): (0.5, 0.87),
    ("uniform", 50, 0): (0.5, 0.92),
    ("uniform", 50, 1): (0.5, 0.92),
    ("flops_step", 50, 0): (0.5, 0.91),
    ("flops_step", 50, 1): (0.5, 0.90),
}


def test_wins_and_losses_hold_with_every_seed_and_speedups_are_ratios_at_equal_accuracy() -> None:
    results = results_of(TWO_SEEDS)
    words = {verdict.peer: verdict.word for verdict in verdicts(results)}
    assert words == {"seed": "win", "uniform": "loss", "flops_step": "even"}
    found = speedup(results, "resnet20", "onnxruntime", "seed")
    assert found.values == pytest.approx([(0.5 + 0.5 * 4 / 7) / 0.5, (0.5 + 0.5 * 4 / 6) / 0.5])
    assert found.outside == 2


def test_what_was_not_run_is_empty_and_losses_failures_and_absences_are_listed() -> None:
    results = results_of({**TWO_SEEDS, (OURS, 50, 0): (0.6, 0.90), (OURS, 50, 1): (0.6, 0.91)})
    results.failures.append("ResNet-20, tp_taylor: killed by signal 9")
    report = make_report(results, ["resnet20", "mobilenet_v2", "efficientnet_lite0"])
    assert "| ours |  |  | 90.50% ± 0.50 | 60.0% |  |  |" in report
    assert "| from scratch |  |  |  |  |  |  |" in report
    assert "* ResNet-20 on onnxruntime, uniform width, 50 %: speed-up at our accuracy by seed" in report
    assert "| ResNet-20 | onnxruntime | 50 % | **60.0%** | 120.0% | 90.50% ± 0.50 | 0 |" in report
    assert "* MobileNetV2 on openvino: all." in report
    assert "* **ResNet-20**, **MobileNetV2**: trained here on the first 20,000 pictures of Fashion-MNIST" in report
    assert "* **EfficientNet-Lite0**: comes with its ImageNet weights" in report
    assert "* EfficientNet-Lite0 on openvino: all." in report
    assert "killed by signal 9" in report
    assert "Nothing to compare yet." in make_report(Results(), ["resnet20"])


def test_records_are_read_as_they_were_written_and_a_failure_ends_its_cell(tmp_path: Path) -> None:
    setting, sweep = read_setting(), sweep_in(tmp_path)
    keys = [Key("resnet20", "onnxruntime", "seed", budget, 0) for budget in (75, 50)]
    assert [job.key for job in sweep.bases(keys)] == [Key("resnet20", "", "", 0, 0)]
    assert sweep.plans(keys) == []
    base = Base(0.9, 0.91, parameters=7)
    write_record(Places(tmp_path).base("resnet20", 0), base, setting)
    assert read_record(Places(tmp_path).base("resnet20", 0), Base) == (setting, base)
    write_record(Places(tmp_path).table("resnet20", "onnxruntime"), base, setting)
    assert [job.keys for job in sweep.plans(keys)] == [tuple(keys)]
    write_record(Places(tmp_path).cell(keys[0], "plan"), Plan(failure="not within the budget"), setting)
    write_record(Places(tmp_path).cell(keys[1], "plan"), Plan(ratio=0.4), setting)
    assert sweep.plans(keys) == []
    assert [job.key for job in sweep.tunings(keys)] == [keys[1]]
    assert sweep.timings(keys) == []
    write_record(Places(tmp_path).cell(keys[1], "tuned"), Tuned(accuracy=0.5), setting)
    assert [(job.key, job.on) for job in sweep.timings(keys)] == [(keys[1], "onnxruntime")]
    write_record(Places(tmp_path).cell(keys[1], "timed.onnxruntime"), Timed(ratio=0.4), setting)
    assert sweep.timings(keys) == []
    assert read_results(["resnet20"], tmp_path, ["onnxruntime"]).failures == [f"{keys[0]}, plan: not within the budget"]
    forget(Places(tmp_path), keys, ["seed"])
    assert [job.keys for job in sweep.plans(keys)] == [tuple(keys)]


def test_a_child_that_fails_leaves_its_reason(tmp_path: Path) -> None:
    said: list[str] = []
    sweep = replace(sweep_in(tmp_path, said), timeout_s=0.01)
    key = Key("resnet20", "onnxruntime", "seed", 50, 0)
    sweep.at_once([Job("tuned", (key,))])
    stored = read_record(Places(tmp_path).cell(key, "tuned"), Tuned)
    assert stored is not None
    assert stored[1].failure == "timeout after 0.01 s"
    assert "failed: timeout" in said[0]


def test_the_core_form_exchanges_our_plans_and_the_full_form_has_all_methods_and_three_seeds(tmp_path: Path) -> None:
    core = wanted_cells(parse([]))
    assert {(key.network, key.seed, key.budget) for key in core} == {
        (name, seed, budget) for name in ("resnet20", "mobilenet_v2") for seed in (0, 1) for budget in (75, 50, 30)
    }
    assert {key.method for key in core if key.runtime == "openvino"} == {OURS}
    assert {key.method for key in core if key.runtime == "onnxruntime"} >= {OURS, "seed", "seed_step", "uniform"}
    full = wanted_cells(parse(["--full"]))
    assert {(key.runtime, key.method) for key in full} == {(r, m) for r in ("onnxruntime", "openvino") for m in METHODS}
    assert {key.seed for key in full} == {0, 1, 2}
    trained = {key.method for key in full if key.network == "efficientnet_lite0"}
    assert trained == set(METHODS) - {SCRATCH}
    some = parse(
        ["--only", "resnet20", "--budgets", "50", "--seeds", "1", "--methods", "seed", "--runtimes", "openvino"]
    )
    assert wanted_cells(some) == [Key("resnet20", "openvino", "seed", 50, 1)]
    counts, seconds = estimate(sweep_in(tmp_path), wanted_cells(some))
    assert counts == {"base": 1, "table": 1, "plan": 1, "tuned": 1, "timed": 1}
    assert seconds > 0


def test_a_method_whose_solver_is_missing_is_told_and_ours_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.versus_methods.has_solver", lambda name: False)
    assert cannot_run("knapsack") == "this latprune has no solver 'knapsack'"
    assert cannot_run(OURS) is None
    assert solver_of(OURS)
    assert cannot_run("seed") is None


def idx(array: NDArray[np.int64]) -> bytes:
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def test_fashion_mnist_is_read_from_its_files_or_missed_with_both_ways_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versus_data, "DEBIAN", tmp_path / "debian")
    with pytest.raises(DataMissingError, match=r"apt-get install dataset-fashion-mnist(.|\n)*--download"):
        read_fashion(tmp_path)
    assert main(["--store", str(tmp_path), "--out", str(tmp_path / "versus.md")]) == 2
    assert "Fashion-MNIST" in capsys.readouterr().err
    (tmp_path / "debian").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    for (pixels, labels), count in zip(versus_data.FILES.values(), (5, 3), strict=True):
        (tmp_path / "debian" / pixels).write_bytes(idx(images[:count]))
        (tmp_path / "debian" / labels).write_bytes(idx(np.arange(count)))
    pictures = read_fashion(tmp_path, side=32)
    assert pictures.train[0].shape == (5, 1, 32, 32)
    assert pictures.test[1].tolist() == [0, 1, 2]
    restored = pictures.train[0][4, 0, 2:-2, 2:-2] * versus_data.DEVIATION + versus_data.MEAN
    assert torch.allclose(restored, torch.from_numpy(images[4] / 255).float(), atol=1e-6)
    (tmp_path / "cut").write_bytes(gzip.compress(gzip.decompress(idx(images))[:-1]))
    with pytest.raises(ValueError, match="not whole"):
        read_idx(tmp_path / "cut")


def test_training_pictures_are_moved_each_by_itself_and_mirrored_only_where_that_is_allowed() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(28.0).repeat(64, 1, 28, 1)
    for mirror in (True, False):
        found = moved(ramp, mirror=mirror)
        assert found.shape == ramp.shape
        slopes = (found[:, 0, 14, 15] - found[:, 0, 14, 14]).tolist()
        assert set(slopes) == ({1.0, -1.0} if mirror else {1.0})
        assert len({float(value) for value in found[:, 0, 14, 14]}) > 3


def test_scores_see_the_first_pictures_in_order_and_training_all_in_another_order_each_epoch() -> None:
    images = torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 1, 8, 8)
    pictures = Pictures((images, torch.arange(10)), (images, torch.arange(10)), mirrored=False, name="ten")
    plain = Batches(pictures, 6, 4, plain=True)
    assert [labels.tolist() for _, labels in plain] == [[0, 1, 2, 3], [4, 5]]
    torch.manual_seed(0)
    epochs = [torch.cat([labels for _, labels in Batches(pictures, 10, 4)]).tolist() for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))


def test_every_network_runs_on_its_pictures_and_the_hash_follows_the_sources(tmp_path: Path) -> None:
    for subject in NETWORKS.values():
        one, other = (subject.build(0) for _ in range(2))
        with torch.no_grad():
            logits = one(torch.zeros(subject.shape))
            assert logits.shape == (1, subject.classes)
            assert torch.equal(logits, other(torch.zeros(subject.shape)))
    (tmp_path / "lut").mkdir()
    before = hash_sources(tmp_path)
    (tmp_path / "lut" / "table.py").write_text("1", encoding="utf-8")
    assert hash_sources(tmp_path) != before


def test_what_cannot_be_made_again_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--again", "resnet19"]) == 2
    assert "resnet19" in capsys.readouterr().err
