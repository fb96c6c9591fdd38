"""How much memory tensors need when each has a fixed address: a compiler lays them out once, ahead of time.

Two tensors may share addresses when they do not live at the same time. Finding the best layout is hard (NP-complete),
so compilers use simple rules, and what they reach lies above the peak of the live tensors. Here are the two that
TensorRT for RTX was found to take the better of (docs/memory.md).
"""

from bisect import insort
from collections.abc import Sequence


def live_peak(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> int:
    """The largest sum of sizes alive at once: no layout needs less.

    Args:
        sizes: in bytes.
        spans: first and last step of each tensor, both inclusive.
    """
    changes: dict[int, int] = {}
    for size, (first, last) in zip(sizes, spans, strict=True):
        changes[first] = changes.get(first, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    live = peak = 0
    for step in sorted(changes):
        live += changes[step]
        peak = max(peak, live)
    return peak


def best_fit(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> int:
    """Bytes needed when each tensor in order of birth takes the narrowest gap that is large enough; spans as above.

    What lies free above the tensors, up to the most that was needed so far, is such a gap; if it is too narrow, as all
    are, memory grows by what it lacks.
    """
    live: list[tuple[int, int, int]] = []
    peak = 0
    for number in sorted(range(len(sizes)), key=lambda number: spans[number][0]):
        first, last = spans[number]
        live = [block for block in live if block[2] >= first]
        size, end, place, narrowest = sizes[number], 0, -1, 0
        top = live[-1][1] if live else 0
        for start, stop, _ in (*live, (peak, peak, last)):
            gap = start - end
            if gap >= size and (place < 0 or gap < narrowest):
                place, narrowest = end, gap
            end = stop
        place = top if place < 0 else place
        insort(live, (place, place + size, last))
        peak = max(peak, place + size)
    return peak


def shared_slots(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> int:
    """Bytes needed when each tensor, the largest first, takes a slot that is free all its life, or a new one."""
    slots: list[int] = []
    taken: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], spans[number][0])):
        first, last = spans[number]
        times = (2 << last) - (1 << first)
        for slot, busy in enumerate(taken):
            if not busy & times:
                taken[slot] = busy | times
                break
        else:
            slots.append(sizes[number])
            taken.append(times)
    return sum(slots)


def packed_bytes(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> int:
    """The smaller of the two layouts; never below `live_peak`."""
    return min(best_fit(sizes, spans), shared_slots(sizes, spans))
