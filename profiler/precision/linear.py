"""Linear layers written as 1×1 convolutions, for devices that have no fp32 matrix product (compute capability 7.5)."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from profiler.backends.interface import Array

NO_FP32_PRODUCT = frozenset({"7.5"})
"""Compute capabilities for which TensorRT for RTX compiles no fp32 matrix product (Turing)."""


def linear_as_convolution(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...], tuple[str, ...]]:
    """Rewrite every Gemm and MatMul of a tensor with constant weights, which computes the same sums.

    Args:
        model: left as it is; shapes fixed.

    Returns:
        The model, the names of the nodes that were rewritten, and of those that multiply two computed tensors, which
        have to stay as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    shapes = _shapes(copy)
    rewritten, left, nodes = [], [], []
    for number, node in enumerate(graph.node):
        if node.op_type not in ("Gemm", "MatMul"):
            nodes.append(node)
            continue
        name = node.name or f"{node.op_type}_{number}"
        layer = _layer(node, weights, shapes)
        if layer is None:
            left.append(name)
            nodes.append(node)
            continue
        rewritten.append(name)
        weight, bias = layer
        made, added = _convolution(node, name, weight, bias, shapes[node.output[0]])
        nodes.extend(made)
        graph.initializer.extend(added)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    return copy, tuple(rewritten), tuple(left)


def _layer(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Array, Array | None] | None:
    """The weight, [outputs, inputs], and the bias, [outputs]; None where the node is no linear layer of that kind."""
    if node.input[1] not in weights or node.input[0] in weights or node.output[0] not in shapes:
        return None
    weight = numpy_helper.to_array(weights[node.input[1]])
    if weight.ndim != 2:
        return None
    if node.op_type == "MatMul":
        return weight.T, None
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if attributes.get("transA"):
        return None
    weight = (weight if attributes.get("transB") else weight.T) * np.float32(attributes.get("alpha", 1.0))
    if len(node.input) < 3 or not node.input[2]:
        return weight, None
    if node.input[2] not in weights:
        return None
    added = numpy_helper.to_array(weights[node.input[2]]) * np.float32(attributes.get("beta", 1.0))
    if added.ndim > 1 and any(size != 1 for size in added.shape[:-1]):
        return None
    return weight, np.broadcast_to(added.reshape(-1), weight.shape[:1])


def _convolution(
    node: onnx.NodeProto, name: str, weight: Array, bias: Array | None, shape: tuple[int, ...]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    outputs, inputs = weight.shape
    added = [
        numpy_helper.from_array(np.ascontiguousarray(weight).reshape(outputs, inputs, 1, 1), f"{name}.as_conv.weight"),
        numpy_helper.from_array(np.array([-1, inputs, 1, 1], dtype=np.int64), f"{name}.as_conv.into"),
        numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{name}.as_conv.back"),
    ]
    read = [f"{name}.as_conv.input", f"{name}.as_conv.weight"]
    if bias is not None:
        added.append(numpy_helper.from_array(np.ascontiguousarray(bias), f"{name}.as_conv.bias"))
        read.append(f"{name}.as_conv.bias")
    return [
        helper.make_node("Reshape", [node.input[0], added[1].name], [read[0]], name=f"{name}.into"),
        helper.make_node("Conv", read, [f"{name}.as_conv.output"], name=name, kernel_shape=[1, 1]),
        helper.make_node("Reshape", [f"{name}.as_conv.output", added[2].name], list(node.output), name=f"{name}.back"),
    ], added


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that have fixed ones."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for value in (*inferred.value_info, *inferred.output, *inferred.input):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and all(sizes):
            found[value.name] = tuple(sizes)
    return found
