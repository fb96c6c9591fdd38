"""`make gpu` as far as it goes without a GPU: its plan, its order, its page. Figures here are made up, and say so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import gpu
from benchmarks.gpu import main, run_steps
from benchmarks.gpu_report import Outcome, read_trtexec, slug, write_report
from benchmarks.gpu_steps import BUDGETS, NETWORKS, TASK, Step, plan_steps
from pruner.main import app
from pruner.task import load_task

EVERY = plan_steps(Path("store"), "8.9", gpu.ON_GPU, "/opt/trtexec")
DEVICE = {"name": "Made-up GPU", "driver": "0.0", "ecc": None}
SUMMARY = "[I] GPU Compute Time: min = 1 ms, max = 3 ms, mean = 2 ms, median = {} ms, percentile(90%) = 3 ms"
"""Made up after NVIDIA's documents; what trtexec really writes has not been seen (docs/unverified.md)."""


def test_every_latprune_command_in_the_plan_has_only_options_that_there_are() -> None:
    checked = 0
    for step in EVERY:
        if step.command[1:3] != ("-m", "pruner.main"):
            continue
        name = step.command[3]
        helped = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
        for word in step.command[4:]:
            if word.startswith("--"):
                assert word in helped, step
        checked += 1
    assert checked > len(NETWORKS) * len(BUDGETS) * 3


def test_every_step_is_one_of_a_kind_and_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for step in EVERY:
        assert step.name not in seen
        assert set(step.needs) <= seen, step
        seen.add(step.name)


def test_without_classic_tensorrt_nothing_is_pruned_and_without_trtexec_nothing_compared() -> None:
    names = [step.name for step in plan_steps(Path("store"), "8.9", ["tensorrt-rtx"], "trtexec")]
    assert names == ["tests", *(f"{network}-tensorrt-rtx-unpruned" for network in NETWORKS)]
    without = plan_steps(Path("store"), "8.9", gpu.ON_GPU, None)
    assert not any("trtexec" in step.name for step in without)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_tasks_that_are_pruned_load(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    path = tmp_path / f"{name}.py"
    path.write_text(TASK.format(name=name))
    task = load_task(str(path))
    assert task.inputs()[0].shape == (1, 3, 224, 224)
    assert not task.build().training


def test_a_step_that_failed_stops_what_needs_it_and_runs_again_next_time(tmp_path: Path) -> None:
    steps = [Step("a", ("a",), "first"), Step("b", ("b",), "second", ("a",)), Step("c", ("c",), "third")]
    ran: list[str] = []
    codes = {"a": 1, "b": 0, "c": 0}

    def run(step: Step) -> Outcome:
        ran.append(step.name)
        return Outcome(step.name, codes[step.name], 1.0, "{}", "broken")

    first = run_steps(steps, tmp_path, run=run, say=lambda line: None)
    assert [first[name].code for name in "abc"] == [1, None, 0]
    assert first["b"].why == "a did not end well"
    codes["a"] = 0
    second = run_steps(steps, tmp_path, run=run, say=lambda line: None)
    assert [second[name].code for name in "abc"] == [0, 0, 0]
    assert ran == ["a", "c", "a", "b"]


def test_the_page_shows_promise_figure_and_trtexec_side_by_side() -> None:
    outcomes = {step.name: Outcome(step.name, 0, 2.0, "{}") for step in EVERY}
    outcomes["tests"] = Outcome("tests", 0, 9.0, "....\n4 passed in 9.00s")
    outcomes["resnet50-tensorrt-unpruned"] = Outcome("", 0, 2.0, 'noise\n{"measured_ms": 2.0}')
    told = json.dumps({"measured_ms": 1.005, "predicted_ms": 1.0, "difference": 1e-4})
    outcomes["resnet50-50-measure"] = Outcome("", 0, 2.0, told)
    outcomes["resnet50-50-trtexec"] = Outcome("", 0, 2.0, SUMMARY.format("1.0"))
    outcomes["mobilenet_v2-70-measure"] = Outcome("", 0, 2.0, told)
    outcomes["mobilenet_v2-70-trtexec"] = Outcome("", 0, 2.0, SUMMARY.format("0.9"))
    outcomes["mobilenet_v2-50-prune"] = Outcome("", 2, 2.0, "", "no | such\nbudget")
    page = write_report(DEVICE, {"date": "2026-01-01", "versions": {"torch": "2.9"}}, EVERY, outcomes)
    assert "# latprune on Made-up GPU" in page
    assert "Passed: 4 passed in 9.00s" in page
    assert "| resnet50 | 50% | 2 ms | 1 ms | 1.005 ms | 1.0e-04 | 1 ms | 1.0050 |" in page
    assert "1.1167 (OFF)" in page
    assert "with 2: no / such budget" in page
    assert "ecc" not in page
    assert all(line.count("|") == 6 for line in page.partition("## Every step")[2].splitlines() if line)


def test_what_was_not_run_or_cannot_be_read_is_a_dash_and_said() -> None:
    page = write_report(DEVICE, {}, EVERY, {"mobilenet_v2-50-trtexec": Outcome("", 0, 1.0, "other words")})
    assert "Not run." in page
    assert "| resnet50 | 70% | – | – | – | – | – | – |" in page
    assert page.count("| not run |") == len(EVERY) - 1
    assert read_trtexec("GPU Compute Time: other words") is None


def test_a_devices_name_becomes_a_files() -> None:
    assert slug("NVIDIA GeForce RTX 4090") == "geforce-rtx-4090"
    assert slug("NVIDIA Jetson AGX Orin (64 GB)") == "jetson-agx-orin-64-gb"


def test_without_a_gpu_it_ends_with_2_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], gpu=lambda: "There is no driver.") == 2
    assert "needs an NVIDIA GPU, and there is none here: There is no driver." in capsys.readouterr().err


def test_the_plan_is_told_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan"], gpu=lambda: "none") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EVERY)
    assert "--every-gpu-test" in lines[0]


INNER = """
import pytest

@pytest.mark.gpu
@pytest.mark.skipif({skipped}, reason="no GPU")
def test_on_the_gpu():
    assert {right}

def test_elsewhere():
    pass
"""


@pytest.mark.parametrize(
    ("skipped", "right", "selected", "code", "words"),
    [
        (False, True, "gpu", 0, "1 of 1 tests that need a GPU ran.\n"),
        (True, True, "gpu", 1, "0 of 1 tests that need a GPU ran. That is a failure"),
        (False, True, "not gpu", 1, "0 of 1 tests that need a GPU ran. That is a failure"),
        (False, False, "gpu", 1, "1 of 1 tests that need a GPU ran.\n"),
    ],
)
def test_a_gpu_test_that_did_not_run_is_a_failure(
    tmp_path: Path, skipped: bool, right: bool, selected: str, code: int, words: str
) -> None:
    root = Path(gpu.__file__).parent.parent
    (tmp_path / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_inner.py").write_text(INNER.format(skipped=skipped, right=right))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selected, "--every-gpu-test"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert words in done.stdout
