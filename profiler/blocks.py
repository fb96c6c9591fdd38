"""Find the residual blocks of a network that can go wholly, with the programs that a network without them needs.

Found in the trace (`residual`), written down as programs like code that does not follow its channels (`programs`), and
tried on an awake copy before any is offered: a network without a block computes what it does with the branch at zero.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from lut.program import Form, Program, Ref
from lut.records import Unit
from profiler.block_trial import proved
from profiler.branches import Block, Place, Written
from profiler.collecting import without_collecting
from profiler.groups import Structure, read_structure
from profiler.network import Network
from profiler.program_writer import UnwritableError
from profiler.programs import Author
from profiler.residual import Residual, find_residuals, readers_of
from profiler.trace import Step, Trace
from profiler.units import cut_units

__all__ = ["Block", "examine_blocks", "find_blocks", "without_blocks"]


def find_blocks(network: Network) -> tuple[Block, ...]:
    """The residual blocks that can go, in the order of their additions; blocks may lie in others' branches (`within`).

    A block is not offered where a value inside its branch is used elsewhere, where it shares a parameter with a layer
    outside (which would have to stay), where its module runs several times (one run alone cannot go), or where the
    module around it cannot be written down as a program. `examine_blocks` tells why.
    """
    return tuple(block for block in examine_blocks(network) if not block.frozen_because)


def examine_blocks(network: Network) -> tuple[Block, ...]:
    """All residual blocks; those that cannot go say why."""
    residuals = find_residuals(network.trace)
    if not residuals:
        return ()
    with without_collecting():
        blocks = _Finder(network, residuals).blocks()
        return proved(network, blocks)


class _Finder:
    def __init__(self, network: Network, residuals: Sequence[Residual]) -> None:
        self.network, self.trace, self.residuals = network, network.trace, residuals
        self.names = _names(residuals, self.trace)
        self.read_by: dict[int, Mapping[str, set[int]]] = {}
        self.parameters = {value.name: value.trainable for value in self.trace.values if value.name is not None}

    @cached_property
    def structure(self) -> Structure:
        """What was read of the network, with runs on more samples.

        Raises:
            UnwritableError: on these, other channels hang together.
        """
        known = self.network.structure
        if known.again is not None:
            return known
        again = read_structure(self.network.model, self.network.inputs, known=known)
        if [group.name for group in again.groups] != [group.name for group in known.groups]:
            raise UnwritableError("other channels of the network hang together in training or at another batch")
        return replace(again, groups=known.groups)

    @cached_property
    def author(self) -> Author:
        """Writes modules down."""
        return Author(self.network.model, self.network.inputs, self.structure)

    @cached_property
    def evaluation(self) -> tuple[Trace, Mapping[Any, Residual]]:
        """The run that forms for eval mode are written from, and its residual additions."""
        trace = self.author.evaluation.reading.trace
        return trace, {residual.key: residual for residual in find_residuals(trace)}

    @cached_property
    def more(self) -> tuple[Trace, Mapping[Any, Residual]] | None:
        """The same on more samples; None where the network does not run on them."""
        if self.structure.again is None or self.structure.again.trace is self.evaluation[0]:
            return self.evaluation if self.structure.again is not None else None
        trace = self.structure.again.trace
        return trace, {residual.key: residual for residual in find_residuals(trace)}

    @cached_property
    def training(self) -> tuple[Trace, Mapping[Any, Residual]] | None:
        """The same in train mode; None where the network does not train."""
        if self.author.training is None:
            return None
        trace = self.author.training.reading.trace
        return trace, {residual.key: residual for residual in find_residuals(trace)}

    def blocks(self) -> list[Block]:
        """All blocks, with programs where they can go."""
        drafts: dict[Residual, Block] = {}
        homes: dict[str, str] = {}
        for residual, name in zip(self.residuals, self.names, strict=True):
            block = self._draft(residual, name)
            if not block.frozen_because:
                try:
                    block = replace(block, parameters=self._parameters(residual))
                    homes[name] = self._home(residual)
                except UnwritableError as error:
                    block = replace(block, frozen_because=str(error))
            drafts[residual] = block
        around = {*homes.values(), *(p.module for group in self.network.groups for p in group.programs)}
        return [self._finished(residual, block, homes.get(block.name), around) for residual, block in drafts.items()]

    def _draft(self, residual: Residual, name: str) -> Block:
        """What the trace alone tells."""
        gone = {*residual.gone, residual.step, *residual.idle}
        outer = [other for one, other in zip(self.residuals, self.names, strict=True) if residual.step in one.gone]
        return Block(
            name=name,
            module=residual.call.module,
            step=residual.step,
            kept=residual.kept,
            branch=residual.branch,
            steps=residual.gone,
            idle=residual.idle,
            units=tuple(unit.name for unit in self.network.units if unit.steps[0] in gone),
            values=tuple(v for number in residual.gone for v in self.trace.steps[number].outputs if v is not None),
            within=tuple(outer),
            adder=residual.adder,
            additions=residual.additions,
            frozen_because=residual.refused_because,
        )

    def _parameters(self, residual: Residual) -> tuple[str, ...]:
        """The parameters and buffers that go with a branch.

        Raises:
            UnwritableError: one of them is used elsewhere.
        """
        runs = [(self.trace, residual), self._in(self.evaluation, residual)]
        if self.training is not None:
            runs.append(self._in(self.training, residual))
        found: set[str] = set()
        still: set[str] = set()
        for trace, own in runs:
            readers = self._readers(trace)
            found |= {name for name, steps in readers.items() if steps & set(own.gone)}
            outside = {name for name, steps in readers.items() if steps - set(own.gone)}
            still |= {name for name, steps in readers.items() if steps - own.dead}
            shared = sorted(name for name in found & outside if self.parameters.get(name))
            if shared:
                raise UnwritableError(f"it shares {shared[0]} with other layers")
            found -= outside
        owners = {name.rpartition(".")[0] for name in found}
        idle = {
            name
            for name, trainable in self.parameters.items()
            if not trainable and name not in still and name.rpartition(".")[0] in owners
        }
        used = {name.rpartition(".")[0] for name in still}
        return tuple(
            name for name in self.parameters if name in found or (name in idle and name.rpartition(".")[0] not in used)
        )

    def _readers(self, trace: Trace) -> Mapping[str, set[int]]:
        if id(trace) not in self.read_by:
            self.read_by[id(trace)] = readers_of(trace)
        return self.read_by[id(trace)]

    def _in(self, run: tuple[Trace, Mapping[Any, Residual]], residual: Residual) -> tuple[Trace, Residual]:
        """The same residual addition in another run.

        Raises:
            UnwritableError: it is none there.
        """
        trace, found = run
        other = found.get(residual.key)
        if other is None or other.additions[0] != residual.additions[0]:
            raise UnwritableError("in training, or at another batch, its addition is no residual one")
        if other.refused_because:
            raise UnwritableError(f"in training, or at another batch, {other.refused_because}")
        return trace, other

    def _home(self, residual: Residual) -> str:
        """The smallest module around a block that can be written down.

        Raises:
            UnwritableError: there is none.
        """
        module, reason = residual.call.module, None
        while True:
            try:
                self._place(module, residual)
            except UnwritableError as error:
                reason = reason or error
                if not module:
                    raise UnwritableError(f"it would have to be a program, and {reason}") from error
                module = module.rpartition(".")[0]
            else:
                return module

    def _place(self, module: str, residual: Residual) -> tuple[Program, Place, Place | None]:
        """A module as a program, and where the block stands in either form.

        Raises:
            UnwritableError: it cannot be written down.
        """
        program = self.author.program(module)
        evaluation = _place_in(program.evaluation, module, *self._in(self.evaluation, residual))
        if program.training is None or self.training is None:
            return program, evaluation, None
        if program.training is program.evaluation:
            return program, evaluation, evaluation
        return program, evaluation, _place_in(program.training, module, *self._in(self.training, residual))

    def _finished(self, residual: Residual, block: Block, home: str | None, around: Collection[str]) -> Block:
        """The block with its programs, and what hangs on its parameters."""
        if home is None:
            return block
        parts = home.split(".") if home else []
        above = [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        tensors = {**dict(self.network.model.named_parameters()), **dict(self.network.model.named_buffers())}
        going = {id(tensors[name]) for name in block.parameters}
        written = {}
        for module in [module for module in above if module == home or module in around]:
            program, evaluation, training = self._place(module, residual)
            inside = self.network.model.get_submodule(module)
            named = [*inside.named_parameters(remove_duplicate=False), *inside.named_buffers(remove_duplicate=False)]
            dropped = frozenset(name for name, tensor in named if id(tensor) in going)
            written[module] = Written(program, evaluation, training, dropped)
        gone = set(block.parameters)
        groups = tuple(
            group.name
            for group in self.network.groups
            if not group.frozen_because and gone.issuperset(member.parameter for member in group.members)
        )
        block = replace(block, groups=groups, written=written, samples=self._samples(residual))
        left, changed = _stays(self.network, block)
        return replace(block, left=left, changed=changed)

    def _samples(self, residual: Residual) -> int:
        """Along which dimension of the branch samples stand: that which is longer in the run on more of them."""
        if self.more is None or residual.key not in self.more[1]:
            return 0
        shapes = self.trace.values[residual.branch].shape, self.more[0].values[self.more[1][residual.key].branch].shape
        grown = [dimension for dimension, (one, two) in enumerate(zip(*shapes, strict=True)) if one != two]
        return grown[0] if grown else 0


def _names(residuals: Sequence[Residual], trace: Trace) -> list[str]:
    """A unique name for each: its module's; where that is the whole network, the module's that holds the branch."""
    counts: dict[str, int] = {}
    names = []
    for residual in residuals:
        base = residual.call.module
        if not base:
            paths = [trace.steps[number].modules for number in residual.inner]
            shared = [path[0] for path in zip(*paths, strict=False) if len(set(path)) == 1]
            base = shared[-1] if shared and shared[-1] else "network"
        counts[base] = counts.get(base, 0) + 1
        names.append(base if counts[base] == 1 else f"{base}#{counts[base]}")
    return names


def _place_in(form: Form, module: str, trace: Trace, residual: Residual) -> Place:
    """Where a residual addition stands in a form.

    Raises:
        UnwritableError: the form is of a module that runs several times, or not around it.
    """
    calls = [call for call in trace.calls if call.module == module]
    if len(calls) != 1:
        raise UnwritableError(f"{module or 'the network'} runs {len(calls)} times")
    first = calls[0].first
    made = [form.operations[number - first].outputs[0] for number in (residual.step, *residual.idle)]
    added, *idle = (value for value in made if value is not None)
    return Place(added, residual.kept_at, tuple(idle))


def without_blocks(network: Network, blocks: Iterable[Block]) -> Network:
    """The network as its trace shows it without blocks: units, tensors and hash; steps and values keep their numbers.

    The model is still the whole one; groups that lie in a branch alone are still there, and nothing hangs on them.
    """
    steps = list(network.trace.steps)
    passed = torch.ops.aten.alias.default
    for block in blocks:
        for number in (block.step, *block.idle):
            source = Ref(block.kept) if number == block.step else steps[number].args[0]
            steps[number] = replace(steps[number], operation=passed, args=(source,), kwargs={})
    for number in {number for block in blocks for number in block.steps}:
        steps[number] = Step(passed, (), {}, (), steps[number].modules)
    trace = replace(network.trace, steps=tuple(steps))
    structure = replace(network.structure, reading=replace(network.structure.reading, trace=trace))
    return Network(network.model, network.inputs, structure, cut_units(structure))


def _stays(network: Network, block: Block) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """What stays of the block's units, unless another unit takes it up; and other units that are not what they were."""
    going = {block.step, *block.steps, *block.idle}
    mine = {number for unit in network.units if unit.name in block.units for number in unit.steps} - going
    others = {unit.name: unit for unit in network.units if unit.name not in block.units}
    if not mine and all(going.isdisjoint(unit.steps) for unit in others.values()):
        return (), ()
    units = without_blocks(network, [block]).units
    left = tuple(unit for unit in units if unit.steps[0] in mine)
    changed = tuple(unit for unit in units if unit.name in others and unit.family != others[unit.name].family)
    return left, changed
