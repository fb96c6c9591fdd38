"""Two runs of a network, at two batches, laid side by side: which value and step of one is which of the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.utils._pytree import tree_leaves

from profiler.groups import Reading
from profiler.rewrites import SIZES, SPLITS
from profiler.trace import Ref, Step, Trace


@dataclass(frozen=True)
class Pair:
    """The same run at two batches, or once where the batch cannot change.

    Attributes:
        reading: the first, with its labels.
        again: the second, whose batch is larger or smaller by half.
        partner: for each value of the first the second's; nothing where the batch cannot change.
        steps: for each step of the first the second's.
    """

    reading: Reading
    again: Trace | None = None
    partner: Mapping[int, int] = field(default_factory=dict)
    steps: Mapping[int, int] = field(default_factory=dict)
    direction: int = 1
    """1 where the second's batch is larger, -1 where it is smaller."""


SIZED = frozenset({*SIZES, *SPLITS, *"slice narrow select arange repeat randint native_group_norm".split()})
SIZED |= {"as_strided", "as_strided_"}
"""Operations that take numbers which may count samples. Where others differ (an order of dimensions), code differs."""

SAME_VIEW = frozenset({"view", "_unsafe_view", "reshape"})


def _numbers(step: Step) -> list[Any]:
    leaves = tree_leaves((step.args, dict(step.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref))
    return [leaf for leaf in leaves if isinstance(leaf, bool | int | float)]


def pair_runs(reading: Reading, again: Trace, direction: int) -> Pair | None:
    """Two runs laid side by side; copies that only one of them makes, for the order in memory, are passed over."""
    mine, other = reading.trace, again
    partner = {index: index for index, value in enumerate(mine.values) if value.name}
    partner.update(zip(mine.inputs, other.inputs, strict=True))
    steps: dict[int, int] = {}
    seen = 0
    for number, step in enumerate(mine.steps):
        while seen < len(other.steps) and other.steps[seen].name == "clone" != step.name:
            seen += 1
        ran = other.steps[seen] if seen < len(other.steps) else None
        if ran is not None and (ran.operation == step.operation or {ran.name, step.name} <= SAME_VIEW):
            if step.name not in SIZED and _numbers(step) != _numbers(ran):
                return None
            steps[number] = seen
            seen += 1
            pairs = [*zip(step.inputs, ran.inputs, strict=False), *zip(step.outputs, ran.outputs, strict=False)]
            partner.update((one, two) for one, two in pairs if one is not None and two is not None)
        elif step.name == "clone" and step.inputs[0] in partner and step.outputs[0] is not None:
            partner[step.outputs[0]] = partner[step.inputs[0]]
        else:
            return None
    return Pair(reading, again, partner, steps, direction) if seen == len(other.steps) else None
