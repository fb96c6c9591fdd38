"""OpenVINO: what it runs is traced back to the network, the same with and without times; and it stays silent."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.backends import NodeTime, Settings
from profiler.backends.onnxruntime import OnnxRuntime
from profiler.backends.openvino import OpenVino
from profiler.backends.openvino_graph import RunNode
from profiler.backends.openvino_nodes import find_running
from profiler.worker_client import WorkerClient
from tests.profiler.networks import INPUT_SHAPE, write_conv_net, write_model

pytest.importorskip("openvino")

RUNS = 6


def time_nodes(network: Path) -> list[NodeTime]:
    session = OpenVino().open_profiled(network, Settings())
    try:
        for _ in range(RUNS):
            session.run()
        return session.finish([3, 4, 5])
    finally:
        session.close()


def write_attention_net(path: Path, channels: int = 16, *, named: bool = True) -> Path:
    """Write two branches that are joined, pooled and normalised, a head of attention, and two linear layers."""
    generator = np.random.default_rng(0)
    initialisers: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int) -> str:
        values = generator.standard_normal(shape).astype(np.float32) * 0.3
        initialisers.append(numpy_helper.from_array(values, name))
        return name

    def numbers(name: str, *values: int) -> str:
        initialisers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(kind: str, inputs: str, output: str, **attributes: object) -> None:
        name = f"{kind}/{output}" if named else ""
        nodes.append(helper.make_node(kind, inputs.split(), [output], name=name, **attributes))

    both = 2 * channels
    weight("w1", channels, 3, 3, 3), weight("w2", channels, 3, 1, 1), weight("b2", channels)
    weight("wq", both, both), weight("wk", both, both), weight("wv", both, both), weight("bq", both)
    weight("scale", both), weight("shift", both), weight("w3", both, both + 3), weight("b3", both + 3)
    add("Conv", "x w1", "branch", pads=[1, 1, 1, 1])
    add("Relu", "branch", "left")
    add("Conv", "x w2 b2", "right")
    add("Concat", "left right", "joined", axis=1)
    add("MaxPool", "joined", "pooled", kernel_shape=[2, 2], strides=[2, 2])
    add("Reshape", f"pooled {numbers('flat', 1, both, 64)}", "flattened")
    add("Transpose", "flattened", "tokens", perm=[0, 2, 1])
    add("LayerNormalization", "tokens scale shift", "normed", axis=-1)
    for one in "qkv":
        add("MatMul", f"normed w{one}", f"{one}_plain" if one == "q" else one)
    add("Add", "q_plain bq", "q")
    add("Transpose", "k", "k_turned", perm=[0, 2, 1])
    add("MatMul", "q k_turned", "match")
    add("Softmax", "match", "attention", axis=-1)
    add("MatMul", "attention v", "attended")
    add("Add", "attended tokens", "trunk")
    add("MatMul", "trunk w3", "linear")
    add("Add", "linear b3", "shifted")
    add("Sigmoid", "shifted", "y")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, INPUT_SHAPE)]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, both + 3]),
        helper.make_tensor_value_info("joined", TensorProto.FLOAT, [1, both, 16, 16]),
    ]
    return write_model(path, nodes, inputs, outputs, initialisers)


@pytest.mark.parametrize("channels", [(16, 16), (31, 45), (8, 3), (1, 64)])
def test_every_node_that_runs_has_its_times_and_an_origin(channels: tuple[int, int], tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx", channels)
    tensors = {name for node in onnx.load(str(network)).graph.node for name in node.output}
    nodes = time_nodes(network)
    assert [node.origin for node in nodes if node.op_type == "Convolution"] == ["a", "c", "f"]
    for node in nodes:
        assert len(node.samples_ms) == 3
        assert min(node.samples_ms) * 0.999 <= node.ms <= max(node.samples_ms) * 1.001
        assert node.ms > 0
        assert node.origin in tensors
        assert node.origin_by == ("neighbour" if node.op_type == "Reorder" else "name")
    assert nodes[-1].outputs == ("y",)
    written = {name for node in nodes for name in node.outputs}
    assert len(written) == sum(len(node.outputs) for node in nodes)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("channels", [16, 13])
def test_joins_and_attention_are_traced_back_with_and_without_names(channels: int, named: bool, tmp_path: Path) -> None:
    nodes = time_nodes(write_attention_net(tmp_path / "network.onnx", channels, named=named))
    kinds = {node.origin: node.op_type for node in nodes if node.origin_by == "name"}
    expected = {
        "branch": {"Convolution"},
        "right": {"Convolution"},
        "joined": {"Concatenation"},
        "pooled": {"Pooling"},
        "normed": {"MVN", "Subgraph", "Eltwise"},
        "k": {"FullyConnected"},
        "v": {"FullyConnected"},
    }
    for tensor, types in expected.items():
        assert kinds.get(tensor) in types, (tensor, kinds)
    assert kinds.keys() & {"q", "q_plain"}
    assert kinds.keys() & {"linear", "shifted", "y"}
    assert kinds.keys() & {"match", "attention", "attended", "trunk"}
    assert all(node.origin for node in nodes)
    produced = {name for node in nodes for name in node.outputs}
    assert {"y", "joined"} <= produced


@pytest.mark.parametrize("channels", [8, 16, 13])
def test_kernels_tells_the_same_nodes_as_a_profiled_run(channels: int, tmp_path: Path) -> None:
    networks = [
        write_conv_net(tmp_path / "a.onnx", (channels, 2 * channels)),
        write_conv_net(tmp_path / "b.onnx", (channels, 3), linear=False),
        write_attention_net(tmp_path / "c.onnx", channels),
    ]
    for network in networks:
        timed = [dataclasses.replace(node, ms=0.0, samples_ms=()) for node in time_nodes(network)]
        assert OpenVino().kernels(network, Settings()) == timed


def test_a_kernel_has_one_name_at_all_widths(tmp_path: Path) -> None:
    one, other = (
        OpenVino().kernels(write_conv_net(tmp_path / f"{width}.onnx", (width, width)), Settings()) for width in (32, 64)
    )
    assert [node.kernel for node in one] == [node.kernel for node in other]
    convolution = next(node.kernel for node in one if node.op_type == "Convolution")
    assert convolution.startswith("Convolution+Relu/")


def test_it_computes_what_the_other_runtime_computes(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal(INPUT_SHAPE).astype(np.float32)
    for network in (write_conv_net(tmp_path / "a.onnx", (31, 5)), write_attention_net(tmp_path / "b.onnx", 13)):
        found, expected = (
            backend.open(network, Settings()).outputs([values]) for backend in (OpenVino(), OnnxRuntime())
        )
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_outputs_keep_their_names_where_several_are_one_value(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sin", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["x"], ["c"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("b", "c", "a")]
    network = write_model(tmp_path / "network.onnx", nodes, inputs, outputs, [])
    values = np.arange(4, dtype=np.float32)
    found = OpenVino().open(network, Settings()).outputs({"x": values})
    assert list(found) == ["b", "c", "a"]
    np.testing.assert_allclose(found["a"], np.sin(values), rtol=1e-5)
    np.testing.assert_array_equal(found["b"], found["a"])
    np.testing.assert_array_equal(found["c"], values)


def test_inputs_of_another_type_or_shape_are_refused(tmp_path: Path) -> None:
    session = OpenVino().open(write_conv_net(tmp_path / "network.onnx"), Settings())
    for values in (np.zeros(INPUT_SHAPE), np.zeros((1, 3, 8, 8), np.float32)):
        with pytest.raises(BackendError, match="x is float32"):
            session.outputs([values])


def test_what_cannot_be_loaded_is_refused_in_words(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    free = write_model(tmp_path / "sin.onnx", [helper.make_node("Sin", ["x"], ["y"])], inputs, outputs, [])
    odd = [helper.make_node("Frobnicate", ["x"], ["y"], domain="nowhere")]
    unknown = write_model(tmp_path / "odd.onnx", odd, inputs, outputs, [])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    cases = [(free, "fixed shape"), (unknown, "Frobnicate"), (broken, "cannot load"), (tmp_path / "none", "no file")]
    for path, words in cases:
        for load in (OpenVino().open, OpenVino().open_profiled, OpenVino().kernels):
            with pytest.raises(BackendError, match=words):
                load(path, Settings())


def test_the_precision_is_pinned_and_in_the_fingerprint() -> None:
    settings = dict(OpenVino().fingerprint(1).settings)
    assert settings["inference_precision_hint"] == "f32"
    assert settings["num_streams"] == "1"


def test_importing_it_sends_no_telemetry_and_leaves_nothing_hidden() -> None:
    script = (
        "import sys, profiler.backends\n"
        "assert profiler.backends.get_backend('openvino').fingerprint(1)\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('openvino_telemetry', 'torch')]\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == found.stderr == ""


def test_the_worker_times_its_nodes(tmp_path: Path) -> None:
    config = MeasureConfig(warmup_s=0.0, max_time_s=0.2, timeout_s=60)
    network = write_conv_net(tmp_path / "network.onnx")
    with WorkerClient("openvino") as worker:
        reply = worker.nodes(network, config, runs=4)
    assert reply.failure is None
    assert [node.origin for node in reply.nodes if node.op_type == "Convolution"] == ["a", "c", "f"]


def run_node(layer: str, primitive: str, layout: str, inputs: tuple[tuple[int, int], ...], *shape: int) -> RunNode:
    return RunNode("", layer, primitive, (layout,), (), inputs, (shape,))


def test_a_layout_change_runs_if_it_moves_something_and_weights_are_not_computed_in_a_run() -> None:
    nodes = [
        run_node("Input", "unknown_f32", "abcd", (), 1, 3, 1, 1),
        run_node("Reorder", "reorder_f32", "acdb", ((0, 0),), 1, 3, 1, 1),
        run_node("Convolution", "brgconv_avx512_f32", "acdb", ((1, 0),), 1, 8, 4, 4),
        run_node("Reorder", "reorder_f32", "abcd", ((2, 0),), 1, 8, 4, 4),
        run_node("Reshape", "unknown_f32", "ab", ((3, 0),), 1, 128),
        run_node("Const", "unknown_f32", "ab", (), 8, 8),
        run_node("Transpose", "unknown_f32", "ab", ((5, 0),), 8, 8),
        run_node("Transpose", "unknown_f32", "ab", ((4, 0),), 128, 1),
    ]
    assert find_running(nodes) == [False, False, True, True, False, False, False, True]
