"""Fine-tunes what a round left, and keeps what was reached after each epoch."""

import logging

import torch
from torch import nn

from profiler.progress import Progress
from pruner.averages import optimizer_tensors, without_optimizer
from pruner.norms import reestimate_norms
from pruner.request import PruneConfig
from pruner.rundir import load_weights, persistent_tensors
from pruner.runstate import RunState
from pruner.task import Task
from pruner.training import finetune

log = logging.getLogger(__name__)


def epochs_of(number: int, config: PruneConfig) -> int:
    """A round's share of the epochs; where they cannot be shared out evenly, the last rounds have more.

    Args:
        number: of the round, counted from 0.
        config: of the run.
    """
    each, more = divmod(config.epochs, config.rounds)
    return each + (number >= config.rounds - more)


def tune(
    model: nn.Module,
    number: int,
    *,
    task: Task,
    teacher: nn.Module,
    config: PruneConfig,
    state: RunState,
    progress: Progress,
) -> None:
    """Measure the norms' statistics anew and train on, from where an interrupted run stopped.

    Args:
        model: changed; in eval mode afterwards.
        number: of the round, counted from 0.
        task: of the run.
        teacher: the unpruned network; it is asked where the run distils.
        config: of the run; its epochs are shared out over the rounds.
        state: keeps weights and the optimizer's averages after each epoch.
        progress: told after every batch.
    """
    epochs = epochs_of(number, config)
    stage = f"round {number + 1} tuned"
    done = state.payload(stage) if state.has(stage) else {"epochs": 0, "finished": False}
    kept = state.tensors(stage) if state.has(stage) else {}
    if kept:
        load_weights(model, without_optimizer(kept), f"the checkpoint of {stage}")
    elif task.loss is not None and task.train_batches is not None:
        reestimate_norms(model, task, seed=config.seed, device=config.train_device)
    else:
        log.warning("without loss() and train_batches() the norms' running statistics are not measured anew")
    if done["finished"]:
        return

    def keep(epochs: int, tuned: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        tensors = {**persistent_tensors(tuned), **optimizer_tensors(optimizer, tuned)}
        state.complete(stage, {"epochs": epochs, "finished": False}, tensors)

    finetune(
        model,
        task,
        epochs=epochs,
        seed=config.seed + number,
        first_epoch=int(done["epochs"]),
        averages=kept,
        after_epoch=keep,
        teacher=teacher if config.distill else None,
        distill=config.distill,
        device=config.train_device,
        mixed_precision=config.mixed_precision,
        progress=progress,
    )
    model.eval()
    state.complete(stage, {"epochs": epochs, "finished": True}, persistent_tensors(model))
