"""Write one recorded call of a module down as a form of a program, with values counted anew."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lut.errors import LatpruneError
from lut.program import Form, Growing, Length, Named, Operation, Ref, Shape
from profiler.groups import Structure, axes_of
from profiler.paired_runs import Pair
from profiler.rewrites import INDEXED
from profiler.trace import Call, Opaque, Step, Value

KINDS: Mapping[type, str] = {torch.dtype: "dtype", torch.memory_format: "memory_format", torch.layout: "layout"}
"""Settings of operations that are known by name."""

ANYHOW: Mapping[str, str] = {"view": "aten.reshape.default", "_unsafe_view": "aten.reshape.default"}
"""Operations that ask for an order in memory, which devices choose each in its own way, and what stands for them."""

FROM_NOTHING = frozenset("zeros ones full empty rand randn arange linspace eye scalar_tensor".split())
"""Operations that make a tensor of nothing, in PyTorch's default type where they are not told another."""


class UnwritableError(LatpruneError):
    """A module does something that no program can repeat."""


def write_call(model: nn.Module, structure: Structure, pair: Pair, call: Call) -> Form:
    """Write one call of a module down.

    Args:
        model: the whole network.
        structure: what was read of it.
        pair: the runs of which the first holds the call.
        call: to write down.

    Raises:
        UnwritableError: it does something that no program can repeat.
    """
    return _Writer(model, structure, pair, call).form()


class _Writer:
    """Writes one call down; values are counted anew, in the order in which they appear."""

    def __init__(self, model: nn.Module, structure: Structure, pair: Pair, call: Call) -> None:
        self.structure, self.pair, self.call = structure, pair, call
        self.trace = pair.reading.trace
        module = model.get_submodule(call.module)
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        below = {id(tensor): name for name, tensor in reversed(named)}
        whole = dict(model.named_parameters()) | dict(model.named_buffers())
        self.below = {name: below[id(tensor)] for name, tensor in whole.items() if id(tensor) in below}
        self.numbers: dict[int, int] = {}
        self.given: set[int] = set()
        self.made: set[int] = set()
        self.living: set[int] = set()
        self.parameters: dict[int, str] = {}
        self.constants: dict[int, Any] = {}
        self.network_dtype: torch.dtype | None = None

    def form(self) -> Form:
        call = self.call
        for leaf in tree_leaves((call.args, call.kwargs, call.output), is_leaf=_is_ref):
            if isinstance(leaf, Opaque):
                raise UnwritableError(f"{call.module or 'the network'} is given or gives back a {leaf.kind}")
        self.given = {leaf.index for leaf in tree_leaves((call.args, call.kwargs), is_leaf=_is_ref) if _is_ref(leaf)}
        self.living = set(self.given)
        entered = [self.trace.values[index] for index in self.given]
        self.network_dtype = next((value.dtype for value in entered if value.dtype.is_floating_point), None)
        args, kwargs = self.tree((call.args, call.kwargs), None)
        operations = tuple(self.operation(number) for number in range(call.first, call.last))
        output = self.tree(call.output, None)
        shapes = {own: self.shape(index) for index, own in self.numbers.items()}
        axes = axes_of(self.structure, self.pair.reading, self.numbers)
        return Form(args, kwargs, output, operations, self.parameters, self.constants, shapes, axes, self.batch())

    def batch(self) -> tuple[int, int, int] | None:
        """Where the batch can be read off what is given."""
        for index in sorted(self.given):
            for dimension, length in enumerate(self.shape(index)):
                if isinstance(length, Growing) and length.more == length.base and index in self.numbers:
                    return self.numbers[index], dimension, length.base
        return None

    def shape(self, index: int) -> Shape:
        own = self.trace.values[index].shape
        if self.pair.again is None or index not in self.pair.partner:
            return own
        again = self.pair.again.values[self.pair.partner[index]].shape
        return tuple(self.length(one, two) for one, two in zip(own, again, strict=True))

    def length(self, first: int, second: int) -> Length:
        """A number that stands in both runs; the second's batch is larger or smaller by half."""
        return first if first == second else Growing(first, 2 * self.pair.direction * (second - first))

    def value(self, index: int) -> Ref:
        """A value's new number; what it is where nothing in the module made it."""
        if index not in self.numbers:
            self.numbers[index] = len(self.numbers)
            if index not in self.given and index not in self.made:
                self._brought(index, self.trace.values[index])
        return Ref(self.numbers[index])

    def _brought(self, index: int, value: Value) -> None:
        if value.name is not None and value.name in self.below:
            self.parameters[self.numbers[index]] = self.below[value.name]
            self.living.add(index)
        elif value.constant is not None and not value.from_input:
            self.constants[self.numbers[index]] = value.constant.cpu().numpy()
        else:
            what = value.name or f"a tensor of shape {list(value.shape)}"
            raise UnwritableError(f"{self.call.module or 'the network'} uses {what}, which it was not given")

    def tree(self, tree: Any, again: Any) -> Any:
        """Arguments with values counted anew; `again` are the second run's."""
        first, spec = tree_flatten(tree, is_leaf=_is_ref)
        second = tree_flatten(again, is_leaf=_is_ref)[0] if again is not None else first
        if len(first) != len(second):
            raise UnwritableError("it takes other arguments at another batch")
        leaves = [self.leaf(a, b) for a, b in zip(first, second, strict=True)]
        return tree_unflatten(leaves, spec)

    def leaf(self, first: Any, second: Any) -> Any:
        if isinstance(first, Ref):
            return self.value(first.index)
        for kind, word in KINDS.items():
            if isinstance(first, kind):
                name = str(first).removeprefix("torch.")
                return Named(word, "network" if word == "dtype" and first == self.network_dtype else name)
        if isinstance(first, torch.device):
            return Named("device", "network")
        if type(first) is int and type(second) is int:
            return self.length(first, second)
        if first != second:
            raise UnwritableError(f"the number {first} in it changes with the batch")
        if first is not None and not isinstance(first, bool | int | float | str):
            raise UnwritableError(f"it takes a {type(first).__name__}")
        return first

    def operation(self, number: int) -> Operation:
        step = self.trace.steps[number]
        paired = self.pair.steps.get(number)
        again = self.pair.again.steps[paired] if self.pair.again and paired is not None else None
        if step.name == "_local_scalar_dense" and set(step.inputs) & self.living:
            raise UnwritableError(f"{self.call.module or 'the network'} goes by a number that it computes")
        arguments = (step.args, dict(step.kwargs))
        args, kwargs = self.tree(arguments, (again.args, dict(again.kwargs)) if again else None)
        made_dtype = self.trace.values[step.outputs[0]].dtype if step.outputs and step.outputs[0] is not None else None
        if step.name in FROM_NOTHING and made_dtype == self.network_dtype and kwargs.get("dtype") is None:
            kwargs["dtype"] = Named("dtype", "network")
        if step.name in INDEXED:
            self._keep_indices(step)
        made = [index for index in step.outputs if index is not None]
        self.made.update(made)
        if set(step.inputs) & self.living:
            self.living.update(made)
        outputs = tuple(None if index is None else self.value(index).index for index in step.outputs)
        name = ANYHOW.get(step.name, str(step.operation))
        return Operation(name, tuple(args), kwargs, outputs, step.grad)

    def _keep_indices(self, step: Step) -> None:
        """Let the elements of indices that the module computes from nothing stand beside them."""
        for leaf in tree_leaves(step.args[1:], is_leaf=_is_ref):
            if isinstance(leaf, Ref):
                value = self.trace.values[leaf.index]
                if value.data is not None and not value.from_input and value.dtype != torch.bool:
                    self.constants.setdefault(self.numbers[leaf.index], value.data.cpu().numpy())


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, Ref)
