"""From fp32 to fp16 by ONNX Runtime's converter; what does not fit into fp16 stays in fp32, node by node.

The converter itself clips silently. Here weights and the activations on batches are looked at first.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from lut.errors import BackendError
from profiler.backends.interface import Array, Feeds
from profiler.backends.onnxruntime import INSTALL
from profiler.node_fates import sort_nodes
from profiler.precision.kept import Kept
from profiler.precision.ranges import largest_values

LARGEST = 65504.0
HALF_SCALES = 19
"""The first operator set in which Q/DQ pairs take fp16 scales."""
HEADROOM = 2.0
"""An activation that comes within this factor of fp16's largest value on the batches stays in fp32."""


def to_half(model: onnx.ModelProto, batches: Sequence[Feeds]) -> tuple[onnx.ModelProto, tuple[Kept, ...]]:
    """Convert to fp16; inputs and outputs keep their types.

    Args:
        model: left as it is; nodes without a name get one.
        batches: where there are none, only weights are looked at.

    Returns:
        The model, and the nodes that stay in fp32: because of a weight or an activation that does not fit, or because
        the converter leaves their operation alone.

    Raises:
        BackendError: ONNX Runtime is not installed, or cannot run the model.
    """
    named = _named(_with_half_scales(model))
    kept = _too_large(named, largest_values(named, batches) if batches else {})
    tool = _converter()
    left = _left_alone(named, tool.DEFAULT_OP_BLOCK_LIST, {one.node for one in kept})
    converted = tool.convert_float_to_float16(named, keep_io_types=True, node_block_list=[one.node for one in kept])
    _without_detours(converted, {node.name for node in named.graph.node})
    sort_nodes(converted.graph)  # the converter puts its casts last
    del converted.graph.value_info[:]  # and leaves some types as they were
    return converted, (*kept, *left)


def _converter() -> Any:
    try:
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise BackendError(f"Converting to fp16 needs ONNX Runtime ({error}). Install it: {INSTALL}") from error
    return float16


def _left_alone(model: onnx.ModelProto, operations: Collection[str], kept: Set[str]) -> tuple[Kept, ...]:
    """The nodes that compute floats and that the converter leaves in fp32 whatever their values."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            floats.add(value.name)
    return tuple(
        Kept(node.name, f"ONNX Runtime's converter leaves {node.op_type} in fp32")
        for node in graph.node
        if node.op_type in operations and node.name not in kept and floats & {*node.input, *node.output}
    )


def _without_detours(model: onnx.ModelProto, own: Set[str]) -> None:
    """Lead a value straight from one fp32 node to the next; the converter's way is through fp16, where it overflows.

    Args:
        model: changed in place.
        own: names of the nodes that the converter did not add.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.name not in own}
    straight: dict[str, str] = {}
    for name, cast in casts.items():
        before = casts.get(cast.input[0])
        if before is not None and _target(cast) == TensorProto.FLOAT and _target(before) == TensorProto.FLOAT16:
            straight[name] = before.input[0]
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = straight.get(name, name)
        if node.op_type == "Cast" and node.output[0] in outputs & straight.keys():
            node.input[0] = straight[node.output[0]]
    read = {name for node in graph.node for name in node.input} | outputs
    unread = [node for name, node in casts.items() if name not in read]
    for node in unread:
        graph.node.remove(node)


def _target(cast: onnx.NodeProto) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _too_large(model: onnx.ModelProto, activations: Mapping[str, float]) -> tuple[Kept, ...]:
    weights = {
        tensor.name: _largest_finite(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    kept = []
    for node in model.graph.node:
        reasons = [
            f"its weight {name} reaches {weights[name]:.3g}" for name in node.input if weights.get(name, 0.0) > LARGEST
        ]
        reasons += [
            f"{name} reaches {activations[name]:.3g} on the batches"
            for name in (*node.input, *node.output)
            if activations.get(name, 0.0) > LARGEST / HEADROOM
        ]
        if reasons:
            kept.append(Kept(node.name, reasons[0]))
    return tuple(kept)


def _largest_finite(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _with_half_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an operator set whose Q/DQ pairs take fp16 scales."""
    given = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if given >= HALF_SCALES or not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return model
    return version_converter.convert_version(model, HALF_SCALES)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return copy
