"""The coverage sweep: what a cell proves, what is measured only once, and what the report says of it."""

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from benchmarks import coverage_cell
from benchmarks.coverage import Children, choose_rows, main, missing_cells, read_cell_of_child, sweep
from benchmarks.coverage_child import Small, small_subject
from benchmarks.coverage_measures import count_elements, other_choices, output_layers, uneven_choices
from benchmarks.coverage_models import (
    FROZEN_NORMS,
    LEFT_OUT,
    DensePart,
    Row,
    Subject,
    find_row,
    freeze_norms,
    list_rows,
    make_subject,
    same,
)
from benchmarks.coverage_records import UNFINISHED, Ours, Peer, judge_ours, judge_peer
from benchmarks.coverage_report import make_report
from benchmarks.coverage_store import Setting, Stored, path_of, read_cell, read_setting, write_cell
from benchmarks.coverage_summary import Line
from lut.records import ChannelGroup
from profiler.cut import cut

PROVED = Ours(
    parameters=1_500_000,
    find_s=1.25,
    groups=3,
    choices=24,
    frozen=2,
    approximate=0,
    frozen_reasons={"they reach the network's output": 2},
    prunable_share=0.9,
    removed_share=0.5,
    inner_share=0.6,
    form="module",
    difference=2e-16,
    mask_effect=0.7,
    wrong_difference=0.9,
    full_finite=True,
    trains=True,
    onnx_difference=3e-7,
)
PRUNED = Peer(
    part="whole",
    build_s=2.0,
    prune_s=3.0,
    groups=3,
    across_norms=0,
    removed_share=0.5,
    inner_share=0.6,
    shape_wrong=False,
    difference=1e-16,
    mask_effect=0.7,
    wrong_difference=0.9,
)
SETTING = Setting("2026-11-25", "a processor (2 cores)", 1, 1, {"torch": "2.14"}, "0123456789ab")


def changed(cell: Ours, **values: Any) -> Ours:
    return replace(cell, **values)


def changed_peer(cell: Peer, **values: Any) -> Peer:
    return replace(cell, **values)


def line(name: str, ours: Ours | None, peer: Peer | None, family: str = "classification") -> Line:
    return Line(
        Row(name, family, name),
        Stored(name, SETTING, ours) if ours else None,
        Stored(name, SETTING, peer) if peer else None,
    )


def said(_cell: Ours | Peer) -> None:
    """Where a child would write to stdout."""


def test_every_network_that_torchvision_lists_has_a_row_and_a_file_of_its_own() -> None:
    rows = list_rows()
    listed = {name for name in torchvision.models.list_models() if not name.startswith("quantized_")}
    assert {row.builder for row in rows} == listed
    assert len({path_of(Path(), row.name, "ours") for row in rows}) == len(rows) == len(listed) + len(FROZEN_NORMS)
    assert {row.name for row in rows if row.left_out} == set(LEFT_OUT)


def test_what_is_left_out_for_its_size_runs_when_it_is_named() -> None:
    rows = list_rows()
    assert not {row.name for row in choose_rows(rows, [])} & set(LEFT_OUT)
    assert not {row.name for row in choose_rows(rows, ["classification"])} & set(LEFT_OUT)
    assert [row.name for row in choose_rows(rows, ["vit_h_14"])] == ["vit_h_14"]
    with pytest.raises(ValueError, match="resnet51"):
        choose_rows(rows, ["resnet51"])


def test_a_detector_detects_and_its_dense_part_shares_its_modules_and_gives_all_heads_outputs() -> None:
    subject = make_subject(find_row("ssdlite320_mobilenet_v3_large"))
    part = subject.part(subject.model)
    assert isinstance(part, DensePart)
    assert part.detector is subject.model
    with torch.no_grad():
        outputs = part(*subject.compared[-1])
        detected = subject.model(*subject.inputs)
    assert len(detected[0]["boxes"]) == 10
    assert [output.shape[-1] for output in outputs] == [4, 91]


def test_frozen_norms_stand_in_the_place_of_all_plain_ones() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=0.5)))
    freeze_norms(model)
    (norm,) = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert (norm.eps, model.get_submodule("1.0")) == (0.5, norm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_elements_in_two_positions_count_once() -> None:
    positions = {"a": {0: [0, 2], 1: [1, 1]}, "buffer": {0: [0]}}
    expected = sum(i in (0, 2) or j == 1 for i, j in itertools.product(range(3), range(4)))
    assert count_elements({"a": (3, 4)}, positions) == expected


def test_uneven_choices_never_take_all_and_the_wrong_ones_are_others() -> None:
    groups = [ChannelGroup(f"g{size}", size, ()) for size in range(1, 30)]
    chosen = uneven_choices(groups, 3)
    assert "g1" not in chosen
    for group in groups[1:]:
        gone = chosen[group.name]
        assert abs(len(gone) - group.size / 2) <= 1.5
        assert len(gone) < group.size
        assert len(set(other_choices(group.size, gone))) == len(gone)


class TwoHeads(nn.Module):
    """A trunk, a head that another follows, and a residual that reaches the output past the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.stem = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.residual, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        start = self.stem(torch.relu(self.trunk(picture)))
        found = start + self.residual(start)
        return {"map": found, "label": self.head(found.mean((2, 3)))}


def test_output_layers_are_those_with_a_way_to_the_output_that_meets_no_other() -> None:
    assert output_layers(TwoHeads(), [(torch.zeros(1, 3, 4, 4),)]) == ["head", "residual", "stem"]
    assert output_layers(Small(), [(torch.zeros(1, 3, 2, 2),), (torch.zeros(1, 3, 8, 8),)]) == ["last"]


def test_a_small_network_is_measured_and_proved() -> None:
    cell = coverage_cell.measure(small_subject(), said, contextlib.nullcontext)
    assert judge_ours(cell).word == "exact"
    assert (cell.failures, cell.groups, cell.choices, cell.trains, cell.form) == ({}, 1, 8, True, "module")
    assert cell.output_layers == ["last"]
    total = sum(parameter.numel() for parameter in Small().parameters())
    half = 4 * 3 * 9 + 4 + 4 + 4
    assert cell.removed_share == pytest.approx((half + 4 * 4 * 9) / total)
    assert cell.inner_share == pytest.approx(0.5)
    assert cell.onnx_difference is not None
    assert cell.onnx_difference < 1e-5


def test_a_cut_that_removes_others_than_it_should_is_found_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, groups: Sequence[ChannelGroup], remove: dict[str, list[int]], **how: bool) -> nn.Module:
        size = {group.name: group.size for group in groups}
        return cut(model, groups, {name: other_choices(size[name], gone) for name, gone in remove.items()}, **how)

    monkeypatch.setattr(coverage_cell, "cut", wrong)
    assert judge_ours(coverage_cell.measure(small_subject(), said, contextlib.nullcontext)).word == "wrong"


def test_a_network_that_does_not_run_is_a_finding() -> None:
    inputs = (torch.zeros(1, 5, 8, 8),)
    cell = coverage_cell.measure(Subject(Small(), inputs, (inputs,), (inputs,), same), said, contextlib.nullcontext)
    assert judge_ours(cell).word == "fails"
    assert "LatpruneError" in judge_ours(cell).detail


def test_torch_pruning_is_measured_by_the_elements_that_it_leaves() -> None:
    pytest.importorskip("torch_pruning")
    from benchmarks import coverage_peer

    subject = small_subject()
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    cell = coverage_peer.measure(subject, said, contextlib.nullcontext)
    assert judge_peer(cell).word == "exact"
    assert (cell.groups, cell.part, cell.output_layers) == (1, "whole", ["last"])
    assert cell.inner_share == pytest.approx(0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())


class Shuffled(nn.Module):
    """Channels change places by a number in the code, which Torch-Pruning takes for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.z = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3)

    def forward(self, picture: Tensor) -> Tensor:
        found: Tensor = self.z(self.b(self.a(picture).roll(3, 1)).relu())
        return found


def test_a_removal_of_torch_pruning_s_that_is_not_the_masked_network_is_found_wrong() -> None:
    pytest.importorskip("torch_pruning")
    from benchmarks import coverage_peer

    inputs = (torch.randn(1, 3, 12, 12),)
    subject = Subject(Shuffled().eval(), inputs, (inputs,), (inputs,), same)
    assert judge_peer(coverage_peer.measure(subject, said, contextlib.nullcontext)).word == "wrong"


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        (PROVED, "exact"),
        (changed(PROVED, approximate=1), "approximate"),
        (changed(PROVED, approximate=3, difference=None, mask_effect=None), "approximate"),
        (changed(PROVED, difference=1e-7), "wrong"),
        (changed(PROVED, difference=float("nan")), "wrong"),
        (changed(PROVED, mask_effect=0.001), "not compared"),
        (changed(PROVED, wrong_difference=1e-9), "not compared"),
        (changed(PROVED, full_finite=False), "wrong"),
        (changed(PROVED, failures={"train": "RuntimeError"}), "fails"),
        (changed(PROVED, failures={"export": "RuntimeError"}), "exact"),
        (changed(PROVED, groups=0), "nothing pruned"),
        (Ours(failure="killed by signal 9"), "fails"),
        (Ours(), "nothing pruned"),
    ],
)
def test_a_cell_is_exact_only_when_the_comparison_was_awake(cell: Ours, word: str) -> None:
    assert judge_ours(cell).word == word


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        (PRUNED, "exact"),
        (changed_peer(PRUNED, across_norms=1), "approximate"),
        (changed_peer(PRUNED, difference=0.3), "wrong"),
        (changed_peer(PRUNED, shape_wrong=True), "wrong"),
        (changed_peer(PRUNED, compare_failure="KeyError"), "not compared"),
        (changed_peer(PRUNED, mask_effect=0.0), "not compared"),
        (changed_peer(PRUNED, wrong_difference=0.0), "not compared"),
        (changed_peer(PRUNED, groups=0), "nothing pruned"),
        (Peer(failure="timeout after 120 s"), "timeout"),
        (Peer(failure="RuntimeError: no"), "fails"),
    ],
)
def test_torch_pruning_is_judged_by_the_same_rules(cell: Peer, word: str) -> None:
    assert judge_peer(cell).word == word


def test_a_finished_cell_is_not_measured_again_unless_it_is_asked_for(tmp_path: Path) -> None:
    rows = choose_rows(list_rows(), ["alexnet", "vgg11"])
    measured: list[tuple[str, str]] = []

    def measure(name: str, side: str) -> Ours | Peer:
        if (name, side) == ("vgg11", "ours") and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((name, side))
        return PROVED if side == "ours" else PRUNED

    def go(again: set[str]) -> None:
        sweep(missing_cells(rows, again, tmp_path, ("ours", "peer")), tmp_path, measure, threads=1, jobs=1)

    with pytest.raises(KeyboardInterrupt):
        go(set())
    assert measured == [("alexnet", "ours"), ("alexnet", "peer")]
    measured.append(("stopped", ""))
    go(set())
    assert measured[3:] == [("vgg11", "ours"), ("vgg11", "peer")]
    go(set())
    assert len(measured) == 5
    go({"alexnet"})
    assert measured[5:] == [("alexnet", "ours"), ("alexnet", "peer")]


def test_a_stored_cell_comes_back_with_what_it_was_measured_with(tmp_path: Path) -> None:
    setting = read_setting("ours", threads=1, jobs=1)
    assert setting.versions["torch"] == torch.__version__.partition("+")[0]
    write_cell(tmp_path, "a (frozen)", setting, PROVED)
    stored = read_cell(tmp_path, "a (frozen)", Ours)
    assert stored == Stored("a (frozen)", setting, PROVED)
    assert read_cell(tmp_path, "a (frozen)", Peer) is None


def test_a_child_that_is_stopped_leaves_what_it_had_said() -> None:
    half = changed(PROVED, failures={"export": UNFINISHED}, onnx_difference=None)
    output = "a library prints\n" + json.dumps(vars(PROVED) | {"failure": UNFINISHED}) + "\n" + json.dumps(vars(half))
    cell = read_cell_of_child(output + "\n{torn", Ours, "timeout after 900 s")
    assert cell.failures == {"export": "timeout after 900 s"}
    assert judge_ours(cell).word == "exact"
    early = read_cell_of_child(json.dumps(vars(Ours(failure=UNFINISHED))), Ours, "killed by signal 9")
    assert early.failure == "killed by signal 9"
    assert read_cell_of_child("", Peer, "no output").failure == "no output"


def test_a_network_that_was_not_run_is_an_empty_row() -> None:
    report = make_report([line("resnet18", PROVED, PRUNED), line("vgg11", None, None)])
    assert f"| vgg11 |{' |' * 14}\n" in report
    assert "Not run, on one side or both: vgg11." in report


def test_the_report_says_what_was_measured_on_both_sides() -> None:
    soft = changed(PROVED, approximate=1, approximate_reasons={"softmax in 3.attn": 1}, find_s=12.0, inner_share=0.2)
    failed = Ours(failure="LatpruneError: the network does not run")
    report = make_report(
        [
            line("resnet18", PROVED, PRUNED),
            line("vit_b_16", soft, PRUNED),
            line("r3d_18", failed, Peer(failure="timeout after 120 s"), "video"),
        ]
    )
    rows = {row.split(" | ")[0].strip("| "): row for row in report.splitlines() if row.startswith("| ")}
    ours, theirs = "1.5 M | 3 | 2 | 90.0% | 50.0% | exact | 2e-16 | 3e-07 | yes | 1.25", "5.00 | exact"
    assert rows["resnet18"] == f"| resnet18 | {ours} | {theirs} | 60.0% | 60.0% |"
    assert "| fails: LatpruneError |" in rows["r3d_18"]
    assert "| timeout |" in rows["r3d_18"]
    text = " ".join(report.split())
    assert "of 3 networks 1 exact, 1 approximate, 1 fails" in text
    assert "of 3 networks 2 exact, 1 timeout" in text
    assert (
        "On the 2 networks that both finish (pruned, and it runs): latprune 13.2 s in all, Torch-Pruning 10.0 s" in text
    )
    assert "vit_b_16, 12.0 s; over 10 s: vit_b_16 12.0 s" in text
    assert "less on vit_b_16 (20.0% and 60.0%)" in text
    assert "| softmax in #.attn | 1 | 1 |" in report
    assert "| they reach the network's output | 4 | 2 |" in report
    assert "a processor (2 cores), 1 thread; torch 2.14" in text


def test_prose_of_the_report_stands_in_lines_as_the_other_documents_do() -> None:
    report = make_report([line("resnet18", PROVED, PRUNED)])
    assert all(len(row) <= 150 for row in report.splitlines() if not row.startswith("|"))
    assert "## Classification" in report
    assert "## Video" not in report


def test_the_command_writes_the_report_and_says_whether_the_goal_was_met(tmp_path: Path) -> None:
    out, store = tmp_path / "coverage.md", tmp_path / "cells"
    options = ["--report", "--out", str(out), "--store", str(store)]
    assert main(options) == 0
    assert "Nothing was run yet" in out.read_text(encoding="utf-8")
    write_cell(store, "resnet18", SETTING, changed(PROVED, difference=0.5))
    assert main(options) == 1
    assert "wrong: differs by 0.5" in out.read_text(encoding="utf-8")
    assert main(["--only", "resnet51", *options]) == 2


@pytest.mark.slow
def test_both_sides_of_a_network_are_measured_in_processes_of_their_own() -> None:
    pytest.importorskip("torch_pruning")
    children = Children(threads=1, check_threads=1, timeout_s=300.0)
    ours, peer = children.measure("squeezenet1_1", "ours"), children.measure("squeezenet1_1", "peer")
    assert isinstance(ours, Ours)
    assert isinstance(peer, Peer)
    assert (judge_ours(ours).word, judge_peer(peer).word) == ("exact", "exact")
    assert ours.output_layers == peer.output_layers == ["classifier.1"]


@pytest.mark.slow
def test_a_child_is_stopped_when_it_takes_too_long() -> None:
    cell = Children(threads=1, check_threads=1, timeout_s=0.5).measure("squeezenet1_1", "ours")
    assert cell.failure == "timeout after 0.5 s"
