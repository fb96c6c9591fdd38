"""Train a pruned network on, so that it wins back what it lost, and tell how good it is."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lut.errors import TaskError
from profiler.progress import Event, Progress, silent
from pruner.averages import load_optimizer
from pruner.distill import SHARE, Distillation
from pruner.importance.batches import count_samples, loss_of
from pruner.placement import (
    Updates,
    check_precision,
    choose_device,
    in_single,
    moved,
    placed,
    refuse_several_processes,
    updates,
)
from pruner.seeds import seed_all, seeded
from pruner.task import Task

LEARNING_RATE = 2e-3
"""The highest. `tasks/digits.py` at a tenth of its weights is within a point again after 3 epochs at 1e-3 to 6e-3."""
WEIGHT_DECAY = 1e-2
WARMUP = 0.05
"""Share of the training in which the learning rate rises."""

log = logging.getLogger(__name__)

AfterEpoch = Callable[[int, nn.Module, torch.optim.Optimizer], None]


def check_training(
    task: Task, *, teacher: bool = False, distill: float = SHARE, device: str | None = None, mixed_precision: str = "no"
) -> None:
    """Make sure that a task can be trained as is asked, before hours of other work.

    Args:
        task: what is to be trained.
        teacher: whether there is one.
        distill: as of `finetune`.
        device: the same.
        mixed_precision: the same.

    Raises:
        TaskError: the task trains by its own `train`, which knows nothing of what is asked; or it lacks a function.
        PlacementError: there is no such precision or device, or several processes were started.
        ValueError: `distill` is not in 0 … 1.
    """
    if not 0 <= distill <= 1:
        raise ValueError(f"distill is the teacher's share, from 0 to 1, not {distill}")
    refuse_several_processes()
    place = choose_device(nn.Identity(), device)
    check_precision(mixed_precision, place)
    if task.train is None:
        task.require("loss", "train_batches")
        return
    asked = {
        "a teacher": teacher and distill > 0,
        f"mixed precision ({mixed_precision})": mixed_precision != "no",
        f"the device {device}": device is not None,
    }
    unknown = [name for name, is_asked in asked.items() if is_asked]
    if unknown:
        raise TaskError(
            f"{task.source or task.name} trains by its own train(model, epochs), which knows nothing of "
            f"{' and '.join(unknown)}.\nDo that in train(), or leave train() out of the task"
        )


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
    averages: Mapping[str, Tensor] | None = None,
    teacher: nn.Module | None = None,
    distill: float = SHARE,
    device: str | None = None,
    mixed_precision: str = "no",
) -> None:
    """Train a network in place with the task's own trainer, or else with AdamW on a rising and falling learning rate.

    Each epoch seeds the global generators (Python's, numpy's and PyTorch's) anew by `seed` and its number, so that a
    training taken up again at `first_epoch` sees the batches that it would have seen; with `averages` it ends with the
    weights of one that was not interrupted (but for fp16, whose loss scale begins anew). The generators are put back at
    the end. What a task draws from generators of its own is its own affair.

    Args:
        model: changed; in eval mode afterwards, on the device where it was.
        task: with `loss` and `train_batches`, or with `train`, which gets the epochs that are left and places the model
            itself.
        epochs: of the whole training; 0 does nothing.
        seed: of shuffling and dropout.
        lr: the highest learning rate.
        progress: told after every batch.
        after_epoch: called with the number of epochs finished, the model and the optimizer.
        first_epoch: how many epochs were finished before.
        averages: what `optimizer_tensors` gave after `first_epoch` epochs.
        teacher: another model of the task, such as the unpruned one, whose outputs are learnt as well; left as it is.
        distill: the teacher's share in what is trained for, the rest being the task's loss.
        device: where to train, such as "cuda:1"; for None where the model is, or on a GPU if it is on the CPU beside
            one. Batches are moved there.
        mixed_precision: "no", "fp16" (on a GPU) or "bf16".

    Raises:
        TaskError: the task lacks a function, gives no batch, its loss is not finite, or its own trainer knows nothing
            of what is asked.
        PlacementError: the machine cannot do it so.
        RunError: `averages` belong to another network.
    """
    if epochs <= first_epoch:
        return
    check_training(task, teacher=teacher is not None, distill=distill, device=device, mixed_precision=mixed_precision)
    if task.train is not None:
        _train_by_task(model, task, epochs - first_epoch, seed)
        return
    place = choose_device(model, device)
    lesson, models = None, [model]
    if teacher is not None and distill:
        lesson, models = Distillation(task, model, teacher), [model, teacher]
    with placed(models, place), seeded(seed):
        optimizer = _optimizer(model, LEARNING_RATE if lr is None else lr)
        load_optimizer(optimizer, model, averages or {})
        length = _batches_in_epoch(task)
        with updates(models, optimizer, device=place, mixed_precision=mixed_precision) as stepping:
            training = _Training(model, task, stepping, epochs, length, place, lesson, distill, progress or silent)
            for epoch in range(first_epoch, epochs):
                seed_all(seed * 100_003 + epoch)
                model.train()
                training.epoch(epoch)
                if after_epoch is not None:
                    after_epoch(epoch + 1, model, optimizer)
    model.eval()


def _train_by_task(model: nn.Module, task: Task, epochs: int, seed: int) -> None:
    assert task.train is not None
    homes = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    with seeded(seed):
        task.train(model, epochs)
    if len(homes) == 1:
        model.to(homes.pop())
    model.eval()


def _optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=lr,
    )
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


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


@dataclass(frozen=True)
class _Training:
    """What stays the same from epoch to epoch."""

    model: nn.Module
    task: Task
    updates: Updates
    epochs: int
    length: int
    device: torch.device
    distillation: Distillation | None
    share: float
    progress: Progress

    def epoch(self, epoch: int) -> None:
        """Go through the batches once, after so many epochs."""
        steps, done = self.epochs * self.length, 0
        for done, batch in enumerate(_batches(self.task), start=1):
            step = min(epoch * self.length + done, steps)
            for group in self.updates.optimizer.param_groups:
                group["lr"] = group["peak"] * rate_at((step - 1) / steps)
            mean, said = self._loss(batch if self.device.type == "cpu" else moved(batch, self.device), done)
            self.updates.step(mean)
            self.progress(Event("fine-tuning", step, steps, said))
        who = self.task.source or self.task.name
        if not done:
            raise TaskError(
                f"{who}: train_batches() gives no batch any more. It is called again and again, and each time has to "
                "begin anew."
            )
        if done != self.length:
            log.warning(
                "%s: an epoch had %d batches where %d were expected, which the learning rate goes by",
                who,
                done,
                self.length,
            )

    def _loss(self, batch: Any, number: int) -> tuple[Tensor, str]:
        """What is trained for, as a mean over the batch's samples, and in words."""
        assert self.task.loss is not None
        listening = contextlib.nullcontext() if self.distillation is None else self.distillation.listening()
        with self.updates.autocast():
            with listening as lesson:
                value = loss_of(self.model, batch, self.task.loss, number)
            mean = in_single(value).sum() / count_samples(batch, value)
            if not mean.requires_grad:
                raise TaskError("loss() has no gradient: does it run under no_grad, or not use the model?")
            said = f"loss {float(mean.detach()):.3g}"
            if self.distillation is None or lesson is None:
                return mean, said
            distance = self.distillation.distance(lesson, batch)
            said += f", {float(distance.detach()):.3g} from the teacher"
            return (1 - self.share) * mean + self.share * distance, said


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
