"""What it costs to watch the parts of a run: their sum, watched, against a whole that nobody watched."""

from collections.abc import Sequence


def cost_of_watching(parts: Sequence[float], whole: float) -> float:
    """What watching adds to each part of a run: the least cost that brings the parts' sum down to the whole.

    A part cannot have cost more to watch than it took; such parts took nothing themselves.

    Args:
        parts: times of all parts, watched.
        whole: time of a run that nobody watched, in the same unit.
    """
    excess = sum(parts) - whole
    if excess <= 0:
        return 0.0
    ordered = sorted(parts)
    for place, part in enumerate(ordered):
        level = excess / (len(ordered) - place)
        if level <= part:
            return level
        excess -= part
    return ordered[-1] if ordered else 0.0
