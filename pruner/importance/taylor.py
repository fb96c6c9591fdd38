"""First-order Taylor importance: how far the loss of a sample would move without a channel, on average.

    s[c] = 1 / N * sum_n |g[n, c]|        (g: see `pruner/importance/gradients.py`)

Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
arXiv:1611.06440, there divided by each layer's norm, which is left out: groups share a loss, so their scores compare.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from lut.records import ChannelGroup
from pruner.importance.batches import Loss
from pruner.importance.gradients import Options, collect
from pruner.importance.ranking import Ranking, rank_singly


def rank_by_taylor(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Any], loss: Loss, **options: Unpack[Options]
) -> dict[str, Ranking]:
    """Rank choices by the mean size of their first-order effect, in units of the loss; a set's is the sum.

    Arguments and errors are `fisher_scores`'.
    """
    sums: dict[str, Tensor] = {}

    def take(name: str, gradients: Tensor) -> None:
        sizes = gradients.double().abs().sum(0)
        sums[name] = sums[name] + sizes if name in sums else sizes

    samples = collect(model, groups, batches, loss, take, **options)
    return {name: rank_singly((sizes / samples).numpy()) for name, sizes in sums.items()}
