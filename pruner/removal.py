"""Blocks that go together with channels: seen from a larger model, and of a network that has lost some already."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from lut.program import Program
from lut.records import ChannelGroup
from profiler.blocks import Block
from profiler.branches import Written, without
from profiler.narrowing import groups_in, narrow_program, outermost
from profiler.network import Network
from pruner.narrow import narrowed, renamed


def dropped_by(blocks: Iterable[Block]) -> tuple[str, ...]:
    """The parameters and buffers that go with blocks, each once: what a plan calls `dropped`."""
    return tuple(dict.fromkeys(name for block in blocks for name in block.parameters))


def blocks_in_place(model: nn.Module, network: Network, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks whose program has a place in the model: not those in a wrapper around the model's own modules.

    Args:
        model: the whole model.
        network: the analysis of its deployed part.
        blocks: of that part.
    """
    own = {id(module) for module in model.modules()}
    parts = dict(network.model.named_modules(remove_duplicate=False))
    return tuple(block for block in blocks if id(parts[block.home.program.module]) in own)


def renamed_blocks(blocks: Iterable[Block], names: Mapping[str, str]) -> list[Block]:
    """The same blocks, their modules and parameters named as in a larger model of which the network is a part.

    Args:
        blocks: of the part; their own names stay.
        names: from `names_in`.
    """
    blocks = list(blocks)
    programs = list({id(w.program): w.program for block in blocks for w in block.written.values()}.values())
    (carrier,) = renamed([ChannelGroup("", 0, (), programs=tuple(programs))], names)
    known = {id(old): new for old, new in zip(programs, carrier.programs, strict=True)}
    return [
        replace(
            block,
            parameters=tuple(names.get(name, name) for name in block.parameters),
            written=_by_module(replace(w, program=known[id(w.program)]) for w in block.written.values()),
        )
        for block in blocks
    ]


def narrowed_all(
    groups: Sequence[ChannelGroup],
    blocks: Sequence[Block],
    remove: Mapping[str, Collection[int]],
    gone: Sequence[Block],
) -> tuple[list[ChannelGroup], list[Block]]:
    """Groups and blocks as they stand after a removal of channels and blocks: what is left to go of them.

    Args:
        groups: of the network before.
        blocks: of the same, those that go among them.
        remove: the choices of each group that went.
        gone: the blocks that went.

    Returns:
        The groups without those that went with a block, each with the programs that now stand in the network; and the
        blocks that are neither gone nor in a branch that is.
    """
    left: dict[int, Program] = {}

    def after(program: Program) -> Program:
        if id(program) not in left:
            inside = [block.written[program.module] for block in gone if program.module in block.written]
            left[id(program)] = narrow_program(without(program, inside), remove)
        return left[id(program)]

    known = {module: written.program for block in [*gone, *blocks] for module, written in block.written.items()}
    homes = [after(block.home.program) for block in gone]
    renewed = {program.module: program for program in homes}
    for group in groups:
        for program in group.programs:
            if program.module in known:
                renewed[program.module] = after(known[program.module])
    found = []
    lost = {name for block in gone for name in block.groups}
    dropped = set(dropped_by(gone))
    for before, group in zip(groups, narrowed(groups, remove), strict=True):
        if before.name in lost:
            continue
        own = {program.module: renewed.get(program.module, program) for program in group.programs}
        own.update((program.module, program) for program in homes if group.name in groups_in(program))
        members = tuple(member for member in group.members if member.parameter not in dropped)
        found.append(replace(group, members=members, programs=tuple(outermost(list(own.values())))))
    names = {block.name for block in gone}
    staying = [block for block in blocks if block.name not in names and names.isdisjoint(block.within)]
    return found, [
        replace(block, written=_by_module(replace(w, program=after(w.program)) for w in block.written.values()))
        for block in staying
    ]


def _by_module(written: Iterable[Written]) -> dict[str, Written]:
    return {each.program.module: each for each in written}
