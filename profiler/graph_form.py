"""What a runtime compiles of an ONNX file: operations, how they are joined, and all sizes, whatever weights hold."""

from typing import Any

import onnx
from onnx import numpy_helper

Form = tuple[tuple[Any, ...], ...]


def read_form(model: onnx.ModelProto) -> Form:
    """A graph without names and without the contents of weights; two graphs of one form cost the same.

    Each node is its operation, its attributes, and for each input where it comes from: another node's output, an input
    of the graph, or a constant with its type and shape, and its contents where they are integers.
    """
    graph = model.graph
    made: dict[str, Any] = {value.name: ("input", number) for number, value in enumerate(graph.input)}
    made |= {tensor.name: _constant(tensor) for tensor in graph.initializer}
    made[""] = None
    nodes: list[tuple[Any, ...]] = []
    for number, node in enumerate(graph.node):
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        nodes.append((node.domain, node.op_type, *attributes, *(made[name] for name in node.input)))
        made.update((name, (number, place)) for place, name in enumerate(node.output) if name)
    return (*nodes, ("outputs", *(made[value.name] for value in graph.output)))


def _constant(tensor: onnx.TensorProto) -> tuple[Any, ...]:
    array = numpy_helper.to_array(tensor)
    contents = array.tobytes() if array.dtype.kind in "iub" else b""
    return (str(array.dtype), array.shape, contents)
