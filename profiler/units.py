"""Cut a trace into units: an anchor with the element-wise followers it absorbs, what a runtime runs as one.

Every step belongs to exactly one unit, or is free (a view, a constant computed once). A follower joins the unit that
made its input if nobody else reads that input and the shape stays.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from lut.memory import Liveness
from lut.records import Attribute, Coordinate, Unit, UnitFamily
from profiler.groups import Structure
from profiler.liveness import activation_bytes, border_bytes, weights_bytes
from profiler.rules import REDUCTIONS, SPATIAL, is_elementwise
from profiler.trace import Ref, Step, Trace

CONTRACTIONS = {"convolution": "convolution", "mm": "linear", "addmm": "linear", "bmm": "matmul", "baddbmm": "matmul"}
VIEWS = frozenset(
    "view _unsafe_view reshape unsqueeze squeeze expand detach alias clone contiguous lift_fresh as_strided "
    "as_strided_ flatten unsqueeze_ squeeze_ detach_ _to_copy".split()
)
NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "_batch_norm_no_update".split()
)
MOVES_WITH_SETTINGS = frozenset("cat stack _softmax flip roll permute transpose".split())
PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


@dataclass(frozen=True)
class Cut:
    """A trace cut into units.

    Attributes:
        units: in the order in which their anchors run.
        owner: for each value that a unit makes (views of it too) the unit's index.
        free: for each step that belongs to no unit, why.
        liveness: the tensors that units pass on.
    """

    units: tuple[Unit, ...]
    owner: Mapping[int, int]
    free: Mapping[int, str]
    liveness: Liveness


@dataclass
class _Draft:
    """A unit while it grows: its steps, and the value at its end."""

    steps: list[int] = field(default_factory=list)
    tail: int = -1


def free_because(trace: Trace, step: Step) -> str | None:
    """Why a step costs nothing at run time, or None."""
    values = trace.values
    if not any(values[index].from_input for index in step.inputs):
        return "computed once from constants"
    if step.name in VIEWS:
        return "a view"
    if all(index is None for index in step.outputs):
        return "makes no tensor"
    return None


def is_follower(step: Step) -> bool:
    """Whether a step can be absorbed by the unit before it."""
    return step.name in NORMS or is_elementwise(step)


class _Cutter:
    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.trace = structure.trace
        self.source: dict[int, int] = {}
        self.free: dict[int, str] = {}
        self.readers: dict[int, set[int]] = defaultdict(set)
        self.drafts: list[_Draft] = []
        self.owner: dict[int, int] = {}
        for number, step in enumerate(self.trace.steps):
            why = free_because(self.trace, step)
            if why:
                self.free[number] = why
                inputs = [index for index in step.inputs if self.trace.values[index].from_input]
                if inputs:
                    for output in step.outputs:
                        if output is not None:
                            self.source[output] = self.root(inputs[0])
                continue
            for index in step.inputs:
                self.readers[self.root(index)].add(number)
        for index in self.trace.outputs:
            self.readers[self.root(index)].add(-1)

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.source.get(value, value)

    def data_inputs(self, step: Step) -> list[int]:
        """The activations that a step reads, as roots, each once."""
        return list(dict.fromkeys(self.root(i) for i in step.inputs if self.trace.values[i].from_input))

    def cut(self) -> Cut:
        for number, step in enumerate(self.trace.steps):
            if number in self.free:
                continue
            host = self._host(step) if is_follower(step) else None
            if host is None:
                host = len(self.drafts)
                self.drafts.append(_Draft())
            draft = self.drafts[host]
            draft.steps.append(number)
            for output in step.outputs:
                if output is not None:
                    self.owner[output] = host
            if step.outputs and step.outputs[0] is not None:
                draft.tail = step.outputs[0]
        for value, source in self.source.items():
            if source in self.owner:
                self.owner[value] = self.owner[source]
        names: dict[str, int] = {}
        units = tuple(self._unit(draft, names) for draft in self.drafts)
        return Cut(units, self.owner, self.free, self._liveness())

    def _host(self, step: Step) -> int | None:
        """The unit that a follower joins: the latest whose tail only this step reads, of the same shape."""
        output = step.outputs[0]
        candidates = []
        for value in self.data_inputs(step):
            host = self.owner.get(value)
            if host is None or self.drafts[host].tail != value or len(self.readers[value]) != 1 or output is None:
                continue
            if self.trace.values[value].shape == self.trace.values[output].shape:
                candidates.append(host)
        return max(candidates, default=None)

    def borders(self, draft: _Draft) -> tuple[list[int], list[int]]:
        """The activations that enter a unit, and those that leave it."""
        made = {output for number in draft.steps for output in self.trace.steps[number].outputs if output is not None}
        entering = [v for number in draft.steps for v in self.data_inputs(self.trace.steps[number]) if v not in made]
        inside = set(draft.steps)
        leaving = [
            output
            for number in draft.steps
            for output in self.trace.steps[number].outputs
            if output is not None and (self.readers[output] - inside or output == draft.tail)
        ]
        return list(dict.fromkeys(entering)), list(dict.fromkeys(leaving))

    def _unit(self, draft: _Draft, names: dict[str, int]) -> Unit:
        steps = [self.trace.steps[number] for number in draft.steps]
        anchor = steps[0]
        entering, leaving = self.borders(draft)
        apart = anchor.name in CONTRACTIONS and not _whole_parts(self.structure, anchor)
        coordinates: list[Coordinate] = []
        named: dict[Coordinate, str] = {}
        first: dict[Coordinate, str] = {}

        def shape(value: int, table: dict[Coordinate, str]) -> tuple[int | str, ...]:
            sizes: list[int | str] = []
            for dimension, length in enumerate(self.trace.values[value].shape):
                coordinate = self.structure.coordinate(value, dimension)
                if not coordinate.terms:
                    sizes.append(length)
                    continue
                if coordinate not in table:
                    table[coordinate] = f"c{len(coordinates)}"
                    coordinates.append(coordinate)
                sizes.append(table[coordinate])
            return tuple(sizes)

        inputs = [shape(value, first if apart and position == 0 else named) for position, value in enumerate(entering)]
        outputs = [shape(value, named) for value in leaving]
        tail = self.trace.values[leaving[0] if leaving else draft.tail]
        operation = _operation(anchor)
        family = UnitFamily(
            operation=operation,
            precision=PRECISIONS.get(tail.dtype, str(tail.dtype).removeprefix("torch.")),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            attributes=_attributes(self.trace, anchor, self.structure),
            followers=tuple(_plain(step) for step in steps[1:]),
        )
        base = anchor.module if anchor.name in CONTRACTIONS else f"{anchor.module}:{_plain(anchor)}"
        names[base] = names.get(base, 0) + 1
        full = {group.name: group.size for group in self.structure.groups}
        volume = prod(coordinate.at(full) for coordinate in coordinates)
        return Unit(
            name=base if names[base] == 1 else f"{base}#{names[base]}",
            family=family,
            coordinates=tuple(coordinates),
            modules=tuple(dict.fromkeys(step.module for step in steps)),
            steps=tuple(draft.steps),
            macs_each=_macs(self.trace, anchor) / volume if volume else 0.0,
        )

    def _liveness(self) -> Liveness:
        leaving = {self.root(index) for index in self.trace.outputs}
        unit_of = {number: host for host, draft in enumerate(self.drafts) for number in draft.steps}
        activations = []
        for host, draft in enumerate(self.drafts):
            for value in self.borders(draft)[1]:
                if value not in leaving:
                    readers = [unit_of[number] for number in self.readers[value] if number in unit_of]
                    activations.append(activation_bytes(self.structure, value, host, max([host, *readers])))
        borders = border_bytes(self.structure, leaving)
        return Liveness(weights_bytes(self.structure), tuple(activations), len(self.drafts), borders)


def _whole_parts(structure: Structure, step: Step) -> bool:
    """Whether the contraction is a group convolution of which whole parts go (depthwise among them)."""
    grouped = step.name == "convolution" and int(step.args[8]) > 1
    return grouped and "part" in dict(_convolution(structure.trace, step, structure))


def _operation(step: Step) -> str:
    if step.name in CONTRACTIONS:
        return CONTRACTIONS[step.name]
    return "elementwise" if is_follower(step) else _plain(step)


def _plain(step: Step) -> str:
    """The operation's name as the field says it."""
    return "batch_norm" if step.name in NORMS else step.name.strip("_").removeprefix("native_")


def _convolution(trace: Trace, step: Step, structure: Structure) -> list[Attribute]:
    weight: Ref = step.args[1]
    shape = trace.values[weight.index].shape
    groups, transposed = int(step.args[8]), bool(step.args[6])
    found: list[Attribute] = [
        ("dilation", tuple(step.args[5])),
        ("kernel", tuple(shape[2:])),
        ("padding", tuple(step.args[4])),
        ("stride", tuple(step.args[3])),
    ]
    if transposed:
        found.append(("transposed", True))
    if groups > 1:
        inner = shape[0] // groups if transposed else shape[1]
        whole = structure.coordinate(step.inputs[0], 1).terms and (inner == 1 or groups >= inner)
        found.append(("part", inner) if whole or inner == 1 else ("groups", groups))
    return found


def _attributes(trace: Trace, step: Step, structure: Structure) -> tuple[Attribute, ...]:
    if step.name == "convolution":
        return tuple(sorted(_convolution(trace, step, structure)))
    if step.name in SPATIAL | REDUCTIONS | MOVES_WITH_SETTINGS:
        plain = [_plain_value(item) for item in step.args if not isinstance(item, Ref)]
        return (("arguments", tuple(item for item in plain if item is not None)),)
    return ()


def _plain_value(item: Any) -> Any:
    if isinstance(item, bool | int | float | str):
        return item
    if isinstance(item, list | tuple) and all(isinstance(part, bool | int | float) for part in item):
        return tuple(item)
    return None


def _macs(trace: Trace, step: Step) -> float:
    """Multiply-adds of an anchor at full widths."""
    if step.name not in CONTRACTIONS:
        return 0.0
    values = trace.values
    output = next(index for index in step.outputs if index is not None)
    size = prod(values[output].shape)
    if step.name == "convolution":
        weight = values[step.args[1].index].shape
        if step.args[6]:
            return float(prod(values[step.args[0].index].shape) * prod(weight[1:]))
        return float(size * prod(weight[1:]))
    right = step.args[2 if step.name in {"addmm", "baddbmm"} else 1]
    return float(size * values[right.index].shape[-2])


def cut_units(structure: Structure) -> Cut:
    """Cut a traced network into its units, with the coordinates that the groups set."""
    return _Cutter(structure).cut()
