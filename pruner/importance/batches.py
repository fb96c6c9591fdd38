"""What a batch is made of: how many samples, the same batch twice, and whether a loss is the sum that scores need."""

import logging
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lut.errors import TaskError

log = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Any], Tensor]


def samples_in(batch: Any) -> int | None:
    """How many samples a batch holds: the length of the first tensor, or of the list of tensors that stands first."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else None
    if isinstance(batch, Mapping):
        return samples_in(list(batch.values()))
    for part in batch if isinstance(batch, list | tuple) else ():
        if isinstance(part, list | tuple) and part and isinstance(part[0], Tensor | Mapping):
            return len(part)
        found = samples_in(part)
        if found is not None:
            return found
    return None


def doubled(batch: Any, samples: int) -> Any:
    """The batch with every sample twice: tensors and lists of that length are repeated.

    Raises:
        ValueError: nothing in the batch has that length.
    """
    repeated = 0

    def double(part: Any, top: bool = False) -> Any:
        nonlocal repeated
        if isinstance(part, Tensor) and part.dim() and part.shape[0] == samples:
            repeated += 1
            return torch.cat([part, part])
        if isinstance(part, Mapping):
            return {key: double(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            if len(part) == samples and not top:
                repeated += 1
                return [*part, *part]
            halves = [double(item) for item in part]
            return type(part)(*halves) if hasattr(part, "_fields") else type(part)(halves)
        return part

    twice = double(batch, top=True)
    if not repeated:
        raise ValueError(f"no tensor of the batch is {samples} long")
    return twice


def count_samples(batch: Any, value: Tensor) -> int:
    """How many samples the loss's value stands for.

    Raises:
        TaskError: neither the batch nor the loss tells, or they differ.
    """
    told = samples_in(batch)
    if value.dim() == 0 or value.numel() == 1:
        if told is None:
            raise TaskError("The batch does not tell how many samples it holds: let loss() give one value a sample.")
        return told
    lengths = {leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()} | {told, None}
    if lengths != {None} and value.shape[0] not in lengths:
        raise TaskError(
            f"loss() gives {value.shape[0]} values for a batch of {told} samples: "
            "let it give one value a sample, or their sum."
        )
    return int(value.shape[0])


class SumCheck:
    """Finds out on the first batch that allows it whether a loss is a sum over samples, and refuses a mean."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.done = False

    def __call__(self, model: nn.Module, batch: Any, loss: Loss) -> None:
        """Compare the loss of the batch with that of the same batch twice: a sum doubles, a mean stays.

        Raises:
            TaskError: it stays.
        """
        if self.done:
            return
        with torch.no_grad():
            once = _checked(loss(model, batch))
            samples = samples_in(batch) if once.numel() == 1 else int(once.shape[0])
            once = once.sum()
            try:
                twice = loss(model, doubled(batch, samples or 0)).sum()
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it cannot be doubled
                log.warning("loss() fails on a batch with every sample twice, so it may be a mean unnoticed: %s", error)
                self.done = True
                return
        if not float(once):
            return
        self.done = True
        if abs(twice - once) < abs(twice - 2 * once):
            raise TaskError(
                f"loss() is a mean over samples: it is {float(once):.4g} for a batch and {float(twice):.4g} for that "
                'batch twice. Let it give the sum or one value a sample, for example with reduction="none".'
            )


def _checked(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point or not value.numel():
        raise TaskError(f"loss() gives {type(value).__name__}, not a tensor of losses.")
    return value


def loss_of(model: nn.Module, batch: Any, loss: Loss, number: int) -> Tensor:
    """The checked value of the loss on batch `number` (counted from 1).

    Raises:
        TaskError: it is no tensor, or not finite.
    """
    value = _checked(loss(model, batch))
    total = float(value.detach().sum())
    if not isfinite(total):
        raise TaskError(f"loss() is {total} on batch {number}: only finite losses can be used.")
    return value
