"""What writing a graph at other widths consists of: arrays without positions, numbers put in their places."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from profiler.variant_sizes import OUTPUT, Sized


def without_positions(array: NDArray[Any], lost: Mapping[int, Sequence[int]]) -> NDArray[Any]:
    """The array without these positions of its dimensions; no copy where only the last ones go."""
    for dimension, gone in lost.items():
        length = array.shape[dimension]
        if list(gone) == list(range(length - len(gone), length)):
            array = array[(slice(None),) * dimension + (slice(length - len(gone)),)]
        else:
            array = np.delete(array, gone, axis=dimension)
    return array


def rewrite(graph: onnx.GraphProto, sized: Sized, widths: Mapping[str, int], fresh: dict[str, NDArray[Any]]) -> None:
    """Put numbers into the graph, those of inputs into `fresh` as new initialisers."""
    number, place = sized.place
    now = sized.at(widths)
    if number == OUTPUT:
        for dimension, length in zip(graph.output[int(place)].type.tensor_type.shape.dim, now.tolist(), strict=True):
            dimension.dim_value = length
    elif isinstance(place, int):
        node = graph.node[number]
        name = f"{node.output[0]}::{place}"
        fresh[name] = now
        node.input[place] = name
    else:
        attribute = next(a for a in graph.node[number].attribute if a.name == place)
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = int(now)
        else:
            attribute.ints[:] = now.tolist()


def add_weight(graph: onnx.GraphProto, name: str, array: NDArray[Any]) -> None:
    """Add an initialiser; its elements are copied once."""
    tensor = graph.initializer.add()
    tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its initialisers, and without shapes that would no longer be true."""
    bare = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    return bare
