"""One step of the trace with the labels that reach it, and what all rules share: combining, joining and refusing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    history: "History"
    used: bool = True
    """Whether what the step makes reaches the network's output."""

    def value(self, argument: Ref) -> Value:
        """The traced value behind an argument."""
        return self.trace.values[argument.index]

    def of(self, argument: Any) -> Layers:
        """The layers of an argument; none for what is no tensor or carries no labels."""
        if not isinstance(argument, Ref):
            return []
        if argument.index not in self.layers:
            value = self.value(argument)
            named = value.name is not None and (value.dtype.is_floating_point or value.dtype.is_complex)
            self.layers[argument.index] = self.labels.of_parameter(str(value.name), value.shape) if named else []
        return self.layers[argument.index]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        if len(self.step.args) > position:
            return self.step.args[position]
        return self.step.kwargs.get(name, default)

    def contents(self, argument: Ref) -> Tensor | None:
        """The elements of an integer or boolean tensor that the network's input does not change, if they are known."""
        value = self.value(argument)
        if value.from_input or self.history.is_stale(argument.index, value.storage):
            return None
        return value.data

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

    def soften(self, layers: Sequence[Tensor], because: str) -> None:
        """Mark these layers as not exact, with this place in the reason; what nobody uses harms nobody."""
        if self.used:
            self.labels.soften(layers, type(because)(f"{self.where} {because}"))

    def role(self, argument: Any, dimension: int, *, makes: bool, alone: bool = False) -> None:
        """Remember that a weight's dimension makes channels, or takes them in; `alone`: not where others vary too."""
        for layer in self.of(argument):
            if varying(layer) == (dimension,) if alone else dimension in varying(layer):
                (self.labels.produced if makes else self.labels.consumed).update(self.labels.keys_of(layer))


@dataclass
class History:
    """When each value was made, and when each memory was last written: contents kept from before are stale."""

    made: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)

    def add(self, number: int, step: Step, trace: Trace) -> None:
        """Take note of a step, by its number."""
        for output in step.outputs:
            if output is not None:
                self.made[output] = number
                if step.in_place:
                    self.written[trace.values[output].storage] = number

    def is_stale(self, value: int, storage: int) -> bool:
        """Whether the value's memory was written after it was made."""
        return self.written.get(storage, -1) > self.made.get(value, -1)


def used_steps(trace: Trace) -> list[bool]:
    """For each step whether it has a share in the network's output (or writes where something is read)."""
    wanted = {trace.values[number].storage for number in trace.outputs}
    used = []
    for step in reversed(trace.steps):
        storages = {trace.values[number].storage for number in step.outputs if number is not None}
        used.append(not storages or bool(storages & wanted))
        if used[-1]:
            wanted.update(trace.values[number].storage for number in step.inputs)
    return used[::-1]


def is_ref(leaf: Any) -> bool:
    """Whether an argument stands for a tensor."""
    return isinstance(leaf, Ref)


def refs_in(arguments: Any) -> list[Ref]:
    """All tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(arguments, is_leaf=is_ref) if isinstance(leaf, Ref)]


FIXED = "combines them with a tensor whose size is fixed"
WHOLE = "combines them with channels of which only whole parts can go"

Operand = tuple[Sequence[int], Layers]
"""A tensor's shape and layers, both with leading dimensions of length 1 up to the rank of what it is combined to."""


def meet(site: Site, arguments: Sequence[Any], shape: Sequence[int]) -> Layers:
    """Combine tensors element by element; see `combine`."""
    operands: list[Operand] = []
    for argument in arguments:
        if isinstance(argument, Ref):
            own = site.value(argument).shape
            full = [1] * (len(shape) - len(own)) + list(own)
            layers = [layer.reshape(full) if list(layer.shape) != full else layer for layer in site.of(argument)]
            operands.append((full, layers))
    return combine(site, operands, shape)


def combine(site: Site, operands: Sequence[Operand], shape: Sequence[int], *, settled: bool = False) -> Layers:
    """Labels that meet are united; what meets a tensor without labels cannot go.

    Where a layer varies along several dimensions, along some of which it meets a fixed size, whole slices along these
    can still go. Labels that cannot go are not carried on: what follows sees a tensor whose size is fixed.

    Args:
        site: the step.
        operands: what is combined.
        shape: of the outcome.
        settled: layers that share only some of their dimensions are united at once, not left open (`Labels.cross`).
    """
    combined: list[_Meeting] = []
    for number, (_, layers) in enumerate(operands):
        for layer in layers:
            if varying(layer):
                _join(site, combined, number, layer.expand(list(shape)), settled)
    kept: Layers = []
    for meeting in combined:
        dims = varying(meeting.layer)
        fixed = [
            d for d in dims
            if any(sizes[d] > 1 and d not in meeting.dims[number] for number, (sizes, _) in enumerate(operands))
        ]  # fmt: skip
        if len(fixed) == len(dims):
            site.freeze([meeting.layer], FIXED)
            site.labels.set_aside([meeting.layer])
        else:
            kept.append(site.labels.tie(meeting.layer, fixed) if fixed else meeting.layer)
    return kept


@dataclass
class _Meeting:
    """A layer of the outcome, and for each operand the dimensions along which it has labels there."""

    layer: Tensor
    dims: dict[int, set[int]]


def _join(site: Site, combined: list[_Meeting], number: int, layer: Tensor, settled: bool) -> None:
    """Let an operand's layer meet another operand's along a common dimension, or stand by itself.

    Layers of one operand that share a dimension (an outer product, flattened) do not meet each other.
    """
    own = set(varying(layer))
    meeting = next((m for m in combined if own & set(varying(m.layer)) and not own & m.dims[number]), None)
    if meeting is None:
        combined.append(_Meeting(layer, defaultdict(set, {number: own})))
        return
    meeting.dims[number] |= own
    other = meeting.layer
    if compact(other).data_ptr() == compact(layer).data_ptr() and other.stride() == layer.stride():
        return
    theirs = set(varying(other))
    if not settled and (own < theirs or theirs < own):
        large, small = (other, layer) if own < theirs else (layer, other)
        site.labels.cross(large, small, f"{site.where} {WHOLE}")
        meeting.layer = large
        return
    site.labels.unite(other, layer)
    there, given = broadcast(compact(other), compact(layer))
    if bool((there == 0).any()) or there.stride() != compact(other).stride():
        meeting.layer = torch.where(there == 0, given, there).expand(layer.shape)


WHY: Mapping[str, str] = {
    **dict.fromkeys(("nonzero", "unique", "_unique2", "unique_dim", "bincount", "histc"), "depends on what is in them"),
    **dict.fromkeys(("masked_select", "masked_scatter", "masked_scatter_"), "moves them by what the network computes"),
    **dict.fromkeys(
        ("inverse", "cholesky", "det", "logdet", "qr", "svd", "triangular_solve"), "takes them as a matrix"
    ),
    "nms": "takes them as the corners of boxes",
}
"""Why some operations have no rule."""


def refuse(site: Site, because: str | None = None) -> list[Layers]:
    """Freeze all that the step reads and writes."""
    by_default = "takes them as a matrix" if "linalg" in site.step.name else "has no rule"
    because = because or WHY.get(site.step.name, by_default)
    for ref in site.refs:
        site.freeze(site.of(ref), because)
    outputs: list[Layers] = []
    for position, number in enumerate(site.step.outputs):
        shape = site.shape(position)
        dtype = site.trace.values[number].dtype if number is not None else torch.int64
        if not shape or not (dtype.is_floating_point or dtype.is_complex):
            outputs.append([])
            continue
        layer = site.labels.fresh(1).expand(shape)
        site.freeze([layer], because)
        outputs.append([layer])
    return outputs


def columns(site: Site, argument: Any, dimension: int) -> Tensor | None:
    """The labels of an operand along one dimension, tied along the others; None where it has none."""
    chosen = choose(site, [layer for layer in site.of(argument) if dimension in varying(layer)], dimension)
    return site.labels.only_along(chosen, dimension) if chosen is not None else None


def choose(site: Site, layers: Layers, dimension: int) -> Tensor | None:
    """The layer whose labels can go, where several kinds stand along one dimension (an outer product, flattened).

    Labels of created tensors and of a kernel's width stand back; of the others, those go of which whole runs stand side
    by side (heads rather than the places in them).
    """
    if len(layers) < 2:
        return layers[0] if layers else None

    def rank(layer: Tensor) -> tuple[bool, bool, int]:
        kernel = all(key.dimension > 1 for key in site.labels.keys_of(layer))
        vector = compact(layer).movedim(dimension, 0).flatten(1)[:, 0]
        return site.labels.is_created(layer), kernel, -int((vector == vector[0]).cummin(0)[0].sum())

    kept = min(layers, key=rank)
    site.freeze((layer for layer in layers if layer is not kept), "takes them in crossed with others")
    return kept
