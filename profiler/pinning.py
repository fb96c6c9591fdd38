"""Where a measuring process runs: pinned to the cores that are least busy, and told when it was interrupted there."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

PROC_STAT = Path("/proc/stat")
WATCHED_S = 0.1
IDLE = slice(3, 5)
"""The columns idle and iowait of a core's line, counted after its name."""


def pin(threads: int) -> tuple[int, ...]:
    """Pin this process (and the threads that it is going to start) to as many cores as it has threads.

    Returns:
        The cores, or nothing where the system cannot pin or there is nothing to choose.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    allowed = os.sched_getaffinity(0)
    if threads >= len(allowed):
        return ()
    chosen = least_busy(allowed, threads)
    os.sched_setaffinity(0, chosen)
    return chosen


@contextlib.contextmanager
def keeping_off(pid: int | None) -> Iterator[None]:
    """Keep this process off the cores that another is pinned to, where that leaves it any."""
    if pid is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    others = own - os.sched_getaffinity(pid)
    if others:
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def count_interruptions() -> int:
    """How often the system has taken a processor from this process against its will; 0 where nobody counts.

    A run into which another process's time slice fell is as steady as any, only 4 ms longer: its time does not tell.
    """
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def least_busy(
    allowed: Collection[int],
    count: int,
    *,
    read: Callable[[], str] = lambda: PROC_STAT.read_text(),
    wait: Callable[[float], None] = time.sleep,
) -> tuple[int, ...]:
    """Choose the cores that idle most over a moment; of equal ones the lowest."""
    try:
        before = _idle(read())
        wait(WATCHED_S)
        after = _idle(read())
    except OSError:
        before, after = {}, {}
    idled = {core: after.get(core, 0) - before.get(core, 0) for core in allowed}
    return tuple(sorted(sorted(allowed), key=lambda core: -idled[core])[:count])


def _idle(text: str) -> dict[int, int]:
    """For each core its idle ticks so far."""
    found = {}
    for line in text.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            found[int(name[3:])] = sum(map(int, numbers[IDLE]))
    return found
