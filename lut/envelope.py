"""The lower envelope of a staircase: fewer channels can be slower, and keeping more of them is always allowed.

    envelope(c) = min over c' >= c of T(c')

A width that a wider one undercuts is never worth having: the wider one is faster and loses nothing.
"""

import numpy as np
from numpy.typing import NDArray

from lut.trend import Floats


def lower_envelope(ms: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The envelope of times `[m]` at ascending widths.

    Returns:
        `[m]`, the least time at this or any wider width; and `[m]`, the place of the width that attains it (of equal
        ones the widest).
    """
    count = len(ms)
    attained = np.arange(count, dtype=np.int64)
    for place in range(count - 2, -1, -1):
        wider = attained[place + 1]
        if ms[wider] <= ms[place]:
            attained[place] = wider
    return ms[attained], attained
