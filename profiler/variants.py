"""The network at other widths as ONNX, without exporting again: the exported graph with its weights sliced.

The graph is exported once with every parameter under its own name. Sizes written into it are rewritten from the groups'
widths (`variant_sizes`); its values are matched with the trace's by their contents (`variant_values`), so that the
runtime's nodes are assigned to units by the values that they write.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from lut.errors import BackendError
from profiler.backends.onnxruntime import evaluate
from profiler.branches import Block
from profiler.cut import Removal, awaken, cut, cut_positions, lost_positions
from profiler.export import export_named, flat_arrays, largest_difference, lively, output_arrays
from profiler.folding import drop, fold_norms
from profiler.narrowing import narrow_program, outermost
from profiler.network import Network
from profiler.program_module import install
from profiler.proof import some_of, uneven_removal
from profiler.trace import record
from profiler.variant_blocks import UnfoundError, take_out
from profiler.variant_compare import choose_widths, sizes_by_comparing, some_removal
from profiler.variant_sizes import OUTPUT, Sized, VariantError, sizes_by_values
from profiler.variant_values import match_values

SAME = 1e-3
"""Largest relative difference of a sliced graph's outputs from the shrunk network's (float32, other kernels)."""

BIAS = 2
"""Which input of a convolution its bias is."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variants:
    """An exported graph, ready to be written at any widths.

    Attributes:
        base: the graph at full widths, constants folded, parameters under their own names.
        value_of: for each value of the graph that was recognised, the trace's value.
        sizes: the places in the graph whose numbers follow the widths.
        folded: numbers of nodes that others have taken up; they are not written.
        anew_because: why slicing does not give the shrunk network and each variant is exported anew, or None.
    """

    network: Network
    base: onnx.ModelProto
    value_of: Mapping[str, int]
    sizes: tuple[Sized, ...] = ()
    folded: tuple[int, ...] = ()
    anew_because: str | None = None

    @cached_property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The graph's initialisers; they share its memory."""
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.base.graph.initializer}

    def at(self, remove: Removal, blocks: Sequence[Block] = ()) -> onnx.ModelProto:
        """The graph without these choices of each group, and without these blocks.

        Raises:
            LatpruneError: the exporter cannot write the network.
        """
        if self.anew_because:
            return self._anew(remove, blocks)
        try:
            return self.sliced(remove, blocks)
        except UnfoundError as error:
            log.warning("this variant is exported anew: %s", error)
            return self._anew(remove, blocks)

    def _anew(self, remove: Removal, blocks: Sequence[Block]) -> onnx.ModelProto:
        smaller = cut(self.network.model, self.network.groups, remove, blocks=blocks)
        found = fold_norms(export_named(smaller, self.network.inputs))
        return drop(found.model, found.norms)

    def sliced(self, remove: Removal, blocks: Sequence[Block] = ()) -> onnx.ModelProto:
        """The graph with its weights sliced, its sizes rewritten, and blocks taken out.

        Raises:
            VariantError: a size in the graph cannot be rewritten.
            UnfoundError: a block's addition is not found in it.
        """
        widths = {name: size - len(set(remove.get(name, ()))) for name, size in self.network.widths.items()}
        lost = lost_positions(self.network.groups, {name: gone for name, gone in remove.items() if gone})
        model = _without_weights(self.base)
        fresh = {name: _without(self.arrays[name], dims) for name, dims in lost.items() if name in self.arrays}
        for sized in self.sizes:
            _rewrite(model.graph, sized, widths, fresh)
        drop(model, self.folded)
        if blocks:
            take_out(model.graph, blocks, self.network.trace, self.value_of)
        read = {name for node in model.graph.node for name in node.input}
        for tensor in self.base.graph.initializer:
            if tensor.name not in fresh and tensor.name in read:
                model.graph.initializer.append(tensor)
        for name, array in fresh.items():
            if name in read:
                _add(model.graph, name, array)
        return model

    def widths_removal(self, widths: Mapping[str, int]) -> dict[str, range]:
        """Some removal that leaves these widths (times do not depend on which channels go)."""
        return {name: range(widths[name], size) for name, size in self.network.widths.items() if widths[name] < size}


def _without(array: NDArray[Any], lost: Mapping[int, Sequence[int]]) -> NDArray[Any]:
    """The array without these positions of its dimensions; no copy where only the last ones go."""
    for dimension, gone in lost.items():
        length = array.shape[dimension]
        if list(gone) == list(range(length - len(gone), length)):
            array = array[(slice(None),) * dimension + (slice(length - len(gone)),)]
        else:
            array = np.delete(array, gone, axis=dimension)
    return array


def _rewrite(graph: onnx.GraphProto, sized: Sized, widths: Mapping[str, int], fresh: dict[str, NDArray[Any]]) -> None:
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


def _add(graph: onnx.GraphProto, name: str, array: NDArray[Any]) -> None:
    """Add an initialiser; its elements are copied once."""
    tensor = graph.initializer.add()
    tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()


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


def prepare(network: Network) -> Variants:
    """Export a network once, for writing it at any widths, and prove it at two uneven removals.

    Matching and proof are done on an awake copy (random weights, no constant inputs), so that no two values look alike
    by chance; then the real weights take their places. Where the values do not tell all sizes, the network is exported
    at a few other widths, too.

    Raises:
        LatpruneError: the exporter cannot write the network.
    """
    awake = awaken(copy.deepcopy(network.model)).eval()
    inputs = lively(network.inputs)
    trace = record(awake, inputs, fingerprints=True)
    base = export_named(_at(awake, network, {}), inputs)
    variants = Variants(network, base, {})
    if [value.shape for value in trace.values] == [value.shape for value in network.trace.values]:
        variants = replace(variants, value_of=match_values(base, trace, flat_arrays(inputs)))
        variants = _sized(variants, awake, inputs)
    else:
        variants = replace(variants, anew_because="its operations depend on the weights' or the inputs' values")
    if variants.anew_because:
        log.warning("each variant is exported anew: %s", variants.anew_because)
    return _folded(replace(variants, base=_with_weights(base, network.model)))


def _folded(variants: Variants) -> Variants:
    """With batch norms folded into convolutions; no bias of theirs is a constant any more."""
    if variants.anew_because:
        return variants
    found = fold_norms(variants.base)
    taken_up = set(found.convolutions)
    sizes = tuple(sized for sized in variants.sizes if not (sized.place[0] in taken_up and sized.place[1] == BIAS))
    return replace(variants, base=found.model, sizes=sizes, folded=found.norms)


def _sized(variants: Variants, awake: nn.Module, inputs: Sequence[Any]) -> Variants:
    """With sizes that are proved, or the reason why there are none."""
    network = variants.network
    try:
        by_values = replace(variants, sizes=sizes_by_values(network, variants.base.graph, variants.value_of))
        problem = _trial(by_values, awake, inputs)
        if problem is None:
            return by_values
    except VariantError as error:
        problem = str(error)
    log.info("sizes are told by comparing: %s", problem)
    try:
        comparison = choose_widths(network)
        others = [
            export_named(_at(awake, network, some_removal(network, widths)), inputs) for widths in comparison.widths
        ]
        graphs = [other.graph for other in others]
        sizes = sizes_by_comparing(network, variants.base.graph, graphs, comparison)
        compared = replace(variants, sizes=sizes)
        problem = _trial(compared, awake, inputs)
    except VariantError as error:
        problem = str(error)
    return replace(variants, anew_because=problem) if problem else compared


def _at(model: nn.Module, network: Network, remove: Removal) -> nn.Module:
    """A copy of the network without these choices, with the same programs in it at any removal."""
    programs = {id(program): program for group in network.groups for program in group.programs}
    smaller = cut_positions(model, lost_positions(network.groups, remove), share=True)
    return install(smaller, [narrow_program(program, remove) for program in outermost(list(programs.values()))])


def _with_weights(base: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """The same graph with a model's own weights."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    filled = _without_weights(base)
    for tensor in base.graph.initializer:
        own = tensors.get(tensor.name)
        if own is None:
            filled.graph.initializer.append(tensor)
        else:
            _add(filled.graph, tensor.name, own.detach().cpu().numpy())
    return filled


def _trial(variants: Variants, awake: nn.Module, inputs: Sequence[Any]) -> str | None:
    """Why the sliced graph is not the shrunk network, or None.

    One removal is random; the other takes the first and the last choices: where the graph counts from an end, it shows.
    """
    network = variants.network
    generator = np.random.default_rng(0)
    groups = [group for group in network.groups if group.size > 1]
    for remove in ({group.name: some_of(group, generator) for group in groups}, uneven_removal(groups, 0)):
        try:
            sliced = variants.sliced(remove)
            found = list(evaluate(sliced.SerializeToString(), flat_arrays(inputs)).values())
        except (VariantError, BackendError) as error:
            return str(error).splitlines()[0]
        difference = largest_difference(found, output_arrays(cut(awake, network.groups, remove), inputs))
        if difference > SAME:
            return f"the outputs of a sliced graph differ by {difference:.1g}"
    return None
