"""Cutting: what is refused, and that the modules' own numbers follow."""

import pytest
import torch
from torch import nn

from lut.records import ChannelGroup
from profiler.cut import cut, zero
from profiler.trial import find_groups
from tests.profiler.patterns import PATTERNS, SelfAttention, conv


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Sequential:
    depthwise = conv(8, 8, 3, groups=8)
    return nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), depthwise, nn.GroupNorm(4, 8), conv(8, 2))


@pytest.fixture
def groups(model: nn.Sequential) -> list[ChannelGroup]:
    return find_groups(model, (picture(),))


def test_the_modules_own_numbers_follow(model: nn.Sequential, groups: list[ChannelGroup]) -> None:
    smaller = cut(model, groups, {"0": [1, 3]})
    assert (smaller[0].in_channels, smaller[0].out_channels) == (3, 4)
    assert smaller[1].num_features == 4
    assert (smaller[3].in_channels, smaller[3].out_channels, smaller[3].groups) == (4, 4, 4)
    assert (smaller[4].num_groups, smaller[4].num_channels) == (2, 4)
    assert (smaller[5].in_channels, smaller[5].out_channels) == (4, 2)
    assert model[3].groups == 8


def test_parts_of_a_group_convolution_stay_when_places_in_them_go() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 6, 3, groups=2), conv(6, 2))
    smaller = cut(model, find_groups(model, (picture(),)), {"1": [0]})
    assert (smaller[1].in_channels, smaller[1].out_channels, smaller[1].groups) == (8, 4, 2)
    assert smaller(picture()).shape == (1, 2, 8, 8)


def test_numbers_of_modules_without_parameters_follow() -> None:
    pattern = PATTERNS["attention by hand"]
    smaller = cut(pattern, find_groups(pattern, (picture(),)), {"m.qkv": [0, 2, 3]})
    attention = smaller.get_submodule("m")
    assert isinstance(attention, SelfAttention)
    assert attention.num_heads == 1
    assert attention.qkv.weight.shape == (6, 8)


def test_a_sharing_copy_keeps_the_tensors_that_lose_nothing() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 4), conv(4, 2))
    groups = find_groups(model, (picture(),))
    assert cut(model, groups, {"1": [0]}, share=True)[0].weight is model[0].weight
    assert cut(model, groups, {"1": [0]})[0].weight is not model[0].weight
    assert zero(model, groups, {"1": [0]}, share=True)[0].weight is model[0].weight
    assert zero(model, groups, {"1": [0]}, share=True)[1].weight is not model[1].weight


@pytest.mark.parametrize(
    ("removal", "message"),
    [
        ({"nothing": [0]}, "no group 'nothing'"),
        ({"0": [4]}, "choices 0 to 3, not 4"),
        ({"0": [0, 1, 2, 3]}, "lose all of its 4"),
        ({"5": [0]}, "is frozen: they reach the network's output"),
    ],
)
def test_removals_that_cannot_be_are_refused(
    model: nn.Sequential, groups: list[ChannelGroup], removal: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cut(model, groups, removal)
