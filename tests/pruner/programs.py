"""A small network in which a module holds a width in its code, so that it must run as a program once it is pruned."""

import functools

import torch
from torch import Tensor, nn

from profiler.cut import cut
from profiler.trial import find_groups


class Split(nn.Module):
    """Splits at a fixed place; beside that products of two kinds, of which autocast casts one, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.line, self.norm = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.mix(self.before(x)).split(4, 1)
        return self.norm(self.line(torch.cat([left.relu(), right], 1).unsqueeze(2)).squeeze(2)).relu()


class SplitNet(nn.Module):
    """A stem, the module and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(5, 8), Split(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.stem(x)))


@functools.cache
def pruned_split_net() -> nn.Module:
    """`SplitNet` without the first channel of every group; `inner` is a program. Copy it before changing it."""
    torch.manual_seed(0)
    model = SplitNet().eval()
    groups = find_groups(model, (torch.randn(4, 5),))
    return cut(model, groups, {group.name: [0] for group in groups if group.size and not group.frozen_because})
