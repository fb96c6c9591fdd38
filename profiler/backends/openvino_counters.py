"""Tell what each run took from OpenVINO's counters, which show the mean of all runs so far, rounded down twice.

A counter of 0 does not tell that a node was not run: it is in whole microseconds, each run's time and the mean.
"""

import math
from collections.abc import Sequence

ROUNDED_DOWN_US = 0.5
"""Added to every run's time: the runtime cuts off the fraction of a microsecond, half of one on average."""


def split_means(means: Sequence[int]) -> list[float]:
    """Tell what each run took from the means of all runs so far.

    After k runs the sum of whole microseconds is one of `k * mean … k * mean + k - 1`. The evenest course through all
    of these is taken (a string pulled tight through them): runs are told apart as far as the means tell, no further,
    and their sum is right.

    Args:
        means: after each run, rounded down.

    Returns:
        For each run its whole microseconds, on average; never negative.
    """
    taken: list[float] = []
    total = 0.0
    while len(taken) < len(means):
        start = len(taken)
        low, high, low_end, high_end = 0.0, math.inf, start + 1, start + 1
        for count in range(start + 1, len(means) + 1):
            least = (count * means[count - 1] - total) / (count - start)
            most = least + (count - 1) / (count - start)
            if least > high:
                pace, end = high, high_end
                break
            if most < low:
                pace, end = low, low_end
                break
            if least >= low:
                low, low_end = least, count
            if most <= high:
                high, high_end = most, count
        else:
            pace, end = (low + high) / 2, len(means)
        taken += [pace] * (end - start)
        total += pace * (end - start)
    return taken
