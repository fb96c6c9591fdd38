"""Magnitude: how large the weights are that go with a channel, in all layers of its group; looks at no data.

    s[c] = sum of w ** 2 over the parameters' elements that go with choice c, over the mean of the group's

A squared L2 norm, so that a set's is the sum of its choices'; and relative, because layers' scales do not compare. This
is Torch-Pruning's group magnitude (arXiv:2301.12900) on our groups, with biases counted too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import nn

from lut.records import ChannelGroup
from pruner.importance.batches import Loss
from pruner.importance.gradients import Options
from pruner.importance.ranking import Ranking, rank_singly


def rank_by_magnitude(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Iterable[Any] = (),
    loss: Loss | None = None,
    **options: Unpack[Options],
) -> dict[str, Ranking]:
    """Rank choices by their weights' squared L2 norm over the group's mean; batches and loss are not looked at."""
    part = options.get("part")
    parameters = dict((model if part is None else part).named_parameters())
    found = {}
    for group in groups:
        if group.frozen_because:
            continue
        squares = torch.zeros(group.size, dtype=torch.float64)
        for member in group.members:
            parameter = parameters.get(member.parameter)
            if parameter is not None:  # else a norm's statistics
                by_position = parameter.detach().double().cpu().square().movedim(member.dimension, 0)
                by_position = by_position.reshape(len(by_position), -1).sum(1)
                squares += by_position[torch.from_numpy(member.table)].sum(1)
        mean = float(squares.mean()) or 1.0  # all zero: nothing is lost with any
        found[group.name] = rank_singly((squares / mean).numpy())
    return found
