"""One step of the trace with the labels that reach it, and what all rules share: combining, joining and refusing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from profiler.labels import Labels, Layers, broadcast, compact, varying
from profiler.trace import Ref, Step, Trace, Value

Rule = Callable[["Site"], list[Layers]]
"""Gives the layers of each output of a step."""


@dataclass
class Site:
    """One step of the trace, with the layers of all values known so far."""

    trace: Trace
    step: Step
    labels: Labels
    layers: dict[int, Layers]
    makers: Mapping[int, Step]

    def value(self, argument: Ref) -> Value:
        """The traced value behind an argument."""
        return self.trace.values[argument.index]

    def of(self, argument: Any) -> Layers:
        """The layers of an argument; none for what is no tensor or carries no labels."""
        if not isinstance(argument, Ref):
            return []
        if argument.index not in self.layers:
            value = self.value(argument)
            named = value.name is not None and value.dtype.is_floating_point
            self.layers[argument.index] = self.labels.of_parameter(str(value.name), value.shape) if named else []
        return self.layers[argument.index]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        if len(self.step.args) > position:
            return self.step.args[position]
        return self.step.kwargs.get(name, default)

    def stretched(self, argument: Ref, dimension: int) -> bool:
        """Whether a dimension (counted from the end) was made by expanding one of length 1: its size is free."""
        maker = self.makers.get(argument.index)
        if maker is None or maker.name not in {"expand", "expand_as"}:
            return False
        before = self.value(maker.args[0]).shape
        return -dimension > len(before) or before[dimension] == 1

    @property
    def refs(self) -> list[Ref]:
        """All tensors among the arguments."""
        return refs_in((self.step.args, dict(self.step.kwargs)))

    @property
    def where(self) -> str:
        """The place in words, for reasons."""
        return f"{self.step.name} in {self.step.module or 'the network'}"

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        index = self.step.outputs[output]
        return self.trace.values[index].shape if index is not None else ()

    def each(self, layers: Layers) -> list[Layers]:
        """The layers for the outputs that have the first one's shape, nothing for the others."""
        shape = self.shape()
        return [
            layers if index is not None and self.trace.values[index].shape == shape else []
            for index in self.step.outputs
        ]

    def alone(self, layers: Layers) -> list[Layers]:
        """The layers for the first output, nothing for the others."""
        return [layers, *([] for _ in self.step.outputs[1:])]

    def freeze(self, layers: Iterable[Tensor | None], because: str) -> None:
        """Freeze these layers with this place in the reason."""
        self.labels.freeze([layer for layer in layers if layer is not None], f"{self.where} {because}")

    def role(self, argument: Any, dimension: int, *, makes: bool) -> None:
        """Remember that a weight's dimension makes channels, or takes them in."""
        for layer in self.of(argument):
            if dimension in varying(layer):
                (self.labels.produced if makes else self.labels.consumed).update(self.labels.keys_of(layer))


def is_ref(leaf: Any) -> bool:
    """Whether an argument stands for a tensor."""
    return isinstance(leaf, Ref)


def refs_in(arguments: Any) -> list[Ref]:
    """All tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(arguments, is_leaf=is_ref) if isinstance(leaf, Ref)]


FIXED = "combines them with a tensor whose size is fixed"


def meet(site: Site, arguments: Sequence[Any], shape: Sequence[int]) -> Layers:
    """Combine element by element: labels that meet are united; what meets a tensor without labels cannot go.

    Labels that cannot go are not carried on: what follows sees a tensor whose size is fixed.
    """
    operands: list[tuple[list[int], Layers]] = []
    rank = len(shape)
    for argument in arguments:
        if isinstance(argument, Ref):
            own = site.value(argument).shape
            full = [1] * (rank - len(own)) + list(own)
            layers = [layer.reshape(full) if list(layer.shape) != full else layer for layer in site.of(argument)]
            sizes = [1 if n > 1 and site.stretched(argument, d - rank) else n for d, n in enumerate(full)]
            operands.append((sizes, layers))
    combined: Layers = []
    for _, layers in operands:
        for layer in layers:
            if varying(layer):
                join(site, combined, layer.expand(list(shape)))
    kept: Layers = []
    for layer in combined:
        dims = set(varying(layer))
        if any(
            any(sizes[d] > 1 for d in dims) and not any(dims & set(varying(own)) for own in layers)
            for sizes, layers in operands
        ):
            site.freeze([layer], FIXED)
        else:
            kept.append(layer)
    return kept


def join(site: Site, layers: Layers, layer: Tensor) -> None:
    """Add a layer to those of one value: united with one that varies along a common dimension, else beside them."""
    dims = set(varying(layer))
    partner = next((k for k, other in enumerate(layers) if dims & set(varying(other))), None)
    if partner is None:
        layers.append(layer)
        return
    other = layers[partner]
    if compact(other).data_ptr() == compact(layer).data_ptr() and other.stride() == layer.stride():
        return
    site.labels.unite(other, layer)
    small, large = broadcast(compact(other), compact(layer))
    if bool((small == 0).any()) or small.stride() != compact(other).stride():
        layers[partner] = torch.where(small == 0, large, small).expand(layer.shape)


def refuse(site: Site, because: str = "has no rule") -> list[Layers]:
    """Freeze all that the step reads and writes."""
    for ref in site.refs:
        site.freeze(site.of(ref), because)
    outputs: list[Layers] = []
    for position, number in enumerate(site.step.outputs):
        shape = site.shape(position)
        if number is None or not shape or not site.trace.values[number].dtype.is_floating_point:
            outputs.append([])
            continue
        layer = site.labels.fresh(1).expand(shape)
        site.freeze([layer], because)
        outputs.append([layer])
    return outputs


def create(site: Site) -> list[Layers]:
    """Tensors made of nothing carry no labels."""
    return [[] for _ in site.step.outputs]


def columns(site: Site, argument: Any, dimension: int) -> Tensor | None:
    """The labels of an operand along one dimension, tied along the others; None where it has none.

    Where several kinds stand along it (an outer product, flattened), only the most numerous can be removed.
    """
    found = [layer for layer in site.of(argument) if dimension in varying(layer)]
    if not found:
        return None
    kept = max(found, key=lambda layer: len(np.unique(compact(layer).numpy()))) if len(found) > 1 else found[0]
    site.freeze((layer for layer in found if layer is not kept), "takes them in crossed with others")
    return site.labels.only_along(kept, dimension)
