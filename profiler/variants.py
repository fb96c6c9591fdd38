"""The network at other widths as ONNX, without exporting again: the exported graph with its weights sliced.

The graph is exported once with every parameter under its own name. Sizes written into it are rewritten from the groups'
widths (`variant_sizes`); its values are matched with the trace's by their contents (`variant_values`), so that the
runtime's nodes are assigned to units by the values that they write.
"""

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from lut.errors import BackendError
from lut.program import Program
from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.branches import Block
from profiler.cut import Removal, cut, cut_positions, lost_positions
from profiler.export import (
    export_named,
    flat_arrays,
    largest_difference,
    lively,
    output_arrays,
    own_names,
    to_onnx,
)
from profiler.export_graph import BIAS, finish
from profiler.folding import drop, fold_norms
from profiler.narrowing import narrow_program, outermost
from profiler.network import Network
from profiler.program_module import install
from profiler.proof import some_of, uneven_removal
from profiler.recording import record
from profiler.variant_blocks import UnfoundError, take_out
from profiler.variant_compare import choose_widths, sizes_by_comparing, some_removal
from profiler.variant_sizes import Sized, VariantError, sizes_by_values
from profiler.variant_slicing import add_weight, rewrite, without_positions, without_weights
from profiler.variant_values import match_values

SAME = 1e-3
"""Largest relative difference of a sliced graph's outputs from the shrunk network's (float32, other kernels)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variants:
    """An exported graph, ready to be written at any widths.

    Attributes:
        base: the graph at full widths, constants folded, parameters under their own names; modules that a smaller
            network runs as programs are programs.
        whole: the same of the network as it is, without programs, values under names of their own; None where there
            are no programs.
        value_of: for each value of the graphs that was recognised, the trace's value.
        sizes: the places in the graph whose numbers follow the widths.
        folded: numbers of nodes that others have taken up; they are not written.
        anew_because: why slicing does not give the shrunk network and each variant is exported anew, or None.
    """

    network: Network
    base: onnx.ModelProto
    whole: onnx.ModelProto | None
    value_of: Mapping[str, int]
    sizes: tuple[Sized, ...] = ()
    folded: tuple[int, ...] = ()
    anew_because: str | None = None

    @cached_property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The graph's initialisers; they share its memory."""
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.base.graph.initializer}

    @cached_property
    def own(self) -> set[str]:
        """Names of the network's parameters and buffers."""
        return own_names(self.network.model)

    def at(self, remove: Removal, blocks: Sequence[Block] = ()) -> onnx.ModelProto:
        """The graph without these choices of each group, and without these blocks, as `to_onnx` writes the cut network.

        Raises:
            LatpruneError: the exporter cannot write the network.
        """
        if self.whole is not None and not blocks and not any(remove.values()):
            return finish(self.whole, self.own)
        if self.anew_because:
            return self._anew(remove, blocks)
        try:
            return finish(self.sliced(remove, blocks), self.own)
        except UnfoundError as error:
            log.warning("this variant is exported anew: %s", error)
            return self._anew(remove, blocks)

    def _anew(self, remove: Removal, blocks: Sequence[Block]) -> onnx.ModelProto:
        smaller = cut(self.network.model, self.network.groups, remove, blocks=blocks)
        return to_onnx(smaller, self.network.inputs)

    def sliced(self, remove: Removal, blocks: Sequence[Block] = ()) -> onnx.ModelProto:
        """The graph with its weights sliced, its sizes rewritten, and blocks taken out, not yet simplified.

        Raises:
            VariantError: a size in the graph cannot be rewritten.
            UnfoundError: a block's addition is not found in it.
        """
        widths = {name: size - len(set(remove.get(name, ()))) for name, size in self.network.widths.items()}
        lost = lost_positions(self.network.groups, {name: gone for name, gone in remove.items() if gone})
        model = without_weights(self.base)
        fresh = {name: without_positions(self.arrays[name], dims) for name, dims in lost.items() if name in self.arrays}
        for sized in self.sizes:
            rewrite(model.graph, sized, widths, fresh)
        drop(model, self.folded)
        if blocks:
            take_out(model.graph, blocks, self.network.trace, self.value_of)
        read = {name for node in model.graph.node for name in node.input}
        for tensor in self.base.graph.initializer:
            if tensor.name not in fresh and tensor.name in read:
                model.graph.initializer.append(tensor)
        for name, array in fresh.items():
            if name in read:
                add_weight(model.graph, name, array)
        return model

    def widths_removal(self, widths: Mapping[str, int]) -> dict[str, range]:
        """Some removal that leaves these widths (times do not depend on which channels go)."""
        return {name: range(widths[name], size) for name, size in self.network.widths.items() if widths[name] < size}


def prepare(network: Network, stay: Collection[str] = ()) -> Variants:
    """Export a network once, for writing it at any widths, and prove it at two uneven removals.

    Matching and proof are done on an awake copy (random weights, no constant inputs), so that no two values look alike
    by chance; then the real weights take their places. Where the values do not tell all sizes, the network is exported
    at a few other widths, too; and where it holds programs once it is cut, once more as it is.

    Args:
        network: all of it.
        stay: names of groups that no variant will be without.

    Raises:
        LatpruneError: the exporter cannot write the network.
    """
    awake = awaken(copy.deepcopy(network.model)).eval()
    inputs = lively(network.inputs)
    trace = record(awake, inputs, fingerprints=True)
    base = export_named(_at(awake, network, {}), inputs)
    whole = _apart(export_named(awake, inputs), own_names(awake)) if _programs(network) else None
    variants = Variants(network, base, whole, {})
    if [value.shape for value in trace.values] == [value.shape for value in network.trace.values]:
        known = match_values(base, trace, flat_arrays(inputs))
        known |= match_values(whole, trace, flat_arrays(inputs)) if whole is not None else {}
        variants = replace(variants, network=_staying(network, stay), value_of=known)
        variants = replace(_sized(variants, awake, inputs), network=network)
    else:
        variants = replace(variants, anew_because="its operations depend on the weights' or the inputs' values")
    if variants.anew_because:
        log.warning("each variant is exported anew: %s", variants.anew_because)
    filled = replace(variants, base=_with_weights(base, network.model))
    if whole is not None:
        found = fold_norms(_with_weights(whole, network.model))
        filled = replace(filled, whole=drop(found.model, found.norms))
    return _folded(filled)


def _staying(network: Network, stay: Collection[str]) -> Network:
    """The network with these groups frozen."""
    groups = [
        replace(group, size=0, frozen_because="it stays", programs=()) if group.name in stay else group
        for group in network.groups
    ]
    return replace(network, structure=replace(network.structure, groups=tuple(groups))) if stay else network


APART = "whole."
"""Begins the names of values in the graph without programs: the exporter gives the same ones to others."""


def _apart(model: onnx.ModelProto, own: Collection[str]) -> onnx.ModelProto:
    """The graph with all values but inputs and parameters renamed, in place."""
    kept = {value.name for value in model.graph.input} | set(own) | {""}

    def named(name: str) -> str:
        return name if name in kept else APART + name

    for node in model.graph.node:
        node.input[:] = [named(name) for name in node.input]
        node.output[:] = [named(name) for name in node.output]
    for value in [*model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        value.name = named(value.name)
    return model


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
    smaller = cut_positions(model, lost_positions(network.groups, remove), share=True)
    return install(smaller, [narrow_program(program, remove) for program in _programs(network)])


def _programs(network: Network) -> list[Program]:
    """The programs that the network holds once it is cut."""
    programs = {id(program): program for group in network.groups for program in group.programs}
    return outermost(list(programs.values()))


def _with_weights(base: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """The same graph with a model's own weights."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    filled = without_weights(base)
    for tensor in base.graph.initializer:
        own = tensors.get(tensor.name)
        if own is None:
            filled.graph.initializer.append(tensor)
        else:
            add_weight(filled.graph, tensor.name, own.detach().cpu().numpy())
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
            sliced = finish(variants.sliced(remove), variants.own)
            found = list(evaluate(sliced.SerializeToString(), flat_arrays(inputs)).values())
        except (VariantError, BackendError) as error:
            return str(error).splitlines()[0]
        difference = largest_difference(found, output_arrays(cut(awake, network.groups, remove), inputs))
        if difference > SAME:
            return f"the outputs of a sliced graph differ by {difference:.1g}"
    return None
