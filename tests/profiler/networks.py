"""Small networks as ONNX files, made by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT_SHAPE = (1, 3, 16, 16)


def write_conv_net(path: Path, channels: tuple[int, int] = (16, 16), *, linear: bool = True) -> Path:
    """Write conv-relu-conv-relu-conv-norm with a residual add, a hard swish, pooling and a linear layer."""
    generator = np.random.default_rng(0)
    first, second = channels
    initialisers = []

    def weight(name: str, *shape: int) -> str:
        values = generator.standard_normal(shape).astype(np.float32) * 0.1
        initialisers.append(numpy_helper.from_array(np.abs(values) + 0.5 if name == "variance" else values, name))
        return name

    def conv(name: str, source: str, target: str, outputs: int, inputs: int) -> onnx.NodeProto:
        weights = [weight(f"{name}.weight", outputs, inputs, 3, 3), weight(f"{name}.bias", outputs)]
        return helper.make_node("Conv", [source, *weights], [target], name=name, pads=[1, 1, 1, 1])

    norm = [weight(name, first) for name in ("scale", "shift", "mean", "variance")]
    nodes = [
        conv("conv1", "x", "a", first, 3),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        conv("conv2", "b", "c", second, first),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        conv("conv3", "d", "e", first, second),
        helper.make_node("BatchNormalization", ["e", *norm], ["f"], name="norm"),
        helper.make_node("Add", ["f", "b"], ["g"], name="add"),
        helper.make_node("HardSwish", ["g"], ["h"], name="swish"),
        helper.make_node("GlobalAveragePool", ["h"], ["i" if linear else "y"], name="pool"),
    ]
    if linear:
        nodes += [
            helper.make_node("Flatten", ["i"], ["j"], name="flatten"),
            helper.make_node("Gemm", ["j", weight("fc", 10, first), weight("fc.bias", 10)], ["y"], name="fc", transB=1),
        ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, INPUT_SHAPE)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10] if linear else [1, first, 1, 1])]
    return write_model(path, nodes, inputs, outputs, initialisers)


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initialisers: list[onnx.TensorProto],
) -> Path:
    """Write one graph of opset 18."""
    graph = helper.make_graph(nodes, "network", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


def write_int_net(path: Path) -> Path:
    """Write an embedding of two rows, looked up by an int64 input."""
    table = numpy_helper.from_array(np.eye(2, dtype=np.float32), "table")
    node = helper.make_node("Gather", ["table", "tokens"], ["y"], name="gather")
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 7])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, 2])]
    return write_model(path, [node], inputs, outputs, [table])
