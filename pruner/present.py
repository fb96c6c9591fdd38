"""How a network stands between two rounds: which of its original choices and blocks are left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lut.memory import Liveness
from profiler.blocks import Block
from profiler.network import Network


@dataclass(frozen=True)
class Present:
    """What is left of a network.

    Attributes:
        whole: the unpruned network.
        kept: for each of its groups the choices that are left, ascending.
        network: the whole without the blocks that went.
        liveness: its tensors, as they are laid out where it is deployed.
        gone: the blocks that went.
    """

    whole: Network
    kept: Mapping[str, list[int]]
    network: Network
    liveness: Liveness
    gone: tuple[Block, ...] = field(default=())

    @property
    def widths(self) -> dict[str, int]:
        """Present widths of all groups."""
        return {name: len(kept) for name, kept in self.kept.items()}

    @cached_property
    def removed(self) -> dict[str, list[int]]:
        """For each group that has lost some the choices that are gone."""
        return {
            name: missing(size, self.kept[name])
            for name, size in self.whole.widths.items()
            if len(self.kept[name]) < size
        }

    @property
    def names_gone(self) -> list[str]:
        """Names of the blocks that went."""
        return [block.name for block in self.gone]


def missing(size: int, kept: list[int]) -> list[int]:
    """The choices of a group that are not among those kept."""
    there = set(kept)
    return [choice for choice in range(size) if choice not in there]
