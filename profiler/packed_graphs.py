"""ONNX graphs that hold a unit several times side by side, each copy with an input and an output of its own.

One engine of such a graph launches once and runs all copies; over the number of copies its time grows by a unit and
what the runtime does at the unit's ends (`profiler/isolated.py`).
"""

from collections.abc import Sequence
from math import prod

import onnx
from onnx import ValueInfoProto, compose, helper

LARGEST_BYTES = 2**30
"""Copies whose weights would come to more share them: an ONNX file holds less than 2 GiB."""


def pack(piece: onnx.ModelProto, copies: int) -> onnx.ModelProto:
    """Put copies of a network side by side into one.

    Each copy reads inputs and weights of its own, as like units of a network do; weights too large for one file are
    shared.

    Args:
        piece: a unit as a network of its own; left as it was.
        copies: how many.
    """
    own_weights = copies * sum(len(tensor.SerializeToString()) for tensor in piece.graph.initializer) <= LARGEST_BYTES
    packed = _like(piece)
    for number in range(copies):
        graph = compose.add_prefix_graph(piece.graph, f"copy{number}/", rename_initializers=own_weights)
        packed.graph.node.extend(graph.node)
        packed.graph.input.extend(graph.input)
        packed.graph.output.extend(graph.output)
        packed.graph.value_info.extend(graph.value_info)
        if own_weights or number == 0:
            packed.graph.initializer.extend(graph.initializer)
    return packed


def pass_through(piece: onnx.ModelProto, tensors: Sequence[ValueInfoProto]) -> onnx.ModelProto:
    """A network that hands these tensors of a unit through, and computes nothing: what its borders cost.

    Args:
        piece: the unit, for its opset.
        tensors: inputs or outputs of it.
    """
    found = _like(piece)
    for number, value in enumerate(tensors):
        entering, leaving = ValueInfoProto(), ValueInfoProto()
        entering.CopyFrom(value)
        leaving.CopyFrom(value)
        entering.name, leaving.name = f"in{number}", f"out{number}"
        found.graph.input.append(entering)
        found.graph.output.append(leaving)
        found.graph.node.append(helper.make_node("Identity", [entering.name], [leaving.name], name=f"pass{number}"))
    return found


def border_key(tensors: Sequence[ValueInfoProto]) -> tuple[tuple[int, int], ...]:
    """What the cost of borders depends on: types and sizes, in any order."""
    kinds = [value.type.tensor_type for value in tensors]
    return tuple(sorted((kind.elem_type, prod(dim.dim_value for dim in kind.shape.dim)) for kind in kinds))


def _like(piece: onnx.ModelProto) -> onnx.ModelProto:
    found = onnx.ModelProto(ir_version=piece.ir_version)
    found.opset_import.extend(piece.opset_import)
    found.functions.extend(piece.functions)
    found.graph.name = "packed"
    return found
