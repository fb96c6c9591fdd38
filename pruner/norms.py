"""Measures the running statistics of batch norms anew: of modules, of functions, and inside of programs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lut.errors import TaskError
from pruner.importance.batches import loss_of
from pruner.placement import choose_device, in_single, moved, placed
from pruner.seeds import seeded
from pruner.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reestimated:
    """What was measured anew.

    Attributes:
        norms: names of the modules whose running statistics were.
        missed: names of those that the loss does not run in eval mode, or that are no batch norms; as before.
        batches: how many batches were used.
    """

    norms: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    batches: int = 0


def reestimate_norms(
    model: nn.Module, task: Task, *, seed: int = 0, max_batches: int = 50, device: str | None = None
) -> Reestimated:
    """Measure BatchNorm's statistics anew, in place, over one epoch's batches (at most `max_batches`).

    After channels have gone, what reaches the later norms has other means and variances. Each norm normalises with its
    batch's own statistics meanwhile, as in training; its running ones become mean and variance of all that it got, so
    that batches count by their size. It is found by its operation, not by its class: norms that a program runs, and
    those called as functions, are measured like any other.

    A network without such norms is left as it is, in eval mode. Costs forward passes only.

    Args:
        model: changed; in eval mode afterwards, where it was.
        task: with `loss` and `train_batches`.
        seed: of shuffling.
        max_batches: how many batches to use at most.
        device: where to run; for None as `finetune`.

    Raises:
        TaskError: the task lacks a function, gives no batch, or its loss is not finite.
        PlacementError: there is no such device.
    """
    model.eval()
    owners = {name: module for name, module in model.named_modules() if module._buffers.get("running_mean") is not None}
    if not owners:
        return Reestimated()
    task.require("loss", "train_batches")
    assert task.loss is not None
    assert task.train_batches is not None
    place = choose_device(model, device)
    number = 0
    with placed([model], place):
        moments = {id(module._buffers["running_mean"]): _Moments() for module in owners.values()}
        with torch.no_grad(), seeded(seed):
            for number, batch in enumerate(islice(task.train_batches(), max_batches), start=1):
                with _Measuring(moments):
                    loss_of(model, moved(batch, place) if place.type != "cpu" else batch, task.loss, number)
        if not number:
            raise TaskError(
                f"{task.source or task.name}: train_batches() gives no batch. It is called again and again, and each "
                "time has to begin anew."
            )
        found = {name: moments[id(module._buffers["running_mean"])] for name, module in owners.items()}
        for name, module in owners.items():
            if found[name].count:
                _write(module, found[name], number)
        model.eval()
    missed = tuple(name for name in owners if not found[name].count)
    if missed:
        log.warning(
            "the running statistics of %s are as before: the loss does not run %s as a batch norm in eval mode",
            ", ".join(missed[:5]) + (" …" if len(missed) > 5 else ""),
            "it" if len(missed) == 1 else "them",
        )
    return Reestimated(tuple(name for name in owners if found[name].count), missed, number)


def _write(module: nn.Module, moments: "_Moments", batches: int) -> None:
    mean, variance, tracked = (
        module._buffers.get(name) for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    with torch.no_grad():
        assert mean is not None
        mean.copy_(moments.mean)
        if variance is not None:
            variance.copy_(moments.squares / max(moments.count - 1, 1))
        if tracked is not None:
            # A norm without momentum goes on averaging from here.
            tracked.fill_(batches)


@dataclass
class _Moments:
    """Mean and sum of squared differences from it of all values of each channel, in double precision on the CPU."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Take in a batch, `[N, C, ...]`.

        Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances.
        """
        count = values.numel() // values.shape[1]
        if not count:
            return
        dimensions = [dimension for dimension in range(values.dim()) if dimension != 1]
        variance, mean = (part.cpu().double() for part in torch.var_mean(in_single(values), dimensions, correction=0))
        total = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + variance * count + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


class _Measuring(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs batch norms on their batch's statistics, and takes in what those of known running means are given."""

    def __init__(self, moments: Mapping[int, _Moments]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments = moments

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if "batch_norm" in func._schema.name:
            names = [argument.name for argument in func._schema.arguments]
            given.update(zip(names, args, strict=False))
            moments = self.moments.get(id(given.get("running_mean")))
            if moments is not None:
                moments.add(given["input"])
                epsilon = given["eps"] if "eps" in given else given["epsilon"]
                made = torch.native_batch_norm(
                    given["input"], given.get("weight"), given.get("bias"), None, None, True, 0.0, epsilon
                )[0]
                others = len(func._schema.returns) - 1
                return (made, *(made.new_empty(0) for _ in range(others))) if others else made
        return func(*args, **(kwargs or {}))
