"""An engine that is handed over: what can be said of it without a GPU, and how it is judged with one.

There is no GPU here: where one is needed, a stand-in for the worker answers in its place, with times that are made up.
"""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from typer.testing import CliRunner

from lut import BackendError, LatpruneError
from profiler.backends import BuildSettings
from profiler.backends.onnxruntime_plain import evaluate
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.nvml import GpuFacts
from profiler.worker_replies import OutputsReply, TimeReply
from pruner import engine_file
from pruner.engine_file import difference, measure_engine, read_side_car
from pruner.main import app
from pruner.sidecar import hash_file
from tests.profiler.networks import write_conv_net

pytest.importorskip("tensorrt_rtx")

GPU = GpuFacts("RTX 3090", "999.1", compute_capability="8.6")
NO_GPU = "There is no driver."


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A small engine for 8.6, and the ONNX file that it was built from."""
    folder = tmp_path_factory.mktemp("built")
    network = write_conv_net(folder / "model.onnx", linear=False)
    TensorRtRtx().build(network, folder / "model.engine", BuildSettings(("8.6",)))
    return (folder / "model.engine").read_bytes(), network.read_bytes()


@pytest.fixture
def engine(built: tuple[bytes, bytes], tmp_path: Path) -> Path:
    """The same with its side-car, in a folder of its own."""
    path = tmp_path / "model.engine"
    path.write_bytes(built[0])
    (tmp_path / "model.onnx").write_bytes(built[1])
    describe(path)
    return path


def describe(path: Path, **other: Any) -> None:
    """Write a side-car."""
    told = {
        "backend": "tensorrt-rtx",
        "runtime_version": "1.7.1",
        "compute_capabilities": ["8.6"],
        "precision": "fp32",
        "predicted_ms": 0.5,
        "sha256": {"file": hash_file(path), "onnx": hash_file(path.with_name("model.onnx"))},
        "onnx": "model.onnx",
    }
    path.with_name(path.name + ".json").write_text(json.dumps(told | other))


class Machine:
    """A stand-in for the worker on a machine with the GPU; its outputs are the ONNX file's, and `off` beside them."""

    off = 0.0
    failure: str | None = None

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def time(self, path: Path, config: Any) -> TimeReply:
        if self.failure is not None:
            return TimeReply(failure=self.failure)
        return TimeReply(samples_ms=(0.4, 0.4, 0.4), median_ms=0.4, noise=0.001, discarded=2)

    def outputs(self, path: Path, feeds: Any) -> OutputsReply:
        right = evaluate(path.with_name("model.onnx").read_bytes(), list(feeds.values()))
        moved = self.off if self.backend != "onnxruntime" else 0.0
        return OutputsReply({name: value + moved * np.abs(value).max() for name, value in right.items()})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> type[Machine]:
    monkeypatch.setattr(Machine, "off", 0.0)
    monkeypatch.setattr(Machine, "failure", None)
    monkeypatch.setattr(engine_file, "WorkerClient", Machine)
    return Machine


def test_without_a_gpu_a_whole_engine_is_said_to_be_whole_and_what_it_is_for(engine: Path) -> None:
    with pytest.raises(BackendError, match=r"is whole.*tensorrt-rtx 1\.7\.1 for compute capability 8\.6.*no driver"):
        measure_engine(engine, gpu=lambda: NO_GPU)


def test_the_command_ends_with_2_and_no_traceback(engine: Path) -> None:
    done = CliRunner().invoke(app, ["measure", str(engine), "--backend", "tensorrt-rtx"])
    if done.exit_code != 0:
        assert done.exit_code == 2
        assert "is whole" in done.stderr
        assert "Traceback" not in done.output


def test_a_flipped_bit_is_found_by_the_side_car(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(LatpruneError, match="SHA-256 differs"):
        measure_engine(engine, gpu=lambda: GPU)


def test_an_engine_cut_short_is_found_without_a_side_car(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-100])
    engine.with_name("model.engine.json").unlink()
    with pytest.raises(LatpruneError, match="cut short"):
        measure_engine(engine, backend="tensorrt-rtx", gpu=lambda: GPU)


def test_an_onnx_file_given_as_engine_is_told(engine: Path) -> None:
    engine.write_bytes(engine.with_name("model.onnx").read_bytes())
    with pytest.raises(LatpruneError, match="is an ONNX file, whatever its name"):
        measure_engine(engine, gpu=lambda: GPU)


def test_an_engine_given_as_onnx_file_is_told(engine: Path) -> None:
    engine.with_name("model.onnx").write_bytes(engine.read_bytes())
    done = CliRunner().invoke(app, ["measure", str(engine.with_name("model.onnx"))])
    assert done.exit_code == 2
    assert "is an engine, whatever its name" in done.stderr


def test_without_a_side_car_the_runtime_must_be_named(engine: Path) -> None:
    engine.with_name("model.engine.json").unlink()
    with pytest.raises(LatpruneError, match=r"no side-car.*--backend tensorrt-rtx or tensorrt"):
        measure_engine(engine, gpu=lambda: NO_GPU)
    with pytest.raises(BackendError, match=r"reads as a whole engine.*SHA-256.*no side-car"):
        measure_engine(engine, backend="tensorrt-rtx", gpu=lambda: NO_GPU)


def test_another_runtimes_engine_is_refused(engine: Path) -> None:
    with pytest.raises(LatpruneError, match="built by tensorrt-rtx; tensorrt cannot run it"):
        measure_engine(engine, backend="tensorrt", gpu=lambda: GPU)
    engine.with_name("model.engine.json").unlink()
    with pytest.raises(LatpruneError, match="openvino runs none"):
        measure_engine(engine, backend="openvino", gpu=lambda: GPU)


def test_a_damaged_side_car_is_said(engine: Path) -> None:
    engine.with_name("model.engine.json").write_text("[1, 2")
    with pytest.raises(LatpruneError, match=r"model\.engine\.json is damaged"):
        read_side_car(engine)
    engine.with_name("model.engine.json").write_text("[1, 2]")
    with pytest.raises(LatpruneError, match=r"model\.engine\.json is damaged"):
        read_side_car(engine)


@pytest.mark.usefixtures("machine")
def test_an_engine_for_another_device_is_refused(engine: Path) -> None:
    describe(engine, compute_capabilities=["8.9", "12.0"])
    with pytest.raises(BackendError, match=r"built for compute capability 8\.9, 12\.0; this RTX 3090 has 8\.6"):
        measure_engine(engine, gpu=lambda: GPU)


@pytest.mark.usefixtures("machine")
def test_an_engine_that_runs_is_held_to_its_promises(engine: Path) -> None:
    report = measure_engine(engine, gpu=lambda: GPU)
    assert (report.measured_ms, report.predicted_ms, report.samples, report.discarded) == (0.4, 0.5, 3, 2)
    assert report.difference == 0.0
    assert report.is_right
    assert report.remarks == ()


@pytest.mark.usefixtures("machine")
def test_what_was_predicted_for_another_runtime_is_no_promise(engine: Path) -> None:
    describe(engine, measured_with={"runtime": "onnxruntime"})
    report = measure_engine(engine, gpu=lambda: GPU)
    assert report.predicted_ms is None
    assert report.remarks == ("its latency was predicted for onnxruntime alone, by the table that it was pruned with",)


@pytest.mark.parametrize(("precision", "right"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_outputs_are_judged_by_the_precision(
    engine: Path, machine: type[Machine], monkeypatch: pytest.MonkeyPatch, precision: str, right: bool
) -> None:
    monkeypatch.setattr(machine, "off", 0.01)
    describe(engine, precision=precision)
    report = measure_engine(engine, gpu=lambda: GPU)
    assert report.difference == pytest.approx(0.01, rel=1e-3)
    assert report.is_right is right
    assert report.to_json()["outputs_agree"] is right


@pytest.mark.usefixtures("machine")
def test_what_cannot_be_compared_is_said(engine: Path) -> None:
    engine.with_name("model.onnx").unlink()
    report = measure_engine(engine, gpu=lambda: GPU)
    assert report.difference is None
    assert report.to_json()["outputs_agree"] is None
    assert "no model.onnx beside it: its outputs were not compared" in report.remarks[0]


@pytest.mark.usefixtures("machine")
def test_another_onnx_file_is_not_compared_with(engine: Path) -> None:
    write_conv_net(engine.with_name("model.onnx"), (8, 8), linear=False)
    report = measure_engine(engine, gpu=lambda: GPU)
    assert report.difference is None
    assert "not the file that it was built from" in report.remarks[0]


def test_a_failure_on_the_gpu_is_said(engine: Path, machine: type[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "failure", "The GPU was lost.")
    with pytest.raises(BackendError, match="cannot be measured with tensorrt-rtx: The GPU was lost"):
        measure_engine(engine, gpu=lambda: GPU)


def test_outputs_that_are_missing_misshapen_or_no_numbers_are_infinitely_far() -> None:
    right = {"y": np.array([1.0, -2.0])}
    assert difference({"y": np.array([1.0, -1.0])}, right) == 0.5
    for wrong in ({}, {"y": np.array([1.0])}, {"y": np.array([np.nan, 1.0])}):
        assert difference(wrong, right) == float("inf")
