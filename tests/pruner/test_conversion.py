"""A run in other precisions: calibrated on the task's batches, judged by the task, and never silently."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, TaskError
from profiler.backends import get_backend
from profiler.export import to_onnx
from profiler.precision.convert import convert
from pruner.calibration import calibration_feeds, in_file_batches
from pruner.conversion import convert_run
from pruner.deploy import ExportConfig, export_run
from pruner.plan import PrunePlan
from pruner.rundir import save
from pruner.sidecar import hash_file
from pruner.task import Task, load_task

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = Path(__file__).parent / "example_task.py"
RTX = pytest.mark.skipif(not get_backend("tensorrt-rtx").status().installed, reason="tensorrt-rtx is not installed")
pytest.importorskip("onnxruntime")


@pytest.fixture
def task() -> Task:
    return load_task(str(EXAMPLE))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that removed nothing: what is exported does not depend on what was pruned."""
    folder, task = tmp_path_factory.mktemp("written"), load_task(str(EXAMPLE))
    save(task.build(), PrunePlan("hash", {}, {}, {}), folder, inputs=task.inputs())
    (folder / "result.json").write_text(json.dumps({"task": {"spec": task.spec, "batch": None}}))
    return folder


@pytest.fixture
def run(tmp_path: Path, written: Path) -> Path:
    return shutil.copytree(written, tmp_path / "run")


def source(run: Path) -> onnx.ModelProto:
    return onnx.load(run / "model.onnx")


def test_int8_is_judged_by_the_task_that_the_run_tells(run: Path) -> None:
    found = convert_run(run, source(run), "int8")
    assert found.compared_on == "batches of the task"
    assert found.difference is not None
    assert 0 < found.difference < 0.2
    assert found.before is not None
    assert found.after is not None
    assert found.before.keys() == found.after.keys() == {"top1"}


def test_the_judgement_is_of_the_file_and_not_of_the_model(run: Path) -> None:
    spoilt = source(run)
    for tensor in spoilt.graph.initializer:
        if tensor.name.startswith("head") and len(tensor.dims) == 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([9, 0, 0, 0], np.float32), tensor.name))
    found = convert_run(run, spoilt, "fp16")
    labels = [batch[1] for batch in load_task(str(EXAMPLE)).train_batches()]  # type: ignore[misc]
    assert found.after == {"top1": pytest.approx(float((torch.cat(labels) == 0).float().mean()))}
    assert found.before != found.after


def test_batches_are_cut_and_filled_up_to_the_files(task: Task) -> None:
    shapes = {"x": (5, 1, 16, 16)}
    feeds = calibration_feeds(task, task.build(), shapes)
    assert [feed["x"].shape for feed in feeds] == [(5, 1, 16, 16)] * 6
    (first, _), *_ = list(task.train_batches())  # type: ignore[misc]
    np.testing.assert_array_equal(np.concatenate([feeds[0]["x"], feeds[1]["x"][:3]]), first.numpy())
    assert len(calibration_feeds(task, task.build(), shapes, samples=3)) == 3


def test_inputs_that_do_not_fit_the_file_are_refused_in_words(task: Task) -> None:
    with pytest.raises(TaskError, match="more than the batch"):
        calibration_feeds(task, task.build(), {"x": (8, 1, 32, 32)})
    with pytest.raises(TaskError, match="2 inputs"):
        next(in_file_batches([np.zeros((1, 2))], {"x": (1, 2), "y": (1, 2)}))


class Wrapped(nn.Module):
    """Deployed is a part that the model itself never calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_what_evaluate_does_not_call_is_not_called_judged(run: Path, task: Task) -> None:
    assert task.train_batches is not None
    other = Task(
        "odd",
        task.model,
        task.example_inputs,
        train_batches=task.train_batches,
        loss=lambda model, batch: Wrapped(model)(batch[0]).sum(1),
        evaluate=task.evaluate,
        network=Wrapped,
    )
    found = convert_run(run, source(run), "fp16", task=other)
    assert found.after is None
    assert any("evaluate() does not call" in note for note in found.notes)
    with pytest.raises(LatpruneError, match="does not call the network that is deployed"):
        convert_run(run, source(run), "int8", task=other)


class Outer(nn.Module):
    """A model with a deployed part and work of its own around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x=x + 0).flip(1)


def test_a_deployed_part_is_judged_inside_its_model_at_other_batches_than_the_files(tmp_path: Path, task: Task) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        assert task.train_batches is not None
        with torch.no_grad():
            return {"mean": float(torch.cat([model(batch[0]) for batch in task.train_batches()]).double().mean())}

    whole = Task(
        "whole",
        lambda: Outer(task.model()),
        lambda: (torch.zeros(5, 1, 16, 16),),
        train_batches=task.train_batches,
        loss=task.loss,
        evaluate=evaluate,
        network=lambda model: model.inner,
    )
    model = whole.build()
    save(model, PrunePlan("hash", {}, {}, {}), tmp_path / "run", inputs=whole.inputs(), part=whole.deployed(model))
    found = convert_run(tmp_path / "run", source(tmp_path / "run"), "fp16", task=whole)
    assert found.before is not None
    assert found.after is not None
    assert found.after["mean"] == pytest.approx(found.before["mean"], rel=5e-3)
    assert found.after != found.before


def test_without_a_task_fp16_is_looked_at_on_random_inputs_and_says_so_and_int8_is_refused(run: Path) -> None:
    (run / "result.json").unlink()
    found = convert_run(run, source(run), "fp16")
    assert found.compared_on == "random inputs"
    assert any("random inputs only" in note for note in found.notes)
    assert any("Accuracy was not measured" in note and "--task" in note for note in found.notes)
    with pytest.raises(LatpruneError, match="--task"):
        convert_run(run, source(run), "int8")


def test_turing_gets_int8_with_fp16_beside_it_and_fp32_with_convolutions(run: Path) -> None:
    quantised = convert_run(run, source(run), "int8", compute_capabilities=("7.5",), accuracy=False)
    assert quantised.converted.remainder == "fp16"
    assert any("7.5 has no fp32 matrix product" in note for note in quantised.notes)
    plain = convert_run(run, source(run), "fp32", compute_capabilities=("8.6", "7.5"), accuracy=False)
    assert len(plain.rewritten) == 1
    assert plain.difference is not None
    assert plain.difference < 1e-5
    assert not convert_run(run, source(run), "fp32", compute_capabilities=("8.6",)).rewritten


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x


def test_two_computed_tensors_multiplied_in_fp32_are_refused_for_turing_by_name(run: Path) -> None:
    model = to_onnx(Attention(), (torch.randn(1, 4, 8),))
    with pytest.raises(LatpruneError, match=r"7\.5.*node_matmul.*2 such nodes.*--precision fp16"):
        convert_run(run, model, "fp32", compute_capabilities=("7.5",))


def test_a_recurrent_layer_in_fp32_is_refused_for_turing_by_name(run: Path) -> None:
    model = to_onnx(nn.GRU(4, 8), (torch.randn(5, 1, 4),))
    (name,) = (node.name for node in model.graph.node if node.op_type == "GRU")
    with pytest.raises(LatpruneError, match=rf"7\.5.*{name} is a recurrent layer \(GRU\).*--precision fp16"):
        convert_run(run, model, "fp32", compute_capabilities=("7.5",))


class LargeAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax((300 * x) @ (300 * x).transpose(1, 2), -1) @ x


def test_a_product_that_fp16_cannot_hold_is_refused_for_turing_with_what_it_reaches(run: Path) -> None:
    model = to_onnx(LargeAttention(), (torch.randn(1, 4, 8),))
    with pytest.raises(LatpruneError, match=r"7\.5.*node_matmul.*stays in fp32 in this fp16 file.*reaches.*8\.0"):
        convert_run(run, model, "fp16", compute_capabilities=("7.5",), accuracy=False)
    assert convert_run(run, model, "fp16", compute_capabilities=("8.6",), accuracy=False).converted.kept


@RTX
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_of_a_run_are_built_in_each_precision_with_all_that_they_need_beside(run: Path, precision: str) -> None:
    config = ExportConfig(precision=precision, compute_capabilities=("7.5",))  # type: ignore[arg-type]
    report = export_run(run, backend="tensorrt-rtx", config=config)
    told = json.loads((run / f"{report.path.name}.json").read_text())
    assert told["precision"] == precision
    assert told["needs"]["compute_capabilities"] == ["7.5"]
    assert {one["type"] for one in (*told["inputs"], *told["outputs"])} == {"float"}
    assert told["io_bytes"] == 8 * 16 * 16 * 4 + 8 * 4 * 4
    assert told["accuracy"]["after"]["top1"] == pytest.approx(told["accuracy"]["before"]["top1"], abs=0.2)
    assert told["plan"]["network_hash"] == "hash"
    assert told["ahead_of_time_bound"]["workspace_bytes"] == 8_192_000 < told["ahead_of_time_bound"]["activation_bytes"]
    assert (run / told["onnx"]).is_file()
    assert told["sha256"] == {"file": hash_file(report.path), "onnx": hash_file(run / told["onnx"])}


def test_onnx_runtime_gets_an_int8_file(run: Path) -> None:
    report = export_run(run, backend="onnxruntime", config=ExportConfig(precision="int8"))
    assert report.path.name == "deploy-int8.onnx"
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(report.path).graph.node)
    assert report.to_json()["accuracy"]["after"]["top1"] >= 0


def test_a_conversion_that_is_not_finite_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = partial(convert, batches=())
    monkeypatch.setattr(
        "profiler.precision.devices.convert", lambda model, precision, *_, **__: blind(model, precision)
    )
    large = source(run)
    node = next(node for node in large.graph.node if node.op_type == "Conv")
    large.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(6e4), "large"))
    large.graph.node.insert(0, onnx.helper.make_node("Mul", [node.input[0], "large"], ["scaled"], name="scale"))
    node.input[0] = "scaled"
    with pytest.raises(LatpruneError, match="not finite"):
        convert_run(run, large, "fp16", accuracy=False)


LIMITED = """
import resource, sys
from pathlib import Path
from pruner.deploy import ExportConfig, export_run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
export_run(Path(sys.argv[1]), backend="tensorrt-rtx", config=ExportConfig(compute_capabilities=("8.6",)))
"""


@RTX
def test_a_disk_that_fills_leaves_no_half_engine_and_says_so(run: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    command = [sys.executable, "-c", LIMITED, str(run), "100000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert "cannot be written: File too large" in done.stderr
    assert sorted(path.name for path in run.iterdir()) == before
