"""Gradients of a mask of ones on each group's channels, sample by sample, from one forward and one backward pass.

    g[n, c] = sum over consuming layers, calls and positions of A * dL/dA        (of sample n, at the layers' inputs)

Every importance that looks at the loss is made of these numbers; what is kept of them is the importance's own matter.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, TaskError
from lut.records import ChannelGroup
from profiler.progress import Event, Progress, silent
from profiler.undisturbed import undisturbed
from pruner.importance.batches import Loss, SumCheck, count_samples, loss_of
from pruner.importance.listening import Heard, Listening
from pruner.importance.owners import Owners

STRIP = 2**18
"""Elements multiplied at once on a CPU: products of 1 MB are summed before they leave the cache. Products of a whole
activation go to memory and come back, and what einsum makes of it, a batch of 1×1 matrix products, is as slow."""


class Options(TypedDict, total=False):
    """What every importance may be told besides.

    Attributes:
        part: the part of the model that the groups were found on, where it is not the whole.
        progress: told after every batch.
        max_batches: how many batches to use at most.
    """

    part: nn.Module | None
    progress: Progress | None
    max_batches: int | None


def collect(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Iterable[Any],
    loss: Loss,
    take: Callable[[str, Tensor], None],
    **options: Unpack[Options],
) -> int:
    """Hand out `g` of every prunable group, batch by batch.

    Norms and dropout run in eval mode. The model, its gradients and the random generators are left as they were. Costs
    a forward pass and a backward pass without the weights' gradients for each batch, and once three batches' forward
    passes to see that the loss is a sum.

    Args:
        model: what `loss` takes; frozen parameters are fine.
        groups: as `find_groups` gives them; frozen ones are passed over.
        batches: anything that `loss` takes.
        loss: the sum over the batch's samples, or one value a sample.
        take: given a group's name and its `g` of one batch, `[N, size]`, at least float32, on the CPU: a view, to be
            copied if it is kept.
        options: see `Options`.

    Returns:
        How many samples there were.

    Raises:
        TaskError: no batches; a loss that is a mean, is not finite or has no gradient.
        LatpruneError: a group's channels never enter a contraction, or samples cannot be told apart where they do.
    """
    part, max_batches = options.get("part"), options.get("max_batches")
    progress = options.get("progress") or silent
    owners = Owners(model if part is None else part, groups)
    if not owners.total:
        return 0
    met = torch.zeros(owners.total, dtype=torch.bool)
    check = SumCheck()
    samples = done = 0
    total = len(batches) if isinstance(batches, Sized) else None
    if max_batches is not None:
        total = min(total, max_batches) if total is not None else max_batches
    with undisturbed(model), weights_at_rest(model), torch.enable_grad():
        for done, batch in enumerate(islice(batches, max_batches), start=1):
            model.eval()
            check(model, batch, loss)
            gradients, seen = mask_gradients(model, batch, loss, owners, done)
            if not bool(torch.isfinite(gradients).all()):
                raise TaskError(f"The gradients of loss() are not finite on batch {done}.")
            for name, choices in owners.ranges.items():
                take(name, gradients[:, choices.start : choices.stop])
            met |= seen
            samples += len(gradients)
            progress(Event("scoring channels", done, total))
    if not done:
        raise TaskError("train_batches() gave no batch: scores need some.")
    missed = [name for name, choices in owners.ranges.items() if not bool(met[list(choices)].all())]
    if missed:
        raise LatpruneError(
            f"The loss never meets the channels of {', '.join(missed[:5])}{' …' if len(missed) > 5 else ''} in a layer "
            f"that takes them in, so they cannot be scored. Keep them whole: --freeze {missed[0]}"
        )
    return samples


@contextlib.contextmanager
def weights_at_rest(model: nn.Module) -> Iterator[None]:
    """Ask for no weight's gradient: the mask's gradients need none, and a third of the work is saved."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def mask_gradients(model: nn.Module, batch: Any, loss: Loss, owners: Owners, number: int = 1) -> tuple[Tensor, Tensor]:
    """One batch's `g` of all choices, from one forward and one backward pass.

    Weights that ask for gradients get theirs as in any backward pass, so that scores can be taken while a network
    trains; see `weights_at_rest`. No activation is held that a plain backward pass would not hold, nor longer.

    Args:
        model: runs in the modes that it is in.
        batch: what `loss` takes.
        loss: the sum over the batch's samples, or one value a sample.
        owners: of the groups.
        number: of the batch, for errors.

    Returns:
        `[N, choices]` on the CPU, in the loss's type and at least float32, and `[choices]`, which choices were met.

    Raises:
        TaskError: the loss is not finite, has no gradient, or does not fit the batch.
        LatpruneError: samples cannot be told apart where channels enter.
    """
    gradients = torch.zeros(0)
    heard_of: dict[int, Tensor] = {}

    def listener(heard: Heard) -> None:
        entering = entering_gradients(heard, len(gradients)).to(gradients)
        gradients.index_add_(1, heard.owner.to(gradients.device), entering)
        heard_of[id(heard.owner)] = heard.owner

    with Listening(owners, listener):
        value = loss_of(model, batch, loss, number)
        if not value.requires_grad:
            raise TaskError("loss() has no gradient: does it run under no_grad, or not use the network?")
        samples = count_samples(batch, value)
        wide = torch.promote_types(value.dtype, torch.float32)
        gradients = torch.zeros(samples, owners.total + 1, dtype=wide, device=value.device)
        torch.autograd.backward([value.sum()])
    met = torch.zeros(owners.total + 1, dtype=torch.bool)
    for owner in heard_of.values():
        met[owner] = True
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
        `[N, channels]`, at least float32.

    Raises:
        LatpruneError: no dimension holds the samples.
    """
    entered, gradient, channels = heard.entered, heard.gradient, heard.channels
    second = not heard.sliding and entered.dim() > 2 and channels != 1 and entered.shape[1] == samples
    rows = 1 if second and (heard.sequence_first or entered.shape[0] != samples) else 0
    if channels == rows or entered.dim() < 2 or entered.shape[rows] % samples:
        raise LatpruneError(
            f"A layer takes in {list(entered.shape)}, where {samples} samples cannot be told apart. Keep out of the "
            "pruning what it takes in, with --freeze and the layer's name."
        )
    products = _sum_products(entered, gradient, rows, channels)
    if len(products) == samples:
        return products
    if heard.sequence_first:
        return products.reshape(-1, samples, products.shape[1]).sum(0)
    return products.reshape(samples, -1, products.shape[1]).sum(1)


def _sum_products(entered: Tensor, gradient: Tensor, rows: int, channels: int) -> Tensor:
    """The sum of products over all dimensions but two, `[rows, channels]`."""
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    if (rows, channels) == (0, 1) and entered.is_cpu and entered.is_contiguous() and gradient.is_contiguous():
        shape = entered.shape
        left, right = entered.view(shape[0] * shape[1], -1), gradient.view(shape[0] * shape[1], -1)
        if left.numel() <= STRIP:
            return (left * right).sum(1).view(shape[:2])
        lines = max(1, STRIP // left.shape[1])
        strips = zip(torch.split(left, lines), torch.split(right, lines), strict=True)
        return torch.cat([(one * other).sum(1) for one, other in strips]).view(shape[:2])
    others = [d for d in range(entered.dim()) if d not in {rows, channels}]
    products = entered * gradient
    products = products.sum(others) if others else products
    return products if rows < channels else products.t()
