"""Fold batch norms into the convolutions before them, as a deployed file has them.

Runtimes fold them too, but some forget the convolution's name over it, and with it which unit a kernel belongs to.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Folded:
    """A graph whose convolutions have taken up their norms.

    Attributes:
        model: the convolutions write what the norms wrote; the norms still stand in their places.
        norms: numbers of the nodes to be dropped.
        convolutions: numbers of the nodes that took them up.
    """

    model: onnx.ModelProto
    norms: tuple[int, ...]
    convolutions: tuple[int, ...]


def fold_norms(model: onnx.ModelProto) -> Folded:
    """Fold every batch norm that alone reads a convolution whose weights nothing else uses.

    A convolution keeps its weight's name and takes the norm's bias under that one's name: what is known of a
    parameter's dimensions stays true, and so do the nodes' numbers until `drop` removes the norms.

    Args:
        model: left as it is.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    arrays: Arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output}
    norms, convolutions, changed = [], [], set()
    for number, norm in enumerate(graph.node):
        if norm.op_type != "BatchNormalization" or len(norm.output) != 1 or norm.input[0] not in makers:
            continue
        source = graph.node[makers[norm.input[0]]]
        if not _foldable(source, norm, uses, arrays):
            continue
        arrays[source.input[1]], arrays[norm.input[2]] = _folded(source, norm, arrays)
        changed |= {source.input[1], norm.input[2]}
        convolutions.append(makers[norm.input[0]])
        norms.append(number)
        del source.input[2:]
        source.input.append(norm.input[2])
        source.output[0] = norm.output[0]
    for tensor in graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return Folded(folded, tuple(norms), tuple(convolutions))


def drop(model: onnx.ModelProto, norms: Sequence[int]) -> onnx.ModelProto:
    """Remove nodes that were folded, and initialisers that nothing reads any more, in place."""
    graph = model.graph
    for number in sorted(norms, reverse=True):
        del graph.node[number]
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in read:
            del graph.initializer[number]
    return model


def _foldable(source: onnx.NodeProto, norm: onnx.NodeProto, uses: Counter[str], arrays: Arrays) -> bool:
    constants = [*source.input[1:], *norm.input[1:]]
    return (
        source.op_type == "Conv"
        and uses[source.output[0]] == 1
        and uses[source.input[1]] == 1
        and uses[norm.input[2]] == 1
        and all(name in arrays for name in constants if name)
    )


def _folded(source: onnx.NodeProto, norm: onnx.NodeProto, arrays: Arrays) -> tuple[NDArray[np.generic], ...]:
    """The convolution's new weight and bias."""
    weight = arrays[source.input[1]]
    gain, shift, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:5])
    epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
    scale = gain / np.sqrt(variance + epsilon)
    old = arrays[source.input[2]].astype(np.float64) if len(source.input) > 2 and source.input[2] else 0.0
    bias = (old - mean) * scale + shift
    scaled = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled.astype(weight.dtype), bias.astype(weight.dtype)
