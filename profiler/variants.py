"""The network at other widths as ONNX, without exporting again: the exported graph with its weights sliced.

The graph is exported once with every parameter under its own name. Its values are matched with the trace's by their
contents (`trace.fingerprint`), so that sizes written into the graph (reshape, split, expand) are rewritten from the
groups' widths, and the runtime's nodes are assigned to units by the values that they write.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference
from onnxscript import optimizer
from torch import nn

from lut.errors import BackendError, LatpruneError
from profiler.backends.onnxruntime import evaluate
from profiler.cut import awaken, cut, lost_positions
from profiler.export import flat_arrays, largest_difference, lively, output_arrays, to_onnx
from profiler.network import Network
from profiler.proof import some_of
from profiler.trace import Trace, fingerprint, record

SIZED = {"Reshape": 1, "Expand": 1, "Split": 1}
"""Operations that take a size as an input, and which input it is."""

PRINT_TOLERANCE = 2e-3
"""Largest difference of two fingerprints, relative to the mean magnitude, of one tensor in two runtimes."""

SAME = 1e-3
"""Largest relative difference of a sliced graph's outputs from the shrunk network's (float32, other kernels)."""

log = logging.getLogger(__name__)


class VariantError(LatpruneError):
    """The exported graph holds a size that cannot be rewritten; the network must be exported anew for each width."""


@dataclass(frozen=True)
class Variants:
    """An exported graph, ready to be written at any widths.

    Attributes:
        base: the graph at full widths, constants folded, parameters under their own names.
        value_of: for each value of the graph that was recognised, the trace's value.
        anew_because: why slicing does not give the shrunk network and each variant is exported anew, or None.
    """

    network: Network
    base: onnx.ModelProto
    value_of: Mapping[str, int]
    anew_because: str | None = None

    def at(self, remove: Mapping[str, Collection[int]]) -> onnx.ModelProto:
        """The graph without these choices of each group.

        Raises:
            LatpruneError: the exporter cannot write the network.
        """
        if self.anew_because:
            return export_named(cut(self.network.model, self.network.groups, remove), self.network.inputs)
        return self.sliced(remove)

    def sliced(self, remove: Mapping[str, Collection[int]]) -> onnx.ModelProto:
        """The graph with its weights sliced and its sizes rewritten.

        Raises:
            VariantError: a size in the graph cannot be rewritten.
        """
        network = self.network
        widths = {name: size - len(set(remove.get(name, ()))) for name, size in network.widths.items()}
        lost = lost_positions(network.groups, {name: gone for name, gone in remove.items() if gone})
        model = _without_weights(self.base)
        graph = model.graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.base.graph.initializer}
        for name, dims in lost.items():
            if name in arrays:
                for dimension, gone in dims.items():
                    arrays[name] = np.delete(arrays[name], gone, axis=dimension)
        for node in graph.node:
            self._resize(node, arrays, widths)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        for value in graph.output:
            self._set_shape(value, widths)
        return model

    def widths_removal(self, widths: Mapping[str, int]) -> dict[str, range]:
        """Some removal that leaves these widths (times do not depend on which channels go)."""
        return {name: range(widths[name], size) for name, size in self.network.widths.items() if widths[name] < size}

    def _set_shape(self, value: onnx.ValueInfoProto, widths: Mapping[str, int]) -> None:
        if value.name in self.value_of:
            shape = self._shape(self.value_of[value.name], widths)
            for dimension, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                dimension.dim_value = length

    def _shape(self, value: int, widths: Mapping[str, int]) -> list[int]:
        structure = self.network.structure
        return [structure.coordinate(value, d).at(widths) for d in range(len(self.network.trace.values[value].shape))]

    def _resize(self, node: onnx.NodeProto, arrays: dict[str, NDArray[np.generic]], widths: Mapping[str, int]) -> None:
        """Rewrite the sizes that stand in one node."""
        if node.op_type in {"Conv", "ConvTranspose"}:
            self._resize_convolution(node, arrays, widths)
        position = SIZED.get(node.op_type)
        if position is None or len(node.input) <= position or node.input[position] not in arrays:
            return
        known = [self.value_of.get(output) for output in node.output]
        if any(value is None for value in known):
            if not self.network.widths:
                return
            raise VariantError(f"the size in {node.op_type} {node.name} is not one that the trace knows")
        shapes = [self._shape(value, widths) for value in known if value is not None]
        if node.op_type == "Split":
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            sizes = [shape[axis] for shape in shapes]
        else:
            sizes = shapes[0]
        name = f"{node.output[0]}::size"
        arrays[name] = np.asarray(sizes, dtype=np.int64)
        node.input[position] = name

    def _resize_convolution(
        self, node: onnx.NodeProto, arrays: dict[str, NDArray[np.generic]], widths: Mapping[str, int]
    ) -> None:
        weight = arrays.get(node.input[1])
        if weight is None:
            return
        for attribute in node.attribute:
            if attribute.name == "group" and attribute.i > 1:
                source = self.value_of.get(node.input[0])
                if source is None:
                    raise VariantError(f"the input of {node.name} is not one that the trace knows")
                attribute.i = self._shape(source, widths)[1] // (weight.shape[1] if node.op_type == "Conv" else 1)
                if node.op_type == "ConvTranspose":
                    raise VariantError(f"{node.name} is a transposed group convolution")
        if len(node.input) > 2 and node.input[2] in arrays:
            bias = arrays[node.input[2]]
            rows = weight.shape[0 if node.op_type == "Conv" else 1]
            if bias.shape[0] != rows:
                if not np.all(bias == bias.flat[0]):
                    raise VariantError(f"the bias of {node.name} is not a parameter of the network")
                name = f"{node.output[0]}::bias"
                arrays[name] = bias[:rows]
                node.input[2] = name


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its initialisers, and without shapes that would no longer be true."""
    bare = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    return bare


def match_values(model: onnx.ModelProto, trace: Trace, inputs: Sequence[NDArray[np.generic]]) -> dict[str, int]:
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
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            continue
        seen = fingerprint(torch.from_numpy(array))
        best = min(by_shape[array.shape], key=lambda index: _distance(seen, trace.values[index].print), default=None)
        if best is not None and _distance(seen, trace.values[best].print) <= PRINT_TOLERANCE:
            found[name] = best
    return found


def _distance(one: tuple[float, ...], other: tuple[float, ...] | None) -> float:
    """Difference of two prints over the tensor's mean magnitude."""
    if other is None:
        return float("inf")
    scale = max(one[0], other[0], 1e-30)
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / scale


def export_named(model: nn.Module, inputs: Sequence[Any]) -> onnx.ModelProto:
    """Export with every parameter under its own name, all else folded."""
    graph = onnx_ir.from_proto(to_onnx(model, inputs, optimize=False))
    parameters = set(graph.graph.initializers)

    def foldable(node: onnx_ir.Node) -> bool | None:
        return False if any(value is not None and value.name in parameters for value in node.inputs) else None

    optimizer.fold_constants(graph, should_fold=foldable)
    optimizer.remove_unused_nodes(graph)
    return onnx_ir.to_proto(graph)


def prepare(network: Network) -> Variants:
    """Export a network once, for writing it at any widths, and prove it at one random, uneven removal.

    Matching and proof are done on an awake copy (random weights, no constant inputs), so that no two values look alike
    by chance; then the real weights take their places.

    Raises:
        LatpruneError: the exporter cannot write the network.
    """
    awake = awaken(copy.deepcopy(network.model)).eval()
    inputs = lively(network.inputs)
    trace = record(awake, inputs, fingerprints=True)
    base = export_named(awake, inputs)
    if [value.shape for value in trace.values] == [value.shape for value in network.trace.values]:
        variants = Variants(network, base, match_values(base, trace, flat_arrays(inputs)))
        problem = _trial(variants, awake, inputs)
    else:
        variants = Variants(network, base, {})
        problem = "its operations depend on the weights' or the inputs' values"
    if problem:
        log.warning("each variant is exported anew: %s", problem)
    return replace(variants, base=_with_weights(base, network.model), anew_because=problem)


def _with_weights(base: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """The same graph with a model's own weights."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    filled = _without_weights(base)
    for tensor in base.graph.initializer:
        own = tensors.get(tensor.name)
        if own is None:
            filled.graph.initializer.append(tensor)
        else:
            filled.graph.initializer.append(numpy_helper.from_array(own.detach().cpu().numpy(), tensor.name))
    return filled


def _trial(variants: Variants, awake: nn.Module, inputs: Sequence[Any]) -> str | None:
    """Why the sliced graph is not the shrunk network, or None."""
    network = variants.network
    generator = np.random.default_rng(0)
    remove = {group.name: some_of(group, generator) for group in network.groups if group.size > 1}
    try:
        sliced = variants.sliced(remove)
        found = list(evaluate(sliced.SerializeToString(), flat_arrays(inputs)).values())
    except (VariantError, BackendError) as error:
        return str(error).splitlines()[0]
    difference = largest_difference(found, output_arrays(cut(awake, network.groups, remove), inputs))
    return None if difference <= SAME else f"the outputs of a sliced graph differ by {difference:.1g}"
