"""Memory of an ONNX file from its graph alone: weights, the peak of live activations, and traffic."""

from collections import defaultdict
from math import prod

import onnx
from onnx import helper, shape_inference

from lut.errors import LatpruneError
from lut.memory import Memory

FOLLOWERS = frozenset(
    "Relu Clip LeakyRelu PRelu Sigmoid HardSigmoid HardSwish Tanh Elu Selu Gelu Softplus Mish Add Mul Sub Div Max Min "
    "BatchNormalization Cast Identity Erf Sqrt Exp Neg Pow".split()
)
"""Operations that a runtime runs in the memory of the one before them."""
VIEWS = frozenset("Reshape Squeeze Unsqueeze Flatten Identity Expand".split())


def graph_memory(model: onnx.ModelProto, workspace_bytes: int = 0) -> Memory:
    """Count the memory of a model with fixed shapes, run node after node.

    A follower that is the only reader of a tensor of its own shape writes over it; a view takes no memory. Inputs and
    outputs of the network count in the traffic only.

    Raises:
        LatpruneError: the graph's shapes cannot be inferred.
    """
    graph = shape_inference.infer_shapes(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    weights = sum(prod(t.dims) * _item_bytes(t.data_type) for t in graph.initializer if t.data_type in _FLOATS)
    sizes = {
        value.name: prod(d.dim_value for d in value.type.tensor_type.shape.dim)
        * _item_bytes(value.type.tensor_type.elem_type)
        for value in [*graph.value_info, *graph.input, *graph.output]
        if all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    }
    borders = {value.name for value in [*graph.input, *graph.output]}
    readers: dict[str, int] = defaultdict(int)
    for node in graph.node:
        for name in node.input:
            readers[name] += 1
    home: dict[str, str] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, node in enumerate(graph.node):
        data = [name for name in node.input if name and name not in constants]
        for name in data:
            last[home.get(name, name)] = step
        for name in node.output:
            if name and name not in sizes:
                raise LatpruneError(f"The shape of {name} ({node.op_type}) is not fixed; memory cannot be counted.")
            written = _writes_over(node, data, sizes, readers, borders)
            home[name] = home.get(written, written) if written else name
            first.setdefault(home[name], step)
            last[home[name]] = step
    changes = [0] * (len(graph.node) + 1)
    traffic = weights + sum(sizes[name] for name in borders if name in sizes)
    for name, step in first.items():
        if name not in borders:
            changes[step] += sizes[name]
            changes[last[name] + 1] -= sizes[name]
            traffic += 2 * sizes[name]
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return Memory(weights, peak, workspace_bytes, traffic)


_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


def _item_bytes(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _writes_over(
    node: onnx.NodeProto, data: list[str], sizes: dict[str, int], readers: dict[str, int], borders: set[str]
) -> str | None:
    """The tensor in whose memory a node's output comes to lie, or None."""
    if node.op_type in VIEWS and data:
        return data[0]
    if node.op_type not in FOLLOWERS or len(node.output) != 1:
        return None
    fits = [n for n in data if readers[n] == 1 and sizes.get(n) == sizes.get(node.output[0]) and n not in borders]
    return fits[-1] if fits else None
