"""Fisher information: how much the loss would grow without a channel, from gradients that training has anyway.

    s[c] = 1 / (2 N) * sum_n g[n, c] ** 2        (g: see `pruner/importance/gradients.py`)

Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from lut.records import ChannelGroup
from profiler.progress import Progress
from pruner.importance.batches import Loss
from pruner.importance.gradients import Options, collect
from pruner.importance.ranking import Ranking, rank_singly


def fisher_scores(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Iterable[Any],
    loss: Loss,
    *,
    part: nn.Module | None = None,
    progress: Progress | None = None,
    max_batches: int | None = None,
) -> dict[str, Tensor]:
    """Score each choice of each prunable group by its empirical Fisher information.

    Picture a mask of ones on a group's channels where they enter a contraction (convolution, linear, product with a
    weight). Layers that share the mask, and calls of a shared layer, add their gradients before these are squared;
    samples stay apart, so the scores do not depend on how samples are batched. Norms and dropout run in eval mode. The
    model, its gradients and the random generators are left as they were. Costs about a forward pass and a backward pass
    without the weights' gradients.

    Args:
        model: what `loss` takes; frozen parameters are fine.
        groups: as `find_groups` gives them; frozen ones are passed over.
        batches: anything that `loss` takes.
        loss: the sum over the batch's samples, or one value a sample.
        part: the part of the model that the groups were found on, where it is not the whole.
        progress: told after every batch.
        max_batches: how many batches to use at most.

    Returns:
        For each prunable group's name `[size]`, float64, on the CPU, never negative, in squared units of the loss.

    Raises:
        TaskError: no batches; a loss that is a mean, is not finite or has no gradient.
        LatpruneError: a group's channels never enter a contraction, or samples cannot be told apart where they do.
    """
    sums: dict[str, Tensor] = {}

    def take(name: str, gradients: Tensor) -> None:
        squares = gradients.double().square().sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    samples = collect(model, groups, batches, loss, take, part=part, progress=progress, max_batches=max_batches)
    return {name: squares / (2 * samples) for name, squares in sums.items()}


def rank_by_fisher(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Any], loss: Loss, **options: Unpack[Options]
) -> dict[str, Ranking]:
    """Rank choices by their own scores, and take for a set's importance the sum of its choices'.

    Arguments and errors are `fisher_scores`'.
    """
    scores = fisher_scores(model, groups, batches, loss, **options)
    return {name: rank_singly(found.numpy()) for name, found in scores.items()}
