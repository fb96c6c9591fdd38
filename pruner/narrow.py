"""Groups and plans of a network that has been cut once already: renumber what is left."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from torch import nn

from lut.errors import TaskError
from lut.records import ChannelGroup, Member
from profiler.cut import lost_positions
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


def renamed(groups: Iterable[ChannelGroup], names: Mapping[str, str]) -> list[ChannelGroup]:
    """The same groups, their members named as in a larger model of which the network is a part."""
    return [
        replace(group, members=tuple(replace(m, parameter=names.get(m.parameter, m.parameter)) for m in group.members))
        for group in groups
    ]


def narrowed(groups: Iterable[ChannelGroup], remove: Mapping[str, Collection[int]]) -> list[ChannelGroup]:
    """The groups as they stand after a removal: fewer choices, positions counted anew.

    Args:
        groups: of the network before.
        remove: the choices of each group that went.
    """
    groups = list(groups)
    lost = lost_positions(groups, remove)
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
        found.append(replace(group, size=max(0, group.size - len(gone)), members=tuple(members)))
    return found
