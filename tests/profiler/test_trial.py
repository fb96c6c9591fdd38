"""The trial: removals show numbers that count channels from either end, and freeze what fails."""

import torch
from torch import Tensor, nn

from lut.records import ChannelGroup
from profiler.proof import uneven_removal
from profiler.trial import find_groups
from tests.profiler.patterns import Net, between, conv


def picture() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def group(name: str, size: int) -> ChannelGroup:
    return ChannelGroup(name, size, ())


def test_the_first_trial_removes_both_ends_and_never_all() -> None:
    for size in range(3, 40):
        gone = uneven_removal([group("a", size)], 0)["a"]
        assert {0, size - 1} <= set(gone)
        assert len(gone) == len(set(gone)) < size


def test_groups_of_one_size_lose_different_numbers() -> None:
    removal = uneven_removal([group("a", 32), group("b", 32), group("c", 32)], 0)
    assert len({len(gone) for gone in removal.values()}) == 3


def test_halves_that_only_stay_equal_by_accident_need_a_program() -> None:
    def of_a(model: nn.Module) -> ChannelGroup:
        return next(g for g in find_groups(model, (picture(),)) if g.name == "a")

    tied = of_a(between(lambda net, x: x.view(1, 2, -1, 8, 8).sum(1), 8, 4))
    assert (tied.size, tied.programs) == (4, ())
    model = Net(
        lambda net, x: net.z((net.a(x) + 1).flatten(1)[:, : 64 * 4].unflatten(1, (4, 8, 8))), a=conv(3, 8), z=conv(4, 2)
    )
    assert [program.module for program in of_a(model).programs] == [""]


def test_one_group_of_many_that_fails_is_frozen_alone() -> None:
    class Block(nn.Module):
        def __init__(self, fixed: bool) -> None:
            super().__init__()
            self.fixed, self.up, self.down = fixed, conv(4, 6), conv(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(x)
            if self.fixed and float(y.detach().sum()) < 1e9:  # code that goes by values cannot be a program
                y = y.view(1, 6, 8, 8)
            return x + self.down(y)

    model = nn.Sequential(conv(3, 4), *(Block(fixed=number == 2) for number in range(5)), conv(4, 2))
    frozen = {g.name for g in find_groups(model, (picture(),)) if "does not run" in str(g.frozen_because)}
    assert frozen == {"3.up"}


def test_a_network_that_the_meta_device_cannot_run_is_tried_for_real() -> None:
    model = between(lambda net, x: x * float(x.sum().item() < 1e9), 6, 6)
    assert next(g.size for g in find_groups(model, (picture(),)) if g.name == "a") == 6


def test_large_pictures_and_fixed_sizes_both_work() -> None:
    free = nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 2))
    fixed = nn.Sequential(conv(3, 6), nn.MaxPool2d(16), nn.Flatten(), nn.Linear(6 * 64, 2))
    for model in (free, fixed):
        assert find_groups(model, (torch.randn(1, 3, 128, 128),))[0].size == 6
