"""Cut a trace into units: an anchor with what it takes up before and behind it, what a runtime runs as one.

Every step belongs to exactly one unit, or is free (a view, a constant computed once). `profiler.cutting` says what goes
together; here each unit is described by what of it pruning leaves alone and by its channel counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from lut.memory import Liveness
from lut.records import Attribute, Coordinate, Unit, UnitFamily
from profiler.cutting import Cutter, Draft
from profiler.groups import Structure
from profiler.liveness import activation_bytes, border_bytes, weights_bytes
from profiler.rules import REDUCTIONS, SPATIAL
from profiler.step_kinds import CONTRACTIONS, NORMS, free_because, is_follower
from profiler.trace import Ref, Step, Trace

__all__ = ["CONTRACTIONS", "NORMS", "Cut", "cut_units", "free_because"]

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


def cut_units(structure: Structure) -> Cut:
    """Cut a traced network into its units, with the coordinates that the groups set."""
    cutter = Cutter(structure)
    cutter.run()
    number_of = {id(draft): number for number, draft in enumerate(cutter.drafts)}
    owner = {value: number_of[id(draft)] for value, draft in cutter.owner.items()}
    owner |= {value: owner[source] for value, source in cutter.source.items() if source in owner}
    names: dict[str, int] = {}
    units = tuple(_describe(cutter, draft, names) for draft in cutter.drafts)
    return Cut(units, owner, cutter.free, _liveness(cutter, number_of))


def _entering(cutter: Cutter, draft: Draft) -> list[int]:
    """The activations that the anchor and what follows it read from elsewhere."""
    own = [cutter.trace.steps[number] for number in draft.own]
    made = {output for step in own for output in step.outputs}
    return list(dict.fromkeys(value for step in own for value in cutter.data_inputs(step) if value not in made))


def _leaving(cutter: Cutter, draft: Draft) -> list[int]:
    """The activations that others read of a unit, and its last."""
    inside = set(draft.steps)
    return [
        output
        for number in draft.steps
        for output in cutter.trace.steps[number].outputs
        if output is not None and (cutter.readers[output] - inside or output == draft.tail)
    ]


def _describe(cutter: Cutter, draft: Draft, names: dict[str, int]) -> Unit:
    structure, trace = cutter.structure, cutter.trace
    steps = [trace.steps[number] for number in draft.own]
    anchor = steps[0]
    entering, leaving = _entering(cutter, draft), _leaving(cutter, draft)
    apart = draft.kind == "contraction" and not _whole_parts(structure, anchor)
    coordinates: list[Coordinate] = []
    named: dict[Coordinate, str] = {}
    first: dict[Coordinate, str] = {}

    def shape(value: int, table: dict[Coordinate, str]) -> tuple[int | str, ...]:
        sizes: list[int | str] = []
        for dimension, length in enumerate(trace.values[value].shape):
            coordinate = structure.coordinate(value, dimension)
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
    tail = trace.values[leaving[0] if leaving else draft.tail]
    family = UnitFamily(
        operation=_operation(anchor),
        precision=PRECISIONS.get(tail.dtype, str(tail.dtype).removeprefix("torch.")),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=(*_attributes(trace, anchor, structure), *_around(trace, draft)),
        followers=tuple(_plain(step) for step in steps[1:]),
    )
    base = anchor.module if anchor.name in CONTRACTIONS else f"{anchor.module}:{_plain(anchor)}"
    names[base] = names.get(base, 0) + 1
    full = {group.name: group.size for group in structure.groups}
    volume = prod(coordinate.at(full) for coordinate in coordinates)
    return Unit(
        name=base if names[base] == 1 else f"{base}#{names[base]}",
        family=family,
        coordinates=tuple(coordinates),
        modules=tuple(dict.fromkeys(trace.steps[number].module for number in draft.steps)),
        steps=tuple(draft.steps),
        macs_each=sum(_macs(trace, step) for step in steps) / volume if volume else 0.0,
    )


def _liveness(cutter: Cutter, number_of: Mapping[int, int]) -> Liveness:
    leaving = {cutter.root(index) for index in cutter.trace.outputs}
    activations = []
    for host, draft in enumerate(cutter.drafts):
        for value in _leaving(cutter, draft):
            if value not in leaving:
                readers = [number_of[id(cutter.draft_of[number])] for number in cutter.readers[value] if number >= 0]
                activations.append(activation_bytes(cutter.structure, value, host, max([host, *readers])))
    borders = border_bytes(cutter.structure, leaving)
    return Liveness(weights_bytes(cutter.structure), tuple(activations), len(cutter.drafts), borders)


def _around(trace: Trace, draft: Draft) -> tuple[Attribute, ...]:
    """What a unit takes up before its anchor, and the settings of the moves around it, where there are such."""
    before = tuple(_plain(trace.steps[number]) for number in draft.steps if number in draft.taken)
    moves = tuple(
        (_plain(step), *_settings(step))
        for number in draft.steps
        if number != draft.anchor and (step := trace.steps[number]).name in MOVES_WITH_SETTINGS
    )
    return ((("before", before),) if before else ()) + ((("moves", moves),) if moves else ())


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
        return (("arguments", _settings(step)),)
    return ()


def _settings(step: Step) -> tuple[Any, ...]:
    """A step's plain arguments."""
    plain = [_plain_value(item) for item in step.args if not isinstance(item, Ref)]
    return tuple(item for item in plain if item is not None)


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
