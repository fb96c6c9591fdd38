"""Which choice of which group each channel belongs to that enters a weight."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lut.records import ChannelGroup
from pruner.importance.contractions import Contraction
from pruner.importance.programs import behind_sequences

NOBODY = -1
"""Owner of a position that belongs to no prunable group."""


class Owners:
    """Which choice of which prunable group each position of a weight's dimension belongs to; choices count through."""

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        """Lay the groups' members over the model's parameters and buffers."""
        named: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self.names = {id(tensor): name for name, tensor in named.items()}
        self.behind_sequences = behind_sequences(model)
        self.ranges: dict[str, range] = {}
        self.total = 0
        self.has_columns = {(member.parameter, member.dimension) for group in groups for member in group.members}
        self._owners: dict[tuple[str, int], Tensor] = {}
        self._entering: dict[tuple[str, int, int, int, int], Tensor | None] = {}
        for group in groups:
            if group.frozen_because:
                continue
            self.ranges[group.name] = range(self.total, self.total + group.size)
            for member in group.members:
                if member.parameter not in named:
                    continue
                length = named[member.parameter].shape[member.dimension]
                owner = self._owners.setdefault((member.parameter, member.dimension), torch.full((length,), NOBODY))
                for choice, positions in enumerate(member.indices, start=self.total):
                    owner[list(positions)] = choice
            self.total += group.size

    def entering(self, contraction: Contraction) -> Tensor | None:
        """For each channel that enters, the choice that owns it, or `total` for nobody; None where no group enters."""
        found = self._base(contraction.weight, contraction.dimension)
        if found is None:
            return None
        name, dimension, start = found
        length = contraction.weight.shape[contraction.dimension]
        key = (name, dimension, start, length, contraction.parts)
        if key not in self._entering:
            owner = self._owner(name, dimension, contraction)
            if owner is not None and start + length <= len(owner) and contraction.parts == 1:
                owner = owner[start : start + length]
            if owner is not None:
                owner = torch.where(owner == NOBODY, self.total, owner) if bool((owner != NOBODY).any()) else None
            self._entering[key] = owner
        return self._entering[key]

    def enter_any(self, weights: Iterable[Tensor]) -> bool:
        """Whether channels of a group enter one of these weights, whose last dimension is contracted."""
        names = [(self.names[id(weight)], weight.dim() - 1) for weight in weights if id(weight) in self.names]
        return any(place in self._owners for place in names)

    def is_behind_sequence(self, contraction: Contraction) -> bool:
        """Whether a program feeds this weight with samples that stand behind a sequence."""
        found = self._base(contraction.weight, contraction.dimension)
        return found is not None and found[0] in self.behind_sequences

    def _base(self, weight: Tensor, dimension: int) -> tuple[str, int, int] | None:
        """Name of the weight, or of what it is a view of (a transpose, a slice), and where the view begins in it."""
        if id(weight) in self.names:
            return self.names[id(weight)], dimension, 0
        base = weight._base
        stride = weight.stride(dimension)
        if base is None or id(base) not in self.names or not stride:
            return None
        for d in range(base.dim()):
            if base.stride(d) == stride and base.shape[d] >= weight.shape[dimension]:
                start = int((weight.storage_offset() - base.storage_offset()) // stride % base.shape[d])
                return (self.names[id(base)], d, start) if start + weight.shape[dimension] <= base.shape[d] else None
        return None

    def _owner(self, name: str, dimension: int, contraction: Contraction) -> Tensor | None:
        parts = contraction.parts
        if parts == 1:
            return self._owners.get((name, dimension))
        channels = contraction.source.shape[contraction.channels]
        inner = channels // parts
        if inner == 1:
            return None  # depthwise: each channel by itself, which contracts nothing
        if dimension == 0:
            return self._owners.get((name, 0))  # transposed: the weight's rows are the channels that enter
        if (name, 1) in self.has_columns:
            owner = self._owners.get((name, 1))
            return owner.repeat(parts) if owner is not None else None
        rows = self._owners.get((name, 0))
        if rows is None:
            return None
        by_part = rows.reshape(parts, -1)
        whole = torch.where((by_part == by_part[:, :1]).all(1), by_part[:, 0], NOBODY)
        return whole.repeat_interleave(inner)
