"""Groups and plans of a network that has been cut once already: renumber what is left."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from lut.errors import LatpruneError, TaskError
from lut.records import ChannelGroup, Member
from profiler.cut import lost_positions
from profiler.groups import matches
from profiler.narrowing import narrow_program
from profiler.network import Network
from pruner.surgery import named_tensors


def names_in(model: nn.Module, part: nn.Module) -> dict[str, str]:
    """What the whole model calls each parameter and buffer of a part of it; tensors are known by identity.

    Raises:
        TaskError: the part holds parameters that are not the model's own.
    """
    whole = {id(tensor): name for name, tensor in named_tensors(model).items()}
    names = {}
    for name, tensor in named_tensors(part).items():
        if id(tensor) in whole:
            names[name] = whole[id(tensor)]
        elif isinstance(tensor, nn.Parameter):
            raise TaskError(
                f"The parameter {name!r} of what network(model) gives is not one of the model's. "
                "network() must give back the model's own modules, not a copy of them."
            )
    return names


def asked_to_stay(model: nn.Module, network: Network, patterns: Sequence[str]) -> frozenset[str]:
    """The prunable groups that touch a layer which the user wants whole.

    They stay at full width but are priced like any other, so that a table made without the wish serves.

    Args:
        model: the whole model; patterns name its parameters, modules, or all inside a module.
        network: the analysis of its deployed part.
        patterns: as for `--freeze`.

    Raises:
        LatpruneError: a pattern names nothing.
    """
    names = list(dict(model.named_parameters()))
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise LatpruneError(f"--freeze {pattern} names no layer of the network; they are named like {names[0]!r}.")
    return frozenset(
        group.name
        for group in renamed(network.groups, names_in(model, network.model))
        if not group.frozen_because
        and any(matches(pattern, member.parameter) for pattern in patterns for member in group.members)
    )


def out_of_place(model: nn.Module, network: Network) -> frozenset[str]:
    """The groups that need a module run as a program which is not one of the model's own, but of a wrapper around them.

    The model has no place where that program could stand, so these groups stay at full width.
    """
    own = {id(module) for module in model.modules()}
    parts = dict(network.model.named_modules(remove_duplicate=False))
    return frozenset(
        group.name
        for group in network.groups
        if any(id(parts[program.module]) not in own for program in group.programs)
    )


def without_programs_of(fixed: Collection[str], network: Network) -> Network:
    """The network in which groups that stay at full width ask for no module to be run as a program."""
    groups = tuple(replace(g, programs=()) if g.name in fixed else g for g in network.groups)
    return replace(network, structure=replace(network.structure, groups=groups))


def renamed(groups: Iterable[ChannelGroup], names: Mapping[str, str]) -> list[ChannelGroup]:
    """The same groups, their members named as in a larger model of which the network is a part."""
    groups = list(groups)
    known = {
        id(program): replace(program, module=_module_name(program.module, names))
        for group in groups
        for program in group.programs
    }
    return [
        replace(
            group,
            members=tuple(replace(m, parameter=names.get(m.parameter, m.parameter)) for m in group.members),
            attributes=tuple(replace(a, module=_module_name(a.module, names)) for a in group.attributes),
            programs=tuple(known[id(program)] for program in group.programs),
        )
        for group in groups
    ]


def _module_name(path: str, names: Mapping[str, str]) -> str:
    """What the larger model calls a module, told by the parameters in it, or else in the modules around it."""
    parts = path.split(".") if path else []
    for depth in range(len(parts), -1, -1):
        around, rest = ".".join(parts[:depth]), parts[depth:]
        for name, larger in names.items():
            inner = name.removeprefix(f"{around}.") if around else name
            if (inner != name or not around) and larger.endswith(inner):
                return ".".join(filter(None, [larger.removesuffix(inner).rstrip("."), *rest]))
    return path


def narrowed(groups: Iterable[ChannelGroup], remove: Mapping[str, Collection[int]]) -> list[ChannelGroup]:
    """The groups as they stand after a removal: fewer choices, positions counted anew.

    Args:
        groups: of the network before.
        remove: the choices of each group that went.
    """
    groups = list(groups)
    lost = lost_positions(groups, remove)
    programs = {id(program): program for group in groups for program in group.programs}
    smaller = {number: narrow_program(program, remove) for number, program in programs.items()}
    found = []
    for group in groups:
        gone = set(remove.get(group.name, ()))
        members = []
        for member in group.members:
            removed = np.asarray(lost.get(member.parameter, {}).get(member.dimension, []), dtype=np.int64)
            indices = tuple(
                tuple(int(p - np.searchsorted(removed, p)) for p in positions)
                for choice, positions in enumerate(member.indices)
                if choice not in gone
            )
            members.append(Member(member.parameter, member.dimension, indices))
        left = tuple(smaller[id(program)] for program in group.programs)
        found.append(replace(group, size=max(0, group.size - len(gone)), members=tuple(members), programs=left))
    return found
