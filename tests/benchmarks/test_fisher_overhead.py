"""What Fisher scores cost: figures with known truth, and a tiny run of the whole benchmark."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import fisher_overhead
from benchmarks.fisher_overhead import CLEAR, MARK, VARIANTS, main, make, measure_peak, time_by_turns
from benchmarks.fisher_overhead_report import JUDGED, WORDS, Row, Size, judge, make_table

TINY = Size(2, 16, 3)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 32),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fisher_overhead, "NETWORKS", {"small": Small})
    return "small"


def rows(**times: list[float]) -> dict[str, Row]:
    peaks = {"plain": 1000, "hooks": 1000, "training": 1000, "fisher": 500, "fisher-set": 1101, "check": 100}
    return {name: Row(times.get(name.replace("-", "_"), [1.0, 2.0, 4.0]), peak) for name, peak in peaks.items()}


def test_ratios_are_taken_round_by_round() -> None:
    table = make_table({"net": rows(plain=[1.0, 2.0, 4.0], training=[1.1, 2.1, 5.0])})
    assert f"| net | {WORDS['training']} | 2 | 1.100 | 1.075–1.175 | 0 | 1.000 |" in table


def test_time_and_memory_are_judged() -> None:
    said = judge({"net": rows(training=[1.08, 2.16, 4.32], fisher=[0.5, 1.0, 2.0])})
    assert said == [
        "* net, training: 1.080 in time, 1.000 in memory: kept.",
        "* net, fisher: 0.500 in time, 0.500 in memory: kept, and the goal reached.",
        "* net, fisher-set: 1.000 in time, 1.101 in memory: missed.",
    ]


def test_each_round_runs_every_variant_twice_and_times_it_once(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(
        fisher_overhead, "VARIANTS", {name: lambda _, name=name: runs.append(name) for name in VARIANTS}
    )
    ticks = iter(range(10**6))
    times = time_by_turns(make(small, TINY), 3, lambda: 0.5 * next(ticks))
    assert times == {name: [500.0] * 3 for name in VARIANTS}
    assert runs[::2] == runs[1::2]
    assert len({tuple(runs[start : start + 2 * len(VARIANTS)]) for start in (0, 12, 24)}) == 3
    assert all(runs.count(name) == 6 for name in VARIANTS)


def test_weights_get_the_same_gradients_with_scores_as_without(small: str) -> None:
    found = {}
    for variant in ("plain", "hooks", "training", "fisher"):
        subject = make(small, TINY)
        VARIANTS[variant](subject)
        found[variant] = [parameter.grad for parameter in subject.model.parameters()]
        assert bool(subject.sums) == (variant in {"training", "fisher"})
    for variant in ("hooks", "training"):
        for one, other in zip(found[variant], found["plain"], strict=True):
            torch.testing.assert_close(one, other)
    assert found["fisher"] == [None] * len(found["plain"])


def test_every_variant_has_words_and_those_judged_are_among_them() -> None:
    assert WORDS.keys() == VARIANTS.keys()
    assert set(JUDGED) < VARIANTS.keys()


@pytest.mark.skipif(not CLEAR.exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_holds_at_least_the_activations_that_the_backward_pass_needs(small: str) -> None:
    large = Size(32, 128)
    map_bytes = 32 * 8 * 128 * 128 * 4
    assert measure_peak(small, "plain", large) > 2 * map_bytes  # the norm's and the second convolution's inputs


def test_a_run_writes_its_figures_behind_what_stands_in_the_report(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "fisher.md"
    report.write_text(f"# Kept\n\n{MARK}\n\nold figures\n")
    monkeypatch.setattr(fisher_overhead, "REPORT", report)
    monkeypatch.setattr(fisher_overhead, "Size", lambda *given: Size(*given) if given else TINY)

    def run_here(what: str, asked: list[str | int], malloc: dict[str, str]) -> object:
        main([f"--{what}", json.dumps(asked)])
        found = json.loads(capsys.readouterr().out)
        return found if what == "times" else 10**6  # so small a network may need no memory that is not there already

    monkeypatch.setattr(fisher_overhead, "run_apart", run_here)
    main(["--threads", str(torch.get_num_threads())])
    text = report.read_text()
    assert text.startswith(f"# Kept\n\n{MARK}\n\n`make fisher`, ")
    assert "old figures" not in text
    assert text.count("| small |") == len(VARIANTS)
    assert capsys.readouterr().out == ""
