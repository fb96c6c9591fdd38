"""Which modules hold numbers that do not follow when channels go: a shrunk run laid beside what it should have been.

Both runs do the same operations in the same order. The first operation whose own arguments are not what the removal
makes of them, though it is given what it should be, tells the module whose code is to blame.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lut.program import Form, Operation, Ref, Shape
from profiler.groups import Structure, axes_of
from profiler.narrowing import narrow_operations
from profiler.rewrites import INDEXED, SIZES, SPLITS
from profiler.trace import Step, Trace

RESTRIDED = frozenset({"as_strided", "as_strided_"})
"""Where these keep the shape, they change the order in memory only."""


def is_below(modules: Iterable[str], programs: Collection[str]) -> bool:
    """Whether one of the modules is run as a program."""
    return any(module in programs for module in modules)


def alike(model: nn.Module, module: str) -> list[str]:
    """The modules of the same class, the module itself among them.

    Of PyTorch's own classes, which stand for anything, only those whose names differ in numbers.
    """
    names = dict(model.named_modules())
    kind, pattern = type(names[module]), re.sub(r"\d+", "#", module)
    anywhere = not kind.__module__.startswith("torch.nn.")
    return [
        name
        for name, other in names.items()
        if type(other) is kind and (anywhere or re.sub(r"\d+", "#", name) == pattern)
    ]


class Expectation:
    """What a network's run should be once channels are gone."""

    def __init__(self, structure: Structure) -> None:
        self.trace = structure.trace
        numbers = {index: index for index in range(len(self.trace.values))}
        operations = tuple(
            Operation(str(step.operation), step.args, dict(step.kwargs), step.outputs) for step in self.trace.steps
        )
        self.form = Form(
            (), {}, (), operations, {},
            {index: value.data.cpu().numpy() for index, value in enumerate(self.trace.values)
             if value.data is not None and not value.from_input and value.dtype != torch.bool},
            {index: value.shape for index, value in enumerate(self.trace.values)},
            axes_of(structure, structure.reading, numbers),
        )  # fmt: skip

    def culprits(self, actual: Trace, remove: Mapping[str, Collection[int]], programs: Collection[str]) -> set[str]:
        """The modules whose code is to blame for what differs.

        Args:
            actual: the shrunk network's run, perhaps only until it failed.
            remove: what is gone.
            programs: modules that are run as programs, into which nobody looks.
        """
        operations, shapes, constants = narrow_operations(self.form, remove)
        comparison = _Comparison(self.trace, actual, shapes, constants, programs)
        found: set[str] = set()
        mine = [number for number, step in enumerate(self.trace.steps) if not is_below(step.modules, programs)]
        other = [number for number, step in enumerate(actual.steps) if not is_below(step.modules, programs)]
        for number, seen in zip(mine, other, strict=False):
            step, ran = self.trace.steps[number], actual.steps[seen]
            if step.operation != ran.operation:
                return found | {step.module}
            if not comparison.agrees(operations[number], step, ran):
                found.add(step.module)
            comparison.pair(step.outputs, ran.outputs)
        return found or ({actual.running} if actual.running is not None else set())


class _Comparison:
    """Which value of one run is which of the other, and whether two steps do the same."""

    def __init__(
        self,
        trace: Trace,
        actual: Trace,
        shapes: Mapping[int, Shape],
        constants: Mapping[int, Any],
        programs: Collection[str],
    ) -> None:
        self.trace, self.actual, self.shapes, self.constants = trace, actual, shapes, constants
        self.read = {index for step in trace.steps for index in step.inputs} | set(trace.outputs)
        self.partner: dict[int, int] = {}
        named = {value.name: index for index, value in enumerate(trace.values) if value.name}
        self.pair([named.get(value.name) if value.name else None for value in actual.values], range(len(actual.values)))
        self.pair(trace.inputs, actual.inputs)
        for program in programs:
            mine, other = (
                [leaf.index for call in run.calls if call.module == program for leaf in tree_leaves(
                    call.output, is_leaf=_is_ref) if isinstance(leaf, Ref)]
                for run in (trace, actual)
            )  # fmt: skip
            self.pair(mine, other)

    def pair(self, mine: Iterable[int | None], other: Iterable[int | None]) -> None:
        """Values at the same place are the same."""
        for one, two in zip(mine, other, strict=False):
            if one is not None and two is not None:
                self.partner.setdefault(two, one)

    def agrees(self, expected: Operation, step: Step, ran: Step) -> bool:
        """Whether a step did what it should; also where it was not given what it should be."""
        for index in ran.inputs:
            if index in self.partner and not self._fits(self.partner[index], index):
                return True
        if not all(
            self._fits(mine, own)
            for mine, own in zip(step.outputs, ran.outputs, strict=True)
            if mine in self.read and mine is not None and own is not None
        ):
            return False
        if not all(map(self._same_constant, step.inputs, ran.inputs)):
            return False
        if step.name in SIZES or step.name in SPLITS or step.name in RESTRIDED:
            return True
        if step.name == "slice":
            return self._same_slice(expected, ran)
        if step.name in INDEXED:
            return self._same_indices(expected, ran)
        return _plain(expected.args, expected.kwargs) == _plain(ran.args, ran.kwargs)

    def _same_constant(self, mine: int, own: int) -> bool:
        """Whether a tensor that the code made of a number is the same (`torch.tensor(x.shape[1])` is not)."""
        one, other = self.trace.values[mine].constant, self.actual.values[own].constant
        return one is None or other is None or torch.equal(one, other)

    def _fits(self, mine: int, own: int) -> bool:
        return tuple(self.shapes[mine]) == self.actual.values[own].shape

    def _same_slice(self, expected: Operation, ran: Step) -> bool:
        """Whether the same positions are taken, however they are named."""
        source = self.actual.values[ran.args[0].index].shape
        dimension = int(ran.args[1]) % len(source) if len(ran.args) > 1 else 0
        taken = np.arange(source[dimension])[slice(*(*ran.args[2:5], None, None, None)[:3])]
        if expected.kind == "index_select":
            wanted = self.constants[expected.args[2].index]
        else:
            wanted = np.arange(source[dimension])[slice(*(*expected.args[2:5], None, None, None)[:3])]
        return np.array_equal(taken, wanted)

    def _same_indices(self, expected: Operation, ran: Step) -> bool:
        wanted, found = (
            [leaf.index for leaf in tree_leaves(args[1:], is_leaf=_is_ref) if isinstance(leaf, Ref)]
            for args in (expected.args, ran.args)
        )
        for mine, own in zip(wanted, found, strict=True):
            known, seen = self.constants.get(mine), self.actual.values[own].data
            if known is not None and seen is not None and not np.array_equal(known, seen.cpu().numpy()):
                return False
        return True


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, Ref)


def _plain(args: Any, kwargs: Any) -> list[Any]:
    """The numbers among arguments, in order."""
    leaves = tree_leaves((args, dict(kwargs)), is_leaf=_is_ref)
    return [leaf for leaf in leaves if isinstance(leaf, bool | int | float)]
