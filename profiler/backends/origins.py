"""Where a runtime's nodes come from: those that do not tell take it from their neighbours."""

from collections.abc import Sequence

from profiler.backends.interface import Attribution

Origin = tuple[str, Attribution]
"""A tensor of the network as given, and how it is known that a node helps to compute it."""


def spread(found: list[Origin | None], near: Sequence[Sequence[int]]) -> None:
    """Hand origins on, in place, from neighbours to nodes that have none, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for place, others in enumerate(near):
            known = next((origin for origin in (found[other] for other in others) if origin is not None), None)
            if found[place] is None and known is not None:
                found[place] = (known[0], "neighbour")
                changed = True
