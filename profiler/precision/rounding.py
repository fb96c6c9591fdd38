"""An fp16 model as an fp32 one that rounds every value to fp16: what a GPU computes that adds up in fp32.

ONNX Runtime's CPU provider has few fp16 kernels. Around the others it computes in fp32 and leaves the rounding between
them out, so that a network that overflows on the device looks sound there.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXACT = frozenset(
    "Concat Expand Flatten Gather Identity MaxPool Relu Reshape Slice Split Squeeze Transpose Unsqueeze".split()
)
"""Operations that give values that they were given, or zero."""


def with_visible_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in fp32, each fp16 value rounded where it is made; a model without any comes back as it is."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    half = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    if not half:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            _widen(attribute.t)
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        for number, name in enumerate(node.output):
            if name not in half or node.op_type in EXACT:
                continue
            exact, rounded = f"{name}.exact", f"{name}.rounded"
            node.output[number] = exact
            nodes.append(helper.make_node("Cast", [exact], [rounded], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
