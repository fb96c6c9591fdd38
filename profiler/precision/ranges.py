"""How large the values of a network become, tensor by tensor, on batches."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from profiler.backends.interface import Array, Feeds
from profiler.precision.running import opened


def largest_values(model: onnx.ModelProto, batches: Iterable[Feeds]) -> dict[str, float]:
    """The largest magnitude of each float tensor that a node makes, over all batches; infinite where one is not finite.

    Raises:
        BackendError: the model cannot be run on them.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = _float_tensors(watched)
    there = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in there
    )
    largest = dict.fromkeys(names, 0.0)
    session = opened(watched)
    for feeds in batches:
        made = session.outputs(feeds)
        for name in names:
            largest[name] = max(largest[name], largest_of(made[name]))
    return largest


def largest_of(values: Array) -> float:
    """The largest magnitude, infinite where a value is not finite."""
    if not values.size:
        return 0.0
    found = float(np.abs(values).max())
    return found if np.isfinite(found) else float("inf")


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
