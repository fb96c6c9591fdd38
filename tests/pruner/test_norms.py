"""Running statistics are those of what the norms are given, wherever the norms run; what is not reached stays."""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lut.errors import TaskError
from profiler.program_module import ProgramModule
from pruner.norms import reestimate_norms
from pruner.task import Task
from tests.pruner.networks import ResidualNet, batches, build, loss
from tests.pruner.programs import pruned_split_net

Statistics = tuple[Tensor, Tensor]


def task(*given: Any, of: Callable[[nn.Module, Any], Tensor] = lambda model, batch: model(batch).sum()) -> Task:
    return Task("t", nn.Identity, lambda: (), train_batches=lambda: iter(given), loss=of)


def statistics(values: Tensor) -> Statistics:
    values = values.transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1)


def assert_measured(norm: nn.Module, expected: Statistics) -> None:
    torch.testing.assert_close(norm.running_mean, expected[0])
    torch.testing.assert_close(norm.running_var, expected[1])


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64) * 3 + 1


def test_batches_count_by_their_size() -> None:
    model = build(ResidualNet)
    uneven = batches(40, 3, 21)
    found = reestimate_norms(model, task(*uneven, of=loss))
    with torch.no_grad():
        inside = model.stem(torch.cat([images for images, _ in uneven]))  # type: ignore[operator]
    assert_measured(model.norm, statistics(inside))  # type: ignore[arg-type]
    assert model.norm.momentum == 0.1  # type: ignore[union-attr]
    assert not model.training
    assert (found.norms, found.missed, found.batches) == (("norm", "inner_norm"), (), 3)


def test_later_norms_are_given_what_earlier_ones_make_of_their_batch() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
    values = noise(64, 4)
    reestimate_norms(model, task(values))
    with torch.no_grad():
        inside = model[1](functional.batch_norm(values, None, None, training=True))
    assert_measured(model[2], statistics(inside))


def test_a_network_without_norms_needs_no_loss() -> None:
    assert not reestimate_norms(nn.Linear(1, 1), Task("t", nn.Identity, lambda: ())).norms


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), nn.SyncBatchNorm(4), nn.BatchNorm2d(4, affine=False)],
    ids=["plain", "cumulative", "synchronised", "without weights"],
)
def test_every_kind_of_batch_norm_is_measured_and_goes_on_from_there(norm: nn.Module) -> None:
    values = noise(8, 4, 3, 3)
    reestimate_norms(norm.double(), task(*values.split([5, 3])))
    assert_measured(norm, statistics(values))
    assert norm.num_batches_tracked == 2


def test_a_norm_called_twice_is_measured_over_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x[:, :4]) + self.norm(x[:, 4:])

    model, values = Twice().double(), noise(16, 8)
    reestimate_norms(model, task(values))
    assert_measured(model.norm, statistics(torch.cat(values.split(4, 1))))


def test_a_norm_called_as_a_function_is_measured_also_in_training_or_inference_mode() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(4))
            self.register_buffer("running_var", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)  # type: ignore[arg-type]

    def in_training(model: nn.Module, batch: Tensor) -> Tensor:
        return model.train()(batch).sum()  # type: ignore[no-any-return]

    def in_inference_mode(model: nn.Module, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(batch).sum()  # type: ignore[no-any-return]

    values = noise(16, 4)
    for of in (in_training, in_inference_mode):
        model = Own().double()
        reestimate_norms(model, task(values, of=of))
        assert_measured(model, statistics(values))
        assert not model.training


def test_norms_inside_a_program_are_measured() -> None:
    model, values = copy.deepcopy(pruned_split_net()).double(), noise(32, 5)
    assert isinstance(model.inner, ProgramModule)
    found = reestimate_norms(model, task(values))
    assert found.norms == ("inner.norm",)
    trained = copy.deepcopy(pruned_split_net()).double().train()
    norm = trained.get_submodule("inner.norm")
    for statistic in (norm.running_mean, norm.running_var):
        statistic.zero_()  # type: ignore[operator]
    trained(values)
    # In training a tenth of the batch's own statistics is taken over.
    measured = model.get_submodule("inner.norm")
    torch.testing.assert_close(measured.running_mean, norm.running_mean * 10)  # type: ignore[operator]
    torch.testing.assert_close(measured.running_var, norm.running_var * 10)  # type: ignore[operator]
    assert measured.num_batches_tracked == 1


def test_what_the_loss_does_not_reach_stays_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.ModuleDict(
        {
            "used": nn.BatchNorm1d(4),
            "aside": nn.BatchNorm1d(4),
            "instance": nn.InstanceNorm1d(4, track_running_stats=True),
        }
    ).double()
    model["aside"].running_mean.fill_(7)  # type: ignore[operator]

    def of(model: nn.Module, batch: Tensor) -> Tensor:
        return model["instance"](model["used"](batch)).sum()  # type: ignore[index, no-any-return]

    with caplog.at_level(logging.WARNING):
        found = reestimate_norms(model, task(noise(16, 4, 5), of=of))
    assert (found.norms, found.missed) == (("used",), ("aside", "instance"))
    assert "aside, instance" in caplog.text
    assert bool((model["aside"].running_mean == 7).all())  # type: ignore[union-attr]


def test_after_an_error_the_statistics_are_what_they_were() -> None:
    model, values = nn.BatchNorm1d(4).double(), noise(8, 4)
    with pytest.raises(TaskError, match="nan on batch 2"):
        reestimate_norms(model, task(values, values * float("nan")))
    with pytest.raises(TaskError, match="no batch"):
        reestimate_norms(model, task())
    assert not model.running_mean.any()  # type: ignore[union-attr]


def test_batches_are_drawn_by_the_seed_and_the_generator_is_put_back() -> None:
    def drawn() -> Iterator[Tensor]:
        yield torch.randn(16, 4)

    models = [nn.BatchNorm1d(4) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        state = torch.get_rng_state()
        reestimate_norms(
            model, Task("t", nn.Identity, lambda: (), drawn, lambda model, batch: model(batch).sum()), seed=seed
        )
        assert torch.equal(torch.get_rng_state(), state)
        torch.randn(1)
    means = [model.running_mean for model in models]
    assert torch.equal(means[0], means[1])  # type: ignore[arg-type]
    assert not torch.equal(means[0], means[2])  # type: ignore[arg-type]
