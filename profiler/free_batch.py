"""Write a network as ONNX with its batch left free, for engines that run at several.

PyTorch's exporter follows the batch as a symbol. What it writes down as computed sizes, though all of it but the batch
is known, becomes plain again: a reshape to [batch, 512] is one to [-1, 512], which any runtime reads.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lut.errors import LatpruneError
from profiler.export import to_onnx

BATCH = "batch"
"""What the free dimension is called in the file."""
APART = (2, 3)
"""Two batches at which sizes are compared; at 1, what grows with the batch could not be told from what is 1."""


def to_free_batch(model: nn.Module, inputs: Sequence[Any], others: Sequence[Any]) -> onnx.ModelProto:
    """Export `model(*inputs)` in eval mode with the first dimension free of each input that has the batch there.

    Args:
        model: left as it was.
        inputs: positional arguments, of a batch of 2 or more: PyTorch takes a 1 for a number that does not change.
        others: the same of another batch; what differs in length is what has the batch.

    Raises:
        LatpruneError: the network's code fixes the batch, or the exporter cannot translate it; the reason is the
            exporter's.
    """
    marked = _marked(inputs, others)
    arguments = inspect.signature(model.forward).bind(*marked).arguments
    try:
        exported = to_onnx(model, inputs, free=dict(arguments))
    except LatpruneError as error:
        raise LatpruneError(
            f"The batch cannot be left free. {error}\nWhere the code takes the batch for a number, let it say "
            "x.size(0) or -1; or export the network for one batch: without --batch."
        ) from error
    return _plain(_renamed(exported))


def at_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The same network for one batch; a copy, which tells no shapes but its inputs' (and outputs', as far as known)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == BATCH:
                dimension.dim_value = size
    for value in copy.graph.output:
        if any(dimension.dim_param for dimension in value.type.tensor_type.shape.dim):
            value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    del copy.graph.output[:]
    copy.graph.output.extend(inferred.graph.output)
    return copy


def free_inputs(model: onnx.ModelProto) -> list[str]:
    """The inputs that have the free batch."""
    return [value.name for value in model.graph.input if _is_free(value)]


def distinct_samples(inputs: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs with each sample's elements moved on by its number, so that samples that were repeated differ.

    Args:
        inputs: positional arguments.
        others: the same of another batch, which tells what has one.
    """
    leaves, structure = tree_flatten(tuple(inputs))
    moved = [
        torch.stack([sample.flatten().roll(number).view_as(sample) for number, sample in enumerate(leaf)])
        if _has_batch(leaf, other) and leaf.dim() > 1
        else leaf
        for leaf, other in zip(leaves, tree_flatten(tuple(others))[0], strict=True)
    ]
    return tuple(tree_unflatten(moved, structure))


def _has_batch(leaf: Any, other: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.shape[:1] != other.shape[:1]


def _marked(inputs: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
    """In the structure of the inputs what of each is free."""
    leaves, structure = tree_flatten(tuple(inputs))
    marks = [
        {0: torch.export.Dim.DYNAMIC} if _has_batch(leaf, other) else None
        for leaf, other in zip(leaves, tree_flatten(tuple(others))[0], strict=True)
    ]
    found = tree_unflatten(marks, structure)
    return tuple(found)


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Call the free dimension by one name, in place."""
    graph = model.graph
    symbols = {value.type.tensor_type.shape.dim[0].dim_param for value in graph.input if _is_free(value)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_param = BATCH
    return model


def _is_free(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return bool(dims) and dims[0].HasField("dim_param")


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write out the sizes of reshapes, but for the one that grows with the batch."""
    few, more = (_inferred(at_batch(model, size)) for size in APART)
    constants = {tensor.name for tensor in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] in constants:
            continue
        one, other = few.get(node.output[0]), more.get(node.output[0])
        if one is None or other is None or len(one) != len(other):
            continue
        sizes = [a if a == b else -1 for a, b in zip(one, other, strict=True)]
        if sizes.count(-1) > 1 or 0 in sizes:
            continue
        name = f"{node.name or number}_sizes"
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, dtype=np.int64), name))
        node.input[1] = name
    graph = onnx_ir.from_proto(model)
    optimizer.remove_unused_nodes(graph)
    return onnx_ir.to_proto(graph)


def _inferred(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the values that have a fixed one."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
            found[value.name] = tuple(dimension.dim_value for dimension in kind.shape.dim)
    return found
