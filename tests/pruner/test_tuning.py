"""What fine-tuning of a round does with tasks of all kinds, and how it goes on."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruner.request import PruneConfig
from pruner.runstate import open_run
from pruner.task import Task
from pruner.tuning import epochs_of, tune
from tests.pruner.networks import ResidualNet, batches, build, loss


def tuned(task: Task, folder: Path, number: int = 0, **changes: Any) -> nn.Module:
    model = build(ResidualNet)
    config = PruneConfig(**changes)
    tune(
        model,
        number,
        task=task,
        teacher=build(ResidualNet),
        config=config,
        state=open_run(folder, request={}),
        progress=lambda _: None,
    )
    return model


def test_the_epochs_are_shared_out_over_the_rounds_to_the_users_own_trainer(tmp_path: Path) -> None:
    asked: list[int] = []
    task = Task(
        "t", lambda: build(ResidualNet), lambda: (), lambda: batches(8), loss, train=lambda model, n: asked.append(n)
    )
    for number in range(3):
        tuned(task, tmp_path, number, epochs=5, rounds=3)
    assert asked == [1, 2, 2]


def test_the_last_round_trains_even_where_there_are_more_rounds_than_epochs() -> None:
    assert [epochs_of(number, PruneConfig(epochs=2, rounds=5)) for number in range(5)] == [0, 0, 0, 1, 1]


def test_a_task_that_only_trains_is_tuned_and_told_that_its_norms_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []
    task = Task("t", lambda: build(ResidualNet), lambda: (), train=lambda model, epochs: asked.append(epochs))
    with caplog.at_level(logging.WARNING):
        tuned(task, tmp_path, epochs=2)
    assert asked == [2]
    assert "not measured anew" in caplog.text


def test_the_norms_are_measured_anew_also_where_nothing_is_trained(tmp_path: Path) -> None:
    task = Task("t", lambda: build(ResidualNet), lambda: (), lambda: batches(8), loss)
    model, before = tuned(task, tmp_path, epochs=0), build(ResidualNet)
    names = [name for name, _ in model.named_buffers() if name.endswith("running_mean")]
    assert names
    now, then = dict(model.named_buffers()), dict(before.named_buffers())
    assert all(not torch.equal(now[name], then[name]) for name in names)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters(), strict=True))
    again = dict(tuned(task, tmp_path, epochs=0).named_buffers())
    assert all(torch.equal(now[name], again[name]) for name in names)
