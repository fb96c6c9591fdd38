"""Train a pruned network on, so that it wins back what it lost, and tell how good it is."""

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lut.errors import TaskError
from profiler.progress import Event, Progress, silent
from pruner.importance.batches import count_samples, loss_of
from pruner.task import Task

LEARNING_RATE = 2e-3
"""The highest. `tasks/digits.py` at a tenth of its weights is within a point again after 3 epochs at 1e-3 to 6e-3."""
WEIGHT_DECAY = 1e-2
LARGEST_GRADIENT = 1.0
"""Norm to which the gradient of the mean loss is clipped."""
WARMUP = 0.05
"""Share of the training in which the learning rate rises."""

AfterEpoch = Callable[[int, nn.Module, torch.optim.Optimizer], None]


def finetune(
    model: nn.Module,
    task: Task,
    *,
    epochs: int,
    seed: int = 0,
    lr: float | None = None,
    progress: Progress | None = None,
    after_epoch: AfterEpoch | None = None,
    first_epoch: int = 0,
) -> None:
    """Train a network in place with the task's own trainer, or else with AdamW on a rising and falling learning rate.

    Each epoch seeds the global generators anew by `seed` and its number, so that a training taken up again at
    `first_epoch` sees the batches that it would have seen (the optimizer's averages begin anew).

    Args:
        model: changed; in eval mode afterwards.
        task: with `loss` and `train_batches`, or with `train`.
        epochs: of the whole training; 0 does nothing.
        seed: of shuffling and dropout.
        lr: the highest learning rate.
        progress: told after every batch.
        after_epoch: called with the number of epochs finished, the model and the optimizer.
        first_epoch: how many epochs were finished before.

    Raises:
        TaskError: the task lacks a function, gives no batch, or its loss is not finite.
    """
    if epochs <= first_epoch:
        return
    if task.train is not None:
        torch.manual_seed(seed)
        task.train(model, epochs)
        model.eval()
        return
    task.require("loss", "train_batches")
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=lr if lr is not None else LEARNING_RATE,
    )
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    length = _batches_in_epoch(task)
    for epoch in range(first_epoch, epochs):
        torch.manual_seed(seed * 100_003 + epoch)
        model.train()
        steps = range(epoch * length, (epoch + 1) * length)
        _train_epoch(model, task, optimizer, steps, epochs * length, progress or silent)
        if after_epoch is not None:
            after_epoch(epoch + 1, model, optimizer)
    model.eval()


def rate_at(progress: float) -> float:
    """The learning rate over its highest, after this share of the training: a short rise, then half a cosine to 0."""
    if progress < WARMUP:
        return (progress + 0.1 * WARMUP) / (1.1 * WARMUP)
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def _batches_in_epoch(task: Task) -> int:
    """How many batches an epoch has; where they have no length, they are gone through once."""
    batches = _batches(task)
    length = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    if not length:
        raise TaskError(f"{task.source or task.name}: train_batches() gives no batch.")
    return length


def _batches(task: Task) -> Iterable[Any]:
    assert task.train_batches is not None
    return task.train_batches()


def _train_epoch(
    model: nn.Module, task: Task, optimizer: torch.optim.Optimizer, steps: range, total: int, progress: Progress
) -> None:
    assert task.loss is not None
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, batch in enumerate(_batches(task)):
        step = steps.start + number
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(min(step / total, 1.0))
        value = loss_of(model, batch, task.loss, number + 1)
        mean = value.sum() / count_samples(batch, value)
        if not mean.requires_grad:
            raise TaskError("loss() has no gradient: does it run under no_grad, or not use the model?")
        optimizer.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT)
        optimizer.step()
        progress(Event("fine-tuning", min(step + 1, total), total, f"loss {float(mean.detach()):.3g}"))


def reestimate_norms(model: nn.Module, task: Task, *, seed: int = 0, max_batches: int = 50) -> None:
    """Measure BatchNorm's statistics anew, in place, as averages over one epoch's batches (at most `max_batches`).

    After channels have gone, what reaches the later norms has other means and variances. A network without such norms
    is left as it is, in eval mode. Costs forward passes only.

    Raises:
        TaskError: the task lacks `loss` or `train_batches`.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if norms:
        task.require("loss", "train_batches")
        assert task.loss is not None
        momenta = [norm.momentum for norm in norms]
        model.eval()
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for number, batch in enumerate(islice(_batches(task), max_batches), start=1):
                    loss_of(model, batch, task.loss, number)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    model.eval()


def evaluate(task: Task, model: nn.Module) -> dict[str, float]:
    """The task's own figures of a model, checked; the first is the one shown, higher is better.

    Raises:
        TaskError: the task has no `evaluate`, or it gives no finite numbers by name.
    """
    task.require("evaluate")
    assert task.evaluate is not None
    who = task.source or task.name
    model.eval()
    found = task.evaluate(model)
    model.eval()
    if not isinstance(found, Mapping) or not found:
        raise TaskError(f'{who}: evaluate() gives {found!r}; figures by name are meant, such as {{"top1": 0.93}}.')
    figures = {}
    for name, value in found.items():
        try:
            figures[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise TaskError(f"{who}: evaluate() gives {value!r} as {name!r}, which is no number.") from error
        if not math.isfinite(figures[str(name)]):
            raise TaskError(f"{who}: evaluate() gives {value!r} as {name!r}: a finite number is meant.")
    return figures
