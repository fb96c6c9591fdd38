"""Write a module down as a program: the steps of its recorded calls, and which sizes grow with the batch.

The network is recorded at two batches. A number that is the same in both is part of the code; one that is not grows
with the batch. Where the two runs do not match, the batch stays what it was.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lut.errors import LatpruneError
from lut.program import Form, Growing, Length, Named, Operation, Program, Ref, Shape
from profiler.groups import Reading, Structure, axes_of, repeated
from profiler.proof import to_meta
from profiler.recording import record
from profiler.rewrites import INDEXED, SIZES, SPLITS
from profiler.trace import Call, Opaque, Step, Trace, Value

log = logging.getLogger(__name__)

KINDS: Mapping[type, str] = {torch.dtype: "dtype", torch.memory_format: "memory_format", torch.layout: "layout"}
"""Settings of operations that are known by name."""


ANYHOW: Mapping[str, str] = {"view": "aten.reshape.default", "_unsafe_view": "aten.reshape.default"}
"""Operations that ask for an order in memory, which devices choose each in its own way, and what stands for them."""


FROM_NOTHING = frozenset("zeros ones full empty rand randn arange linspace eye scalar_tensor".split())
"""Operations that make a tensor of nothing, in PyTorch's default type where they are not told another."""


class UnwritableError(LatpruneError):
    """A module does something that no program can repeat."""


@dataclass(frozen=True)
class _Pair:
    """The same run at two batches, or once where the batch cannot change.

    Attributes:
        reading: the first, with its labels.
        again: the second, whose batch is larger or smaller by half.
        partner: for each value of the first the second's; nothing where the batch cannot change.
        steps: for each step of the first the second's.
    """

    reading: Reading
    again: Trace | None = None
    partner: Mapping[int, int] = field(default_factory=dict)
    steps: Mapping[int, int] = field(default_factory=dict)
    direction: int = 1
    """1 where the second's batch is larger, -1 where it is smaller."""


SIZED = frozenset({*SIZES, *SPLITS, *"slice narrow select arange repeat randint native_group_norm".split()})
SIZED |= {"as_strided", "as_strided_"}
"""Operations that take numbers which may count samples. Where others differ (an order of dimensions), code differs."""

SAME_VIEW = frozenset({"view", "_unsafe_view", "reshape"})


def _numbers(step: Step) -> list[Any]:
    leaves = tree_leaves((step.args, dict(step.kwargs)), is_leaf=_is_ref)
    return [leaf for leaf in leaves if isinstance(leaf, bool | int | float)]


def _paired(reading: Reading, again: Trace, direction: int) -> _Pair | None:
    """Two runs laid side by side; copies that only one of them makes, for the order in memory, are passed over."""
    mine, other = reading.trace, again
    partner = {index: index for index, value in enumerate(mine.values) if value.name}
    partner.update(zip(mine.inputs, other.inputs, strict=True))
    steps: dict[int, int] = {}
    seen = 0
    for number, step in enumerate(mine.steps):
        while seen < len(other.steps) and other.steps[seen].name == "clone" != step.name:
            seen += 1
        ran = other.steps[seen] if seen < len(other.steps) else None
        if ran is not None and (ran.operation == step.operation or {ran.name, step.name} <= SAME_VIEW):
            if step.name not in SIZED and _numbers(step) != _numbers(ran):
                return None
            steps[number] = seen
            seen += 1
            pairs = [*zip(step.inputs, ran.inputs, strict=False), *zip(step.outputs, ran.outputs, strict=False)]
            partner.update((one, two) for one, two in pairs if one is not None and two is not None)
        elif step.name == "clone" and step.inputs[0] in partner and step.outputs[0] is not None:
            partner[step.outputs[0]] = partner[step.inputs[0]]
        else:
            return None
    return _Pair(reading, again, partner, steps, direction) if seen == len(other.steps) else None


class Author:
    """Writes modules of one network down; the further runs that this takes are made once, when they are needed."""

    def __init__(
        self, model: nn.Module, inputs: Sequence[Any], structure: Structure, dry: nn.Module | None = None
    ) -> None:
        """Get ready.

        Args:
            model: as it was analysed.
            inputs: the same.
            structure: what was read of them, with its readings on more samples.
            dry: the same network on PyTorch's meta device, if it runs there, where another batch costs little.
        """
        self.model, self.inputs, self.structure, self.dry = model, inputs, structure, dry
        self.written: dict[str, Program] = {}

    @cached_property
    def evaluation(self) -> _Pair:
        """The run in eval mode, at two batches; or at the given batch alone, where the network takes no other."""
        reading = self.structure.again
        pair = self._beside_one or (self._pair(reading, training=False) if reading else None)
        return pair if pair is not None and pair.again is not None else _Pair(self.structure.reading)

    @cached_property
    def training(self) -> _Pair | None:
        """The run in train mode, at two batches; None where the network does not train."""
        return self._pair(self.structure.training, training=True) if self.structure.training else None

    def _pair(self, reading: Reading, *, training: bool) -> _Pair:
        """A run on the inputs repeated once beside one at another batch."""
        for model, inputs, direction in self._ways():
            try:
                found = record(model, inputs, training=training)
            except LatpruneError as error:
                log.debug("the network does not run at another batch: %s", error)
                continue
            pair = _paired(reading, found, direction)
            if pair is not None:
                return pair
        log.info("the network runs otherwise at another batch, which stays fixed")
        return _Pair(reading)

    def _ways(self) -> Iterator[tuple[nn.Module, tuple[Any, ...], int]]:
        """Networks and inputs for another batch, the cheap ones first; and whether that is smaller or larger."""
        if self._beside_one is not None:
            yield self.model, tuple(self.inputs), -1
        elif self.dry is not None:
            for many in repeated(self.inputs, 3):
                with torch.device("meta"):
                    yield self.dry, to_meta(many), 1
        for many in repeated(self.inputs, 3):
            yield self.model, many, 1

    @cached_property
    def _beside_one(self) -> _Pair | None:
        """The run in eval mode on more samples beside that on those that were given, where it is the same run."""
        reading = self.structure.again
        return _paired(reading, self.structure.trace, -1) if reading is not None else None

    def program(self, module: str) -> Program:
        """The module as a program.

        Raises:
            UnwritableError: it does something that no program can repeat.
        """
        if module not in self.written:
            evaluation = self._form(self.evaluation, module)
            training: Form | None = None
            if self.training is not None:
                training = self._form(self.training, module)
                training = evaluation if _same(evaluation, training) else training
            self.written[module] = Program(module, evaluation, training)
        return self.written[module]

    def _form(self, pair: _Pair, module: str) -> Form:
        calls = [call for call in pair.reading.trace.calls if call.module == module]
        if not calls:
            raise UnwritableError(f"{module} does not run on the example inputs")
        forms = [_Writer(self.model, self.structure, pair, call).form() for call in calls]
        if any(not _same(forms[0], form) for form in forms[1:]):
            raise UnwritableError(f"{module or 'the network'} runs several times, each time otherwise")
        return forms[0]


def _same(one: Form, other: Form) -> bool:
    """Whether two forms do the same, though one may have been written down at a larger batch."""

    def plain(form: Form) -> Any:
        def each(leaf: Any) -> Any:
            if isinstance(leaf, Growing) and form.batch:
                return ("grows", Fraction(leaf.more, form.batch[2]), leaf.base - leaf.more)
            return leaf

        done = [(op.name, op.args, dict(op.kwargs), op.outputs, op.grad) for op in form.operations]
        marks = (form.args, form.kwargs, form.output, done)
        return tree_map(each, marks, is_leaf=lambda leaf: isinstance(leaf, Ref | Growing | Named))

    if one.parameters != other.parameters or one.constants.keys() != other.constants.keys():
        return False
    if any(not np.array_equal(array, other.constants[value]) for value, array in one.constants.items()):
        return False
    return bool(plain(one) == plain(other))


class _Writer:
    """Writes one call down; values are counted anew, in the order in which they appear."""

    def __init__(self, model: nn.Module, structure: Structure, pair: _Pair, call: Call) -> None:
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
