"""Makes what is random repeatable, and gives the random generators back as they were."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

WITH_STATE = ("cuda", "xpu")
"""Kinds of devices whose generators PyTorch gives out one by one."""


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and PyTorch: a task may draw its batches with any of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back at the end: Python's, numpy's, and PyTorch's of CPU and GPUs.

    Of GPUs only where they are in use at the beginning: to look for a state would set all of them up.
    """
    plain, arrays = random.getstate(), np.random.get_state()
    kind, count = _devices()
    try:
        with torch.random.fork_rng(devices=range(count), device_type=kind):
            seed_all(seed)
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)


def _devices() -> tuple[str, int]:
    """The kind and number of devices whose generators are in use."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type not in WITH_STATE or not torch.get_device_module(found).is_initialized():
        return "cuda", 0
    return found.type, torch.accelerator.device_count()
