"""What `latprune measure` says of a figure from a GPU; figures here are made up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from profiler.backends import BackendStatus
from profiler.worker_replies import TimeReply
from pruner import deploy
from pruner.commands import profile
from pruner.commands.measure import gpu_lines
from pruner.deploy import BUILDS, measure
from pruner.main import app
from tests.profiler.networks import write_conv_net


def test_a_figure_from_the_processor_says_nothing_more() -> None:
    assert gpu_lines({"measured_ms": 1.0, "p99_ms": None, "between_builds": None, "command": None}) == []


def test_a_figure_from_a_gpu_tells_its_slow_end_its_builds_and_how_to_reproduce_it() -> None:
    found = {
        "p99_ms": 1.25,
        "between_builds": 0.031,
        "builds_ms": (1.0, 1.02, 0.99),
        "command": "trtexec --loadEngine=net.engine",
        "remarks": ("clocks were not locked",),
    }
    assert gpu_lines(found) == [
        "99 of 100 runs are within 1.25 ms",
        "3 engines built anew differ by 3.1 %; the figure is the middle one's",
        "to compare: trtexec --loadEngine=net.engine",
        "clocks were not locked",
    ]


def test_what_a_gpu_tells_of_a_time_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Worker:
        def __init__(self, name: str, **more: Any) -> None:
            self.name = name

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            return None

        def time(self, path: Path, config: Any, **more: Any) -> TimeReply:
            asked.append(more)
            return TimeReply(samples_ms=(1.0,), median_ms=1.0, noise=0.0, p99_ms=1.1, command="trtexec")

    monkeypatch.setattr(deploy, "WorkerClient", Worker)
    report = measure(write_conv_net(tmp_path / "network.onnx"), backend="tensorrt")
    assert asked[0]["builds"] == BUILDS
    assert report.to_json()["p99_ms"] == 1.1
    assert report.to_json()["command"] == "trtexec"


def test_a_runtime_that_times_nothing_makes_no_table_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SimpleNamespace(
        name="onnxruntime-cuda",
        status=lambda: BackendStatus("onnxruntime-cuda", True, "1.31", ("builds",), "no GPU is here"),
    )
    monkeypatch.setattr(profile, "get_backend", lambda name: whole)
    done = CliRunner().invoke(
        app, ["profile", "torchvision:resnet18", "--table", str(tmp_path / "t.db"), "--backend", "onnxruntime-cuda"]
    )
    assert done.exit_code == 2
    assert "no GPU is here" in done.stderr
    assert not list(tmp_path.iterdir())
