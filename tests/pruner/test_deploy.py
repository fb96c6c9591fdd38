import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lut import BackendError, LatpruneError, RunError
from profiler.backends import get_backend
from pruner.deploy import ExportConfig, export_run, measure
from pruner.main import app
from tests.profiler.networks import write_conv_net

RTX = pytest.mark.skipif(not get_backend("tensorrt-rtx").status().installed, reason="tensorrt-rtx is not installed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_conv_net(folder / "model.onnx")
    (folder / "result.json").write_text(
        json.dumps({"after": {"predicted_ms": 1.0, "measured_ms": 1.1}, "fingerprint": None})
    )
    return folder


@RTX
def test_an_engine_is_built_without_a_gpu_and_says_what_it_needs(run: Path) -> None:
    report = export_run(run, backend="tensorrt-rtx", config=ExportConfig(compute_capabilities=("8.6",)))
    assert report.path.stat().st_size == report.file_bytes > 0
    sidecar = json.loads(report.path.with_name(report.path.name + ".json").read_text())
    assert sidecar["inputs"] == [{"name": "x", "type": "float", "shape": [1, 3, 16, 16]}]
    assert sidecar["compute_capabilities"] == ["8.6"]
    assert sidecar["ahead_of_time_bound"]["weights_bytes"] > 0


@RTX
def test_a_capability_that_cannot_be_compiled_for_is_refused_and_leaves_no_file(run: Path) -> None:
    with pytest.raises(LatpruneError, match=r"8\.7"):
        export_run(run, backend="tensorrt-rtx", config=ExportConfig(compute_capabilities=("8.7",)))
    assert sorted(path.name for path in run.iterdir()) == ["model.onnx", "result.json"]


def test_a_runtime_that_runs_onnx_gets_the_onnx_file(run: Path) -> None:
    report = export_run(run, backend="onnxruntime")
    assert report.path.read_bytes() == (run / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run", "is a folder"),
        ("run/model.onnx", "the run's own file"),
        ("x.engine", r"called an engine\. Let --out end in \.onnx"),
        ("missing/x.onnx", "no folder"),
    ],
)
def test_a_place_that_is_taken_or_says_another_kind_of_file_is_refused(run: Path, name: str, words: str) -> None:
    before = sorted(run.parent.rglob("*"))
    with pytest.raises(LatpruneError, match=words):
        export_run(run, backend="onnxruntime", out=run.parent / name)
    assert sorted(run.parent.rglob("*")) == before


@RTX
def test_an_engine_is_not_called_an_onnx_file(run: Path) -> None:
    with pytest.raises(LatpruneError, match=r"end in \.engine"):
        export_run(run, backend="tensorrt-rtx", out=run.parent / "x.onnx")


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        export_run(tmp_path, backend="onnxruntime")
    with pytest.raises(RunError, match="no run"):
        export_run(tmp_path / "missing", backend="onnxruntime")


def test_a_run_and_its_file_are_measured_alike(run: Path) -> None:
    for target in (run, run / "model.onnx"):
        report = measure(target)
        data = report.to_json()
        assert report.samples > 0
        assert {"measured_ms", "noise", "samples", "backend", "weights_bytes", "total_bytes", "traffic_bytes"} <= set(
            data
        )


def test_what_cannot_be_measured_is_refused_in_words(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    engine.write_bytes(b"engine")
    with pytest.raises(BackendError, match="GPU"):
        measure(engine)
    foreign = tmp_path / "x.onnx"
    foreign.write_bytes(b"not a model at all")
    with pytest.raises(LatpruneError, match="ONNX"):
        measure(foreign)
    with pytest.raises(LatpruneError, match="no file"):
        measure(tmp_path / "missing.onnx")


def test_a_runtime_that_builds_for_no_device_is_asked_for_none(run: Path) -> None:
    refused = CliRunner().invoke(app, ["export", str(run), "--backend", "onnxruntime", "--compute-capability", "8.6"])
    assert refused.exit_code == 2
    assert "builds for no device" in " ".join(refused.stderr.split())
