"""Give weights that are alike contents of their own, as training does, so that a compiler stores each of them.

TensorRT for RTX stores equal tensors once. In a network that was never trained all biases of one length are equal, be
they zero from the start or folded from fresh norms, and its engine is that much smaller than the trained network's.
What is told of memory before training is meant for what is deployed after it.
"""

import copy
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from profiler.variants import Variants

SPREAD = 1e-3
"""Of the numbers that are added, beside weights of about one."""

Array = NDArray[np.floating]


def as_trained(variants: Variants) -> Variants:
    """The same variants, in which no two parameters are equal, and none has equal elements alone.

    What is so already, and what is no parameter, keeps its contents.
    """
    network = variants.network
    names = {name for name, _ in network.model.named_parameters(remove_duplicate=False)}
    if variants.anew_because:
        network = replace(network, model=_model_apart(network.model))
    whole = None if variants.whole is None else _graph_apart(variants.whole, names)
    return replace(variants, network=network, base=_graph_apart(variants.base, names), whole=whole)


class _Apart:
    """Gives contents of its own to what equals something that came before."""

    def __init__(self) -> None:
        self._seen: set[tuple[tuple[int, ...], bytes]] = set()
        self._generator = np.random.default_rng(0)

    def fresh(self, array: Array) -> Array | None:
        """What the array is instead; None where it may stay."""
        if array.dtype.kind != "f" or not array.size:
            return None
        key = (array.shape, array.tobytes())
        alike = key in self._seen or bool((array == array.flat[0]).all())
        self._seen.add(key)
        return (array + SPREAD * self._generator.standard_normal(array.shape)).astype(array.dtype) if alike else None


def _graph_apart(model: onnx.ModelProto, parameters: Collection[str]) -> onnx.ModelProto:
    """The graph with parameters apart; the one given is left as it is."""
    apart, fresh = _Apart(), onnx.ModelProto()
    fresh.CopyFrom(model)
    for tensor in fresh.graph.initializer:
        array = apart.fresh(numpy_helper.to_array(tensor)) if tensor.name in parameters else None
        if array is not None:
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return fresh


def _model_apart(model: nn.Module) -> nn.Module:
    """A copy of the model with parameters apart."""
    apart, fresh = _Apart(), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            array = apart.fresh(parameter.detach().cpu().numpy())
            if array is not None:
                parameter.copy_(torch.from_numpy(array))
    return fresh
