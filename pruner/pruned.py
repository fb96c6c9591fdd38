"""What the rounds of a run leave: the smaller model, the choices that each group keeps, and the blocks that went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lut import Predictor
from lut.program import to_json
from lut.records import ChannelGroup
from profiler.blocks import Block
from profiler.cut import lost_positions, programs_after
from profiler.leftovers import Standing, standing
from profiler.network import Network
from pruner.present import Present
from pruner.surgery import shapes_left
from pruner.task import Task


@dataclass(frozen=True)
class Pruned:
    """What the rounds left: the smaller model and the choices that each group keeps."""

    task: Task
    model: nn.Module
    network: Network
    removed: Mapping[str, Mapping[int, tuple[int, ...]]]
    programs: tuple[Mapping[str, Any], ...]
    kept: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    present: Network
    blocks: tuple[Block, ...] = ()

    @property
    def widths(self) -> dict[str, int]:
        """Channels kept."""
        return {name: len(kept) for name, kept in self.kept.items()}

    def stood(self, predictor: Predictor | None) -> tuple[Standing, tuple[str, ...]]:
        """What stands in place of the units that went with blocks, and names of those that are priced as before."""
        found = standing(self.network, self.blocks)
        return found.priced(predictor.prices) if predictor else (found, ())


def pruned_model(
    task: Task,
    original: nn.Module,
    small: nn.Module,
    groups: Sequence[ChannelGroup],
    present: Present,
    blocks: Sequence[Block],
) -> Pruned:
    """Put together what the rounds left.

    Args:
        task: of the run.
        original: the unpruned whole model.
        small: the pruned whole model.
        groups: of the network, named as in the whole model.
        present: how the network stands.
        blocks: those that went, named as in the whole model.
    """
    removed = {
        name: {dimension: tuple(positions) for dimension, positions in dims.items()}
        for name, dims in lost_positions(groups, present.removed).items()
    }
    return Pruned(
        task=task,
        model=small,
        network=present.whole,
        removed=removed,
        programs=tuple(to_json(program) for program in programs_after(groups, present.removed, blocks)),
        kept={name: tuple(choices) for name, choices in present.kept.items()},
        shapes=shapes_left(original, removed),
        present=present.network,
        blocks=tuple(blocks),
    )


def left_by_blocks(pruned: Pruned, predictor: Predictor | None) -> dict[str, Any]:
    """What stands in place of the units that went with blocks, for `result.json`: names, by how they are priced."""
    stood, before = pruned.stood(predictor)
    priced = [unit.name for unit in stood.left if predictor and predictor.prices(unit)]
    missing = [unit.name for unit in stood.left if unit.name not in priced]
    return {"priced": priced, "priced_as_before": list(before), "missing": missing}
