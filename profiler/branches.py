"""A residual block as a record, and what becomes of a program once blocks are gone from it, or are masked in it.

    y = x + F(x)     becomes     y = x      (gone),     y = x + 0      (masked)

What only served the branch goes with it. Values of a program keep their numbers, so that blocks can go one after
another, before or after channels do.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from torch.utils._pytree import tree_leaves

from lut.program import Form, Operation, Program, Ref
from lut.records import Unit
from profiler.liveness import name_value
from profiler.program_module import operator


@dataclass(frozen=True)
class Place:
    """Where a block stands in one form of a program.

    Attributes:
        added: the value that the addition makes.
        kept: which of the addition's two arguments stays, 0 or 1.
        idle: values whose operations do nothing once the block is gone (a ReLU of what a ReLU made).
    """

    added: int
    kept: int
    idle: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Written:
    """A module around a block as a program, with the block in it.

    Attributes:
        program: with the block.
        evaluation, training: where the block stands in either form; None where the module does not train.
        dropped: the block's parameters and buffers, named as the program names them.
    """

    program: Program
    evaluation: Place
    training: Place | None
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Block:
    """A residual block that can go wholly: `kept + branch`, of which `kept` stays.

    Attributes:
        name: unique; of the smallest module that holds the addition and the whole branch, with a count where there are
            several.
        module: that module.
        step: the addition's index in the trace.
        kept, branch: indices of the addition's operands among the trace's values.
        steps: the steps that only serve the branch, ascending.
        idle: steps behind the addition that do nothing without the block (a ReLU of what a ReLU made); they go too.
        units: names of the units that are gone then: those anchored in the branch, at the addition or at an idle step.
        left: what stays of these (a GELU behind the addition), as small units of their own.
        changed: what becomes of other units that it goes from (its first norm belongs to the layer before).
        groups: names of the prunable groups that stand in the branch alone.
        parameters: names of the parameters and buffers that go.
        values: the trace's values that its steps make (the sum stays: what the addition keeps then lives as long).
        within: names of the blocks whose branch holds this one, which therefore goes with any of them.
        samples: the dimension of the branch that counts samples.
        adder: the innermost module that was running at the addition.
        additions: how often `adder` adds two tensors of one shape in the call of `module`, and which of these it is.
        written: modules around the block as programs, by name, the smallest first.
        frozen_because: why it cannot go, or None.
    """

    name: str
    module: str
    step: int
    kept: int
    branch: int
    steps: tuple[int, ...]
    idle: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    left: tuple[Unit, ...] = ()
    changed: tuple[Unit, ...] = ()
    groups: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    within: tuple[str, ...] = ()
    samples: int = 0
    adder: str = ""
    additions: tuple[int, int] = (1, 0)
    written: Mapping[str, Written] = field(default_factory=dict, compare=False, repr=False)
    frozen_because: str | None = None

    @property
    def home(self) -> Written:
        """The smallest module around the block that is written down."""
        return next(iter(self.written.values()))

    @property
    def owns(self) -> tuple[str, ...]:
        """Names of the units, parameters and tensors in memory that go with it."""
        return (*self.units, *self.parameters, *map(name_value, self.values))


@cache
def _declared(name: str) -> tuple[tuple[tuple[int, str, bool], ...], bool]:
    """The arguments that an operation hands on or writes (place, name, if written), and whether it hands any on."""
    schema = operator(name)._schema
    concerned = tuple(
        (place, argument.name, bool(argument.alias_info.is_write))
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None
    )
    return concerned, any(result.alias_info is not None for result in schema.returns)


@dataclass(frozen=True)
class Effect:
    """What one operation does to values: those that it reads, makes, writes into, and those that share memory then."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    writes: tuple[int, ...]
    shares: tuple[int, ...]

    @staticmethod
    def of(operation: Operation) -> "Effect":
        """Read an operation's effect off its declaration."""
        leaves = tree_leaves((operation.args, dict(operation.kwargs)), is_leaf=_is_ref)
        makes = tuple(value for value in operation.outputs if value is not None)
        shares, writes = list(makes), []
        for place, name, written in _declared(operation.name)[0]:
            given = operation.args[place] if place < len(operation.args) else operation.kwargs.get(name)
            values = [leaf.index for leaf in tree_leaves(given, is_leaf=_is_ref) if isinstance(leaf, Ref)]
            shares += values
            writes += values if written else []
        reads = tuple(leaf.index for leaf in leaves if isinstance(leaf, Ref))
        return Effect(reads, makes, tuple(writes), tuple(shares) if _declared(operation.name)[1] else ())


def needed(effects: Sequence[Effect], outputs: Iterable[int], lasting: Iterable[int]) -> set[int]:
    """Numbers of the operations that something hangs on.

    Args:
        effects: of the operations, in order.
        outputs: the values that are wanted.
        lasting: values that live on, so that what is written into them counts.
    """
    parents: dict[int, int] = {}

    def memory(value: int) -> int:
        while parents.get(value, value) != value:
            value = parents[value]
        return value

    for effect in effects:
        for value in effect.shares[1:]:
            parents[memory(value)] = memory(effect.shares[0])
    live = set(outputs)
    seen = {memory(value) for value in [*live, *lasting]}
    found: set[int] = set()
    for number in reversed(range(len(effects))):
        effect = effects[number]
        if not live.isdisjoint(effect.makes) or any(memory(value) in seen for value in effect.writes):
            found.add(number)
            live.update(effect.reads)
            seen.update(memory(value) for value in effect.reads)
    return found


def without(program: Program, blocks: Iterable[Written]) -> Program:
    """The program without blocks; it must be their own, perhaps at other widths or without others of its blocks."""
    return _changed(program, list(blocks), _gone)


def masked(program: Program, blocks: Iterable[Written]) -> Program:
    """The program with all it had, in which the blocks' branches add zeros."""
    return _changed(program, list(blocks), _zeroed)


def _changed(
    program: Program, blocks: Sequence[Written], change: Callable[[Form, Sequence[Place], Collection[str]], Form]
) -> Program:
    dropped = frozenset(name for block in blocks for name in block.dropped)
    evaluation = change(program.evaluation, [block.evaluation for block in blocks], dropped)
    if program.training is None:
        return replace(program, evaluation=evaluation)
    places = [block.training for block in blocks if block.training is not None]
    same = program.training is program.evaluation and places == [block.evaluation for block in blocks]
    return replace(
        program, evaluation=evaluation, training=evaluation if same else change(program.training, places, dropped)
    )


def passed_on(operation: Operation, argument: int = 0) -> Operation:
    """What stands for an operation that does nothing to one of its arguments.

    Where it made a tensor of its own there is a copy still, so that what is written into that later harms nobody.
    """
    name = "aten.alias.default" if argument == 0 and operation.kind.endswith("_") else "aten.clone.default"
    return Operation(name, (operation.args[argument],), {}, operation.outputs, operation.grad)


def _gone(form: Form, places: Sequence[Place], dropped: Collection[str]) -> Form:
    """The form without the blocks at these places, and without parameters of these names."""
    kept = {place.added: place.kept for place in places}
    idle = {value for place in places for value in place.idle}
    operations = []
    for operation in form.operations:
        made = operation.outputs[0] if operation.outputs else None
        if made in kept:
            operations.append(passed_on(operation, kept[made]))
        else:
            operations.append(passed_on(operation) if made in idle else operation)
    given = _values((form.args, form.kwargs))
    lasting = [*given, *(value for value, name in form.parameters.items() if name not in dropped)]
    effects = [Effect.of(operation) for operation in operations]
    used = needed(effects, _values(form.output), lasting)
    there = {*given, *form.parameters, *form.constants}
    there.update(value for number in used for value in effects[number].makes)
    for number, effect in enumerate(effects):  # checks, which make nothing
        if not effect.makes and not effect.writes and there.issuperset(effect.reads):
            used.add(number)
    read = {value for number in used for value in (*effects[number].reads, *effects[number].makes)}
    read.update([*given, *_values(form.output)])
    return replace(
        form,
        operations=tuple(operations[number] for number in sorted(used)),
        parameters={value: name for value, name in form.parameters.items() if value in read},
        constants={value: array for value, array in form.constants.items() if value in read},
        shapes={value: shape for value, shape in form.shapes.items() if value in read},
        axes={value: axes for value, axes in form.axes.items() if value in read},
    )


def _zeroed(form: Form, places: Sequence[Place], _dropped: Collection[str]) -> Form:
    """The form with zeros in the place of the branches at these places."""
    kept = {place.added: place.kept for place in places}
    fresh = max([*form.shapes, *form.constants], default=-1) + 1
    operations, shapes, axes = [], dict(form.shapes), dict(form.axes)
    for operation in form.operations:
        made = operation.outputs[0] if operation.outputs else None
        if made in kept:
            branch = 1 - kept[made]
            source = operation.args[branch]
            args = (*operation.args[:branch], Ref(fresh), *operation.args[branch + 1 :])
            operations.append(Operation("aten.zeros_like.default", (source,), {}, (fresh,), operation.grad))
            shapes[fresh] = shapes[source.index]
            if source.index in axes:
                axes[fresh] = axes[source.index]
            fresh += 1
            operation = replace(operation, args=args)
        operations.append(operation)
    return replace(form, operations=tuple(operations), shapes=shapes, axes=axes)


def _values(tree: Any) -> list[int]:
    return [leaf.index for leaf in tree_leaves(tree, is_leaf=_is_ref) if isinstance(leaf, Ref)]


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, Ref)
