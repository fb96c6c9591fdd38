"""Fine-tuning lowers the loss, repeats itself, and can be taken up again."""

import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lut.errors import RunError, TaskError
from profiler.progress import Event
from pruner.averages import optimizer_tensors, without_optimizer
from pruner.task import Task
from pruner.training import evaluate, finetune, rate_at
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


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


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
        found.append(flat(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_plain_training_on_a_cpu_is_adamw_on_the_mean_loss_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    model, expected = build(ResidualNet), build(ResidualNet).train()
    finetune(model, task(), epochs=2, seed=3)
    weights = list(expected.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": 1e-2},
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    for epoch in range(2):
        torch.manual_seed(3 * 100_003 + epoch)
        for number, batch in enumerate(train_batches()):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * rate_at((4 * epoch + number) / 8)
            optimizer.zero_grad()
            (loss(expected, batch).sum() / 16).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_generators_are_put_back_and_batches_may_be_drawn_with_any_of_them() -> None:
    def drawn() -> Iterator[Batch]:
        images, labels = batches(64)[0]
        for _ in range(2):
            yield images[np.random.permutation(64)[:16]], labels[random.sample(range(64), 16)]

    def state() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]

    found = []
    for _ in range(2):
        model = build(ResidualNet)
        before = state()
        finetune(model, task(train_batches=drawn), epochs=1)
        assert state() == before
        np.random.random(3)
        found.append(flat(model))
    assert torch.equal(*found)


def test_a_training_taken_up_again_does_the_remaining_epochs() -> None:
    finished = []

    def note(epoch: int, _model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        finished.append(epoch)

    finetune(build(ResidualNet), task(), epochs=3, first_epoch=1, after_epoch=note)
    assert finished == [2, 3]
    finetune(nn.Identity(), task(), epochs=3, first_epoch=3)


@pytest.mark.parametrize("remembers", [True, False])
def test_with_its_averages_a_training_taken_up_again_ends_as_if_it_had_not_been_interrupted(remembers: bool) -> None:
    kept: dict[str, Tensor] = {}

    def keep(epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if epoch == 2:
            both = model.state_dict() | optimizer_tensors(optimizer, model)
            kept.update({name: tensor.clone() for name, tensor in both.items()})

    whole, resumed = build(ResidualNet), build(ResidualNet)
    finetune(whole, task(), epochs=4, after_epoch=keep)
    resumed.load_state_dict(without_optimizer(kept))
    finetune(resumed, task(), epochs=4, first_epoch=2, averages=kept if remembers else None)
    assert torch.equal(flat(whole), flat(resumed)) == remembers


def test_averages_of_another_network_are_refused() -> None:
    for name in ("optimizer:exp_avg:absent", "optimizer:exp_avg:stem.weight"):
        with pytest.raises(RunError, match="belongs to another model"):
            finetune(build(ResidualNet), task(), epochs=1, averages={name: torch.zeros(2)})


def test_the_users_own_trainer_is_called_instead_with_the_epochs_that_are_left() -> None:
    called = []
    own = task(train=lambda _model, epochs: called.append((epochs, torch.initial_seed())), loss=None)
    finetune(nn.Identity(), own, epochs=4, seed=7)
    finetune(nn.Identity(), own, epochs=4, seed=8, first_epoch=3)
    assert called == [(4, 7), (1, 8)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"teacher": nn.Identity()}, "a teacher"),
        ({"mixed_precision": "bf16"}, "mixed precision"),
        ({"device": "cpu"}, "the device cpu"),
    ],
)
def test_what_the_users_own_trainer_would_not_do_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=rf"its own train.*{said}"):
        finetune(nn.Identity(), task(train=lambda _model, _epochs: None), epochs=1, **asked)
    finetune(nn.Identity(), task(train=lambda _model, _epochs: None), epochs=1, teacher=nn.Identity(), distill=0)


def test_in_bf16_the_loss_falls_and_the_weights_stay_in_single_precision() -> None:
    model = build(ResidualNet).float()
    single = task(train_batches=lambda: ((images.float(), labels) for images, labels in train_batches()))
    types = []
    model.head.register_forward_hook(lambda _module, _args, output: types.append(output.dtype))  # type: ignore[union-attr]
    before = total(model.double())
    model.float()
    types.clear()
    finetune(model, single, epochs=10, lr=1e-2, device="cpu", mixed_precision="bf16")
    assert set(types) == {torch.bfloat16}
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert total(model.double()) < before - 0.1


def test_frozen_weights_stay() -> None:
    model = build(ResidualNet)
    model.stem.weight.requires_grad_(False)  # type: ignore[union-attr]
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


def test_batches_that_can_be_gone_through_only_once_are_refused() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = iter(list(train_batches()))

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[Batch]:
            return self.left

    batches_of_all_epochs = Once()
    with pytest.raises(TaskError, match=r"no batch any more.*begin anew"):
        finetune(build(ResidualNet), task(train_batches=lambda: batches_of_all_epochs), epochs=2)


def test_a_length_that_is_not_that_of_the_batches_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Short(list[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return (self[place] for place in range(2))

    with caplog.at_level("WARNING"):
        finetune(build(ResidualNet), task(train_batches=lambda: Short(train_batches())), epochs=1)
    assert "2 batches where 4 were expected" in caplog.text


def test_the_learning_rate_rises_shortly_and_falls_to_nothing() -> None:
    rates = [rate_at(step / 100) for step in range(101)]
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates.index(max(rates)) == 5
    assert 0 < rates[0] < 0.2
    assert rates[-1] == pytest.approx(0)


def test_figures_are_floats_in_their_order() -> None:
    found = evaluate(task(evaluate=lambda _model: {"top1": torch.tensor(0.5), "top5": 1}), nn.Identity())
    assert found == {"top1": 0.5, "top5": 1.0}
    assert list(found) == ["top1", "top5"]


@pytest.mark.parametrize("given", [{}, 0.5, {"top1": "good"}, {"top1": float("nan")}, {"top1": Tensor([1, 2])}])
def test_figures_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(TaskError, match=r"evaluate\(\) gives"):
        evaluate(task(evaluate=lambda _model: given), nn.Identity())
