"""Fisher information: how much the loss would grow without a channel, from gradients that training has anyway.

    g[n, c] = sum over consuming layers, calls and positions of A * dL/dA        (of sample n, at the layers' inputs)
    s[c]    = 1 / (2 N) * sum_n g[n, c] ** 2

Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, TaskError
from lut.records import ChannelGroup
from profiler.progress import Event, Progress, silent
from profiler.trace import undisturbed
from pruner.importance.batches import Loss, SumCheck, count_samples, loss_of
from pruner.importance.contractions import Heard, Listening, Owners


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
    owners = Owners(model if part is None else part, groups)
    if not owners.total:
        return {}
    sums = torch.zeros(owners.total, dtype=torch.float64)
    met = torch.zeros(owners.total, dtype=torch.bool)
    check = SumCheck()
    samples = done = 0
    total = len(batches) if isinstance(batches, Sized) else None
    if max_batches is not None:
        total = min(total, max_batches) if total is not None else max_batches
    with undisturbed(model), _weights_at_rest(model), torch.enable_grad():
        for done, batch in enumerate(islice(batches, max_batches), start=1):
            model.eval()
            check(model, batch, loss)
            gradients, seen = _mask_gradients(model, batch, loss, owners, done)
            if not bool(torch.isfinite(gradients).all()):
                raise TaskError(f"The gradients of loss() are not finite on batch {done}.")
            sums += gradients.square().sum(0)
            met |= seen
            samples += len(gradients)
            (progress or silent)(Event("scoring channels", done, total))
    if not done:
        raise TaskError("train_batches() gave no batch: Fisher scores need some.")
    missed = [name for name, choices in owners.ranges.items() if not bool(met[list(choices)].all())]
    if missed:
        raise LatpruneError(
            f"The loss never meets the channels of {', '.join(missed[:5])}{' …' if len(missed) > 5 else ''} in a layer "
            f"that takes them in, so they cannot be scored. Keep them whole: --freeze {missed[0]}"
        )
    scores = sums / (2 * samples)
    return {name: scores[choices.start : choices.stop].clone() for name, choices in owners.ranges.items()}


@contextlib.contextmanager
def _weights_at_rest(model: nn.Module) -> Iterator[None]:
    """Ask for no weight's gradient: Fisher scores need none, and half of the backward pass is saved."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _mask_gradients(
    model: nn.Module, batch: Any, loss: Loss, owners: Owners, number: int
) -> tuple[Tensor, Tensor]:
    """One batch's `g`, `[N, choices]` float64, and which choices were met."""
    gradients = torch.zeros(0)
    met = torch.zeros(owners.total + 1, dtype=torch.bool)

    def listener(heard: Heard) -> None:
        entering = entering_gradients(heard, len(gradients)).to(gradients)
        gradients.index_add_(1, heard.owner.to(gradients.device), entering)
        met[heard.owner] = True

    with Listening(owners, listener):
        value = loss_of(model, batch, loss, number)
        if not value.requires_grad:
            raise TaskError("loss() has no gradient: does it run under no_grad, or not use the network?")
        samples = count_samples(batch, value)
        gradients = torch.zeros(samples, owners.total + 1, dtype=torch.float64, device=value.device)
        torch.autograd.backward([value.sum()])
    return gradients[:, :-1].cpu(), met[:-1]


def entering_gradients(heard: Heard, samples: int) -> Tensor:
    """The gradient of a mask of ones in front of one contraction.

    With the tensor seen as `[samples, …, channels, …]`:

        g[n, c] = sum over all other dimensions of A * dL/dA

    Args:
        heard: A, dL/dA and where the channels stand. The leading dimension is the samples, each perhaps several times
            in a row (windows); behind a sequence, the second is, or the leading one holds all samples several times.
        samples: N.

    Returns:
        `[N, channels]`.

    Raises:
        LatpruneError: no dimension holds the samples.
    """
    entered, gradient, channels = heard.entered, heard.gradient, heard.contraction.channels
    sliding = heard.contraction.sliding
    second = not sliding and entered.dim() > 2 and channels != 1 and entered.shape[1] == samples
    rows = 1 if second and (heard.sequence_first or entered.shape[0] != samples) else 0
    if channels == rows or entered.dim() < 2 or entered.shape[rows] % samples:
        raise LatpruneError(
            f"A layer takes in {list(entered.shape)}, where {samples} samples cannot be told apart. Keep out of the "
            "pruning what it takes in, with --freeze and the layer's name."
        )
    if rows == 0 and channels == 1 and entered.dim() > 2:
        products = torch.einsum("ncx,ncx->nc", entered.flatten(2), gradient.flatten(2))
    else:
        others = [d for d in range(entered.dim()) if d not in {rows, channels}]
        products = entered * gradient
        products = products.sum(others) if others else products
        products = products if rows < channels else products.t()
    if len(products) == samples:
        return products
    if heard.sequence_first:
        return products.reshape(-1, samples, products.shape[1]).sum(0)
    return products.reshape(samples, -1, products.shape[1]).sum(1)
