"""Which value of the traced run each value of the exported graph is, told by its contents."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import shape_inference

from profiler.backends.onnxruntime_plain import evaluate
from profiler.recording import fingerprint
from profiler.trace import Trace

PRINT_TOLERANCE = 2e-3
"""Largest difference of two fingerprints, relative to the mean magnitude, of one tensor in two runtimes."""


def match_values(model: onnx.ModelProto, trace: Trace, inputs: Sequence[NDArray[Any]]) -> dict[str, int]:
    """Recognise the graph's values among the trace's by shape and contents; all are computed once, unoptimised."""
    inferred = shape_inference.infer_shapes(model)
    floats = [v for v in inferred.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    exposed.graph.output.extend(value for value in floats if value.name not in outputs)
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, value in enumerate(trace.values):
        if value.print is not None and value.from_input:
            by_shape[value.shape].append(index)
    found = {item.name: index for item, index in zip(model.graph.input, trace.inputs, strict=True)}
    for name, array in evaluate(exposed.SerializeToString(), inputs).items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape not in by_shape:
            continue
        seen = fingerprint(torch.from_numpy(array))
        best = min(by_shape[array.shape], key=lambda index: _distance(seen, trace.values[index].print))
        if _distance(seen, trace.values[best].print) <= PRINT_TOLERANCE:
            found[name] = best
    return found


def _distance(one: tuple[float, ...], other: tuple[float, ...] | None) -> float:
    """Difference of two prints over the tensor's mean magnitude."""
    if other is None:
        return float("inf")
    scale = max(one[0], other[0], 1e-30)
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / scale
