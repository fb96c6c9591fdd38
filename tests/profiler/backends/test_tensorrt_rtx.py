"""TensorRT for RTX builds engines with no GPU, and refuses what it cannot build for."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from lut.errors import BackendError
from profiler.backends import BuildSettings
from profiler.backends.tensorrt_rtx import TensorRtRtx, check_capability
from profiler.worker_client import WorkerClient
from tests.profiler.networks import write_conv_net, write_model

pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_conv_net(tmp_path / "network.onnx", linear=False)


def test_an_engine_is_built_without_a_gpu_and_its_memory_reported(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines" / "network.engine"
    report = TensorRtRtx().build(network, out, BuildSettings(("8.6",)))
    assert out.stat().st_size == report.engine_bytes > 0
    assert [path.name for path in out.parent.iterdir()] == ["network.engine"]
    parameters = 4 * (16 * 3 * 9 + 16 + 2 * (16 * 16 * 9 + 16))
    assert report.weights_bytes is not None
    assert abs(report.weights_bytes - parameters) <= 4096
    assert report.workspace_bytes is not None
    assert report.activation_bytes is not None
    assert 0 < report.workspace_bytes <= report.activation_bytes
    covered = {name for kernel in report.kernels for name in kernel.onnx_nodes}
    assert {"conv1", "conv2", "conv3", "pool"} <= covered
    assert {kernel.stream for kernel in report.kernels} == {0}


def test_one_engine_may_serve_several_devices_and_the_worker_builds_it(network: Path, tmp_path: Path) -> None:
    with WorkerClient("tensorrt-rtx") as worker:
        reply = worker.build(network, tmp_path / "network.engine", BuildSettings(("7.5", "8.9")))
    assert reply.failure is None
    assert reply.report is not None
    assert reply.report.compute_capabilities == ("7.5", "8.9")
    assert reply.report.kernels
    assert (tmp_path / "network.engine").stat().st_size == reply.report.engine_bytes


@pytest.mark.parametrize("capability", ["8.7", "9.0", "5.0", "nonsense"])
def test_other_capabilities_are_refused_with_those_that_are_possible(capability: str) -> None:
    with pytest.raises(BackendError, match=r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"):
        check_capability(capability)


@pytest.mark.parametrize(
    ("capability", "instead"),
    [
        ("9.0", "Hopper.*classic TensorRT"),
        ("8.7", "Orin.*trtexec"),
        ("6.1", "before Turing"),
        ("8.8", "No device is known"),
    ],
)
def test_a_refusal_says_what_to_do_instead(capability: str, instead: str) -> None:
    with pytest.raises(BackendError, match=instead):
        check_capability(capability)


def test_a_build_for_no_device_is_refused(network: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="--compute-capability"):
        TensorRtRtx().build(network, tmp_path / "network.engine", BuildSettings())


def test_turings_missing_matrix_product_is_explained_and_no_engine_is_left(tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    with pytest.raises(BackendError, match=r"Turing.*fp16"):
        TensorRtRtx().build(network, tmp_path / "out.engine", BuildSettings(("7.5",)))
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_refusal_names_what_the_user_gave_and_no_temporary_file(tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    with pytest.raises(BackendError, match="an engine from runs/mine: ") as found:
        TensorRtRtx().build(network, tmp_path / "out.engine", BuildSettings(("7.5",), given="runs/mine"))
    assert str(tmp_path) not in str(found.value)


def test_an_operation_that_cannot_be_read_is_named_with_its_node(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"], name="odd_one", domain="nowhere")]
    network = write_model(tmp_path / "odd.onnx", nodes, inputs, outputs, [])
    with pytest.raises(BackendError, match=r"Frobnicate of node 'odd_one' .*network\(model\)"):
        TensorRtRtx().build(network, tmp_path / "out.engine", BuildSettings(("8.6",)))
