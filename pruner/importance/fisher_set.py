"""Fisher information of whole sets: what goes together is scored together, with the cross terms that a sum leaves out.

    s(S) = 1 / (2 N) * sum_n (sum_{c in S} g[n, c]) ** 2

A chunk's score is not the sum of its channels' scores: two channels that say the same count four times one, two that
cancel count nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lut.records import ChannelGroup
from pruner.importance.batches import Loss
from pruner.importance.gradients import Options, collect
from pruner.importance.ranking import Ranking, rank_by_set


class Products:
    """`g^T g` of one group, summed over samples; exact for any number of them.

    All that a set's score needs of the samples is this matrix, so nothing has to be sampled or capped: it takes
    8 size² bytes however many samples there are (all of ResNet-50: 65 MB). While there are fewer samples than
    choices, the samples themselves say the same in less space (a wide transformer's matrices would take gigabytes), so
    they are kept until there are as many, then multiplied, in float64, and let go. Many at once is also faster.
    """

    def __init__(self) -> None:
        """No samples yet."""
        self._rows: list[Tensor] = []
        self._count = 0
        self._sum: Tensor | None = None

    def add(self, gradients: Tensor) -> None:
        """Take in some samples, `[N, size]`."""
        self._rows.append(gradients.clone())
        self._count += len(gradients)
        if self._count >= gradients.shape[1]:
            self._multiply()

    def _multiply(self) -> None:
        rows = torch.cat(self._rows).double()
        if self._sum is None:
            self._sum = rows.T @ rows
        else:
            self._sum.addmm_(rows.T, rows)
        self._rows, self._count = [], 0

    def total(self) -> NDArray[np.float64]:
        """The matrix, `[size, size]`.

        Raises:
            ValueError: there were no samples.
        """
        if self._rows:
            self._multiply()
        if self._sum is None:
            raise ValueError("No samples were added.")
        found: NDArray[np.float64] = self._sum.numpy()
        return found


def rank_by_fisher_set(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Any], loss: Loss, **options: Unpack[Options]
) -> dict[str, Ranking]:
    """Rank choices so that what is gone, taken as one set, costs least; see `rank_by_set`.

    Arguments and errors are `fisher_scores`'.
    """
    products: dict[str, Products] = {}

    def take(name: str, gradients: Tensor) -> None:
        products.setdefault(name, Products()).add(gradients)

    samples = collect(model, groups, batches, loss, take, **options)
    # One by one, so that only one group that had few samples has its matrix at a time.
    return {name: rank_by_set(products.pop(name).total(), samples) for name in list(products)}
