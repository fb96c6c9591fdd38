"""Figures of samples that outliers do not move: the noise of a median, a ratio of medians, the mean of the middle."""

import math
from collections.abc import Sequence
from statistics import fmean, median

NORMAL_MAD = 1.4826
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of the median over that of the mean, for normal samples."""


def relative_noise(samples: Sequence[float]) -> float:
    """Estimate the standard error of the samples' median over the median, from the median absolute deviation."""
    if len(samples) < 2:
        return math.inf
    middle = median(samples)
    if middle <= 0:
        return math.inf
    spread = NORMAL_MAD * median(abs(sample - middle) for sample in samples)
    return MEDIAN_ERROR * spread / math.sqrt(len(samples)) / middle


def median_ratio(samples: Sequence[float], reference: Sequence[float]) -> float | None:
    """Ratio of the medians, or None without a reference."""
    return median(samples) / median(reference) if reference else None


def midmean(samples: Sequence[float]) -> float:
    """Mean of the middle half: as deaf to outliers as the median, but finer where the clock is coarse."""
    ordered = sorted(samples)
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    return fmean(middle)
