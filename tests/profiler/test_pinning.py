"""Which cores a measuring process takes."""

import os

import pytest

from profiler.pinning import keeping_off, least_busy


def _stat(*idle: int) -> str:
    lines = ["cpu  9 9 9 9 9"] + [f"cpu{core} 100 0 50 {ticks} 0 0" for core, ticks in enumerate(idle)]
    return "\n".join([*lines, "intr 5"])


def test_the_cores_that_idle_most_are_taken() -> None:
    texts = iter([_stat(10, 10, 10, 10), _stat(12, 20, 10, 19)])
    waits: list[float] = []
    assert least_busy({0, 1, 2, 3}, 2, read=lambda: next(texts), wait=waits.append) == (1, 3)
    assert len(waits) == 1


def test_cores_that_are_not_allowed_are_not_taken() -> None:
    texts = iter([_stat(0, 0, 0), _stat(9, 5, 7)])
    assert least_busy({1, 2}, 1, read=lambda: next(texts), wait=lambda _: None) == (2,)


def test_without_a_count_of_ticks_the_first_cores_are_taken() -> None:
    def missing() -> str:
        raise FileNotFoundError

    assert least_busy({3, 5, 4}, 2, read=missing, wait=lambda _: None) == (3, 4)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin")
def test_keeping_off_another_process_ends_with_the_block() -> None:
    before = os.sched_getaffinity(0)
    with keeping_off(os.getpid()):  # a process that may go everywhere leaves nothing to keep off
        assert os.sched_getaffinity(0) == before
    with keeping_off(None):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before
