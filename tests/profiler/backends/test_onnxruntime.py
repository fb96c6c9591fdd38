"""Times in place on ONNX Runtime: every node of the optimised graph has one, and is traced back to the network."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from lut.errors import BackendError
from profiler.backends import NodeTime, Settings
from profiler.backends.onnxruntime import OnnxRuntime
from profiler.backends.onnxruntime_nodes import find_origins, join_profile
from tests.profiler.networks import write_conv_net, write_model

pytest.importorskip("onnxruntime")


def time_nodes(network: Path) -> list[NodeTime]:
    session = OnnxRuntime().open_profiled(network, Settings())
    try:
        for _ in range(5):
            session.run()
        return session.finish([2, 3, 4])
    finally:
        session.close()


@pytest.mark.parametrize("channels", [(16, 16), (31, 45), (8, 3), (1, 64)])
def test_every_node_that_runs_has_its_times_and_an_origin(channels: tuple[int, int], tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx", channels)
    tensors = {name for node in onnx.load(str(network)).graph.node for name in node.output}
    nodes = time_nodes(network)
    assert sum("Conv" in node.op_type for node in nodes) == 3
    for node in nodes:
        assert node.outputs
        assert len(node.samples_ms) == 3
        assert min(node.samples_ms) * 0.999 <= node.ms <= max(node.samples_ms) * 1.001
        assert node.origin in tensors
        assert node.origin_by is not None
    assert nodes[-1].outputs == ("y",)
    written = {name for node in nodes for name in node.outputs}
    assert len(written) == sum(len(node.outputs) for node in nodes)


def test_no_temporary_files_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    time_nodes(network)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(BackendError, match="cannot load"):
        time_nodes(broken)
    assert list(temporary.iterdir()) == []


def test_control_flow_is_refused_rather_than_joined_wrongly(tmp_path: Path) -> None:
    branches = []
    for operation in ("Sin", "Cos"):
        value = helper.make_tensor_value_info(f"{operation}_out", TensorProto.FLOAT, [4])
        nodes = [helper.make_node(operation, ["x"], [f"{operation}_out"], name=operation)]
        branches.append(helper.make_graph(nodes, operation, [], [value]))
    node = helper.make_node("If", ["flag"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1])
    inputs = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    network = write_model(tmp_path / "if.onnx", [node], inputs, outputs, [])
    with pytest.raises(BackendError, match="control flow"):
        time_nodes(network)


def test_a_profile_of_another_graph_is_refused(tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    names = [node.op_type for node in onnx.load(str(network)).graph.node]
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "dur": 1, "args": {"op_name": name}} for name in names[::-1]
    ] * 2
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(events))
    with pytest.raises(BackendError, match="does not fit"):
        join_profile(profile, network, network, [0])


def node(name: str, op_type: str, inputs: str, outputs: str) -> Any:
    return SimpleNamespace(name=name, op_type=op_type, input=inputs.split(), output=outputs.split())


def test_nodes_of_the_blocked_layout_are_known_by_name_and_helpers_by_their_neighbours() -> None:
    given = [node("c1", "Conv", "x w", "a"), node("s", "HardSwish", "a", "b"), node("c2", "Conv", "b v", "c")]
    optimised = [
        node("ReorderInput", "ReorderInput", "x", "t0"),
        node("a_nchwc", "Conv", "t0 w", "t1"),
        node("", "HardSigmoid", "t1", "t2"),
        node("s/Fusion/", "Mul", "t1 t2", "t3"),
        node("c_nchwc", "Conv", "t3 v", "t4"),
        node("ReorderOutput", "ReorderOutput", "t4", "c"),
    ]
    assert find_origins(optimised, given) == [
        ("a", "neighbour"),
        ("a", "name"),
        ("a", "neighbour"),
        ("b", "name"),
        ("c", "name"),
        ("c", "output"),
    ]


def test_a_node_that_nothing_tells_about_has_no_origin() -> None:
    assert find_origins([node("", "Sin", "x", "t")], [node("s", "Sin", "x", "y")]) == [None]


def test_a_network_without_fixed_shapes_is_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    network = write_model(tmp_path / "sin.onnx", [helper.make_node("Sin", ["x"], ["y"])], inputs, outputs, [])
    with pytest.raises(BackendError, match="fixed shape"):
        OnnxRuntime().open(network, Settings())
