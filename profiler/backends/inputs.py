"""Inputs that stand in for real ones when a network is timed, and the names of those that are given."""

from collections.abc import Mapping, Sequence

import numpy as np

from lut.errors import BackendError
from profiler.backends.interface import Array, Feeds


def random_inputs(inputs: Sequence[tuple[str, type[np.generic], tuple[int, ...]]], seed: int) -> dict[str, Array]:
    """Make realistic inputs: normal numbers, bytes over their range, other integers 0 or 1 (any index, any mask)."""
    generator = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name, dtype, shape in inputs:
        if dtype is np.bool_:
            made[name] = generator.integers(0, 2, shape).astype(np.bool_)
        elif dtype in (np.uint8, np.int8):
            limits = np.iinfo(dtype)
            made[name] = generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        elif issubclass(dtype, np.integer):
            made[name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            made[name] = generator.standard_normal(shape).astype(dtype)
    return made


def name_feeds(feeds: Feeds, wanted: Sequence[str]) -> dict[str, Array]:
    """Give each input that a network wants by its name.

    Raises:
        BackendError: inputs are missing, or there are others.
    """
    named = dict(feeds) if isinstance(feeds, Mapping) else dict(zip(wanted, feeds, strict=False))
    if set(named) != set(wanted) or len(feeds) != len(wanted):
        raise BackendError(f"The network's inputs are {', '.join(wanted)}; given were {', '.join(named) or 'none'}.")
    return named
