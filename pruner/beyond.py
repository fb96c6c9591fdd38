"""What a cost counts beyond its tables, written down as tables about a plan: the gaps that packing leaves in memory.

A compiler gives each tensor an address, and what lies between them counts. No sum over few groups says that. About a
plan it is written as what it is there, and for each group by how much it changes if that group alone has other widths:
a first-order approximation, exact at the plan.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pruner.solvers.problem import Ints, Table, TabledCost


def with_what_is_beyond(
    tabled: TabledCost, choice: Ints, at: Callable[[int, int], float | None], here: float
) -> TabledCost:
    """Add to each of a cost's sums what the cost itself counts beyond the largest of them.

    Args:
        tabled: the cost's tables.
        choice: the plan's options.
        at: the cost itself with another option of one group, both by number; None where it cannot be told.
        here: the cost itself at the plan.
    """
    beyond = here - tabled.at(choice)
    parts = []
    for group, count in enumerate(tabled.options):
        along = tabled.along(choice, group)
        told = [at(group, option) for option in range(count)]
        changes = [0.0 if cost is None else cost - said - beyond for cost, said in zip(told, along, strict=True)]
        if any(changes):
            parts.append(Table((group,), np.array(changes)))
    everywhere = np.ones((len(tabled.sums), len(parts)))
    return replace(
        tabled,
        parts=(*tabled.parts, *parts),
        sums=np.concatenate([tabled.sums, everywhere], axis=1),
        constants=tabled.constants + beyond,
    )
