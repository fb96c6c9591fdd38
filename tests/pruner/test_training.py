"""Fine-tuning lowers the loss, repeats itself, and can be taken up again."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lut.errors import TaskError
from profiler.progress import Event
from pruner.task import Task
from pruner.training import evaluate, finetune, rate_at, reestimate_norms
from tests.pruner.networks import Batch, ResidualNet, batches, build, loss


def train_batches() -> Iterator[Batch]:
    images, labels = batches(64)[0]
    for chosen in torch.randperm(64).split(16):
        yield images[chosen], labels[chosen]


def task(**changes: Any) -> Task:
    functions: dict[str, Any] = {"train_batches": train_batches, "loss": loss}
    return Task("t", lambda: build(ResidualNet), lambda: (), **(functions | changes))


def total(model: nn.Module) -> float:
    with torch.no_grad():
        return float(loss(model, batches(64)[0]).mean())


def test_fine_tuning_lowers_the_loss_and_ends_in_eval_mode() -> None:
    model = build(ResidualNet)
    before = total(model)
    events: list[Event] = []
    finetune(model, task(), epochs=10, lr=1e-2, progress=events.append)
    assert total(model) < before - 0.1
    assert not model.training
    assert (events[-1].done, events[-1].total) == (40, 40)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    found = []
    for seed in (0, 0, 1):
        model = build(ResidualNet)
        finetune(model, task(), epochs=2, seed=seed)
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_training_taken_up_again_does_the_remaining_epochs() -> None:
    finished = []

    def note(epoch: int, _model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        finished.append(epoch)

    finetune(build(ResidualNet), task(), epochs=3, first_epoch=1, after_epoch=note)
    assert finished == [2, 3]
    finetune(nn.Identity(), task(), epochs=3, first_epoch=3)


def test_the_users_own_trainer_is_called_instead() -> None:
    called = []
    finetune(nn.Identity(), task(train=lambda _model, epochs: called.append(epochs), loss=None), epochs=4)
    assert called == [4]


def test_frozen_weights_stay() -> None:
    model = build(ResidualNet)
    model.stem.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    before = model.stem.weight.clone()  # type: ignore[union-attr, operator]
    finetune(model, task(), epochs=1)
    assert torch.equal(model.stem.weight, before)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": None}, r"lacks loss\(\)"),
        ({"train_batches": list}, "no batch"),
        ({"loss": lambda model, batch: loss(model, batch) * float("inf")}, "inf on batch 1"),
        ({"loss": lambda model, batch: loss(model, batch).detach()}, "no gradient"),
    ],
)
def test_a_task_that_cannot_be_trained_says_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        finetune(build(ResidualNet), task(**changes), epochs=1)


def test_the_learning_rate_rises_shortly_and_falls_to_nothing() -> None:
    rates = [rate_at(step / 100) for step in range(101)]
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates.index(max(rates)) == 5
    assert 0 < rates[0] < 0.2
    assert rates[-1] == pytest.approx(0)


def test_norms_are_measured_anew_on_the_training_batches() -> None:
    model = build(ResidualNet)
    with torch.no_grad():
        inside = model.stem(batches(64)[0][0])  # type: ignore[operator]
    reestimate_norms(model, task())
    torch.testing.assert_close(model.norm.running_mean, inside.mean((0, 2, 3)))  # type: ignore[union-attr, arg-type]
    assert model.norm.momentum == 0.1  # type: ignore[union-attr]
    assert not model.training
    reestimate_norms(nn.Linear(1, 1), task(loss=None))


def test_figures_are_floats_in_their_order() -> None:
    found = evaluate(task(evaluate=lambda _model: {"top1": torch.tensor(0.5), "top5": 1}), nn.Identity())
    assert found == {"top1": 0.5, "top5": 1.0}
    assert list(found) == ["top1", "top5"]


@pytest.mark.parametrize("given", [{}, 0.5, {"top1": "good"}, {"top1": float("nan")}, {"top1": Tensor([1, 2])}])
def test_figures_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(TaskError, match=r"evaluate\(\) gives"):
        evaluate(task(evaluate=lambda _model: given), nn.Identity())
