"""Structural patterns one by one: what each group's size is, or the word that its reason holds."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from lut.errors import LatpruneError
from lut.records import ChannelGroup
from profiler.awake import awaken
from profiler.cut import cut, zero
from profiler.groups import read_structure
from profiler.outputs import relative_difference
from profiler.proof import EXACT
from profiler.trial import find_groups
from tests.profiler.patterns import EXPECTED, PATTERNS, conv, inputs_of

BORDERS = {"it is the network's input", "they reach the network's output"}


@cache
def found(name: str) -> list[ChannelGroup]:
    return find_groups(PATTERNS[name], inputs_of(name))


@pytest.mark.parametrize("name", PATTERNS)
def test_groups_are_those_that_a_person_finds(name: str) -> None:
    groups = [group for group in found(name) if group.frozen_because not in BORDERS]
    assert {group.name for group in groups} == set(EXPECTED[name])
    for group in groups:
        expected = str(EXPECTED[name][group.name])
        if expected.removeprefix("~").isdigit():
            found_size = ("~" if group.approximate_because else "") + str(group.size)
            assert (found_size, group.frozen_because) == (expected, None), group.name
        else:
            assert expected in str(group.frozen_because), group.name


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_prunable_runs_and_is_the_masked_network(name: str) -> None:
    groups = found(name)
    soft = {group.name for group in groups if group.approximate_because}
    effects = []
    for seed in range(4):
        model = awaken(deepcopy(PATTERNS[name]).double().eval(), seed)
        inputs = inputs_of(name, torch.float64)
        generator = np.random.default_rng(seed)
        removal = {
            group.name: generator.choice(group.size, int(generator.integers(1, group.size)), replace=False).tolist()
            for group in groups
            if group.size > 1
        }
        exact = {group: gone for group, gone in removal.items() if group not in soft}
        with torch.no_grad():
            cut(model, groups, removal)(*inputs)
            masked, shrunk = (side(model, groups, exact)(*inputs) for side in (zero, cut))
            assert relative_difference(shrunk, masked) <= EXACT
            effects += [relative_difference(masked, model(*inputs))] if exact else []
    assert max(effects, default=1.0) >= 0.01


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.ELU, nn.LeakyReLU, nn.SELU, nn.CELU]
)
def test_every_activation_passes_channels_on(kind: type[nn.Module], inplace: bool) -> None:
    model = nn.Sequential(conv(3, 8), kind(inplace=inplace), conv(8, 2))
    assert find_groups(model, (picture(),))[0].size == 8


def picture(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_freeze_takes_patterns_of_layer_names() -> None:
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2))
    reasons = {group.name: group.frozen_because for group in find_groups(model, (picture(),), freeze=["2"])}
    assert reasons["0"] == reasons["2"] == "--freeze 2"
    with pytest.raises(LatpruneError, match=r"nothing\.\* names no layer"):
        find_groups(model, (picture(),), freeze=["nothing.*"])


def test_names_and_order_are_the_same_in_every_run() -> None:
    first, second = (find_groups(PATTERNS["C2f"], (picture(),)) for _ in range(2))
    assert first == second


def test_a_coordinate_counts_each_place_where_a_group_stands() -> None:
    structure = read_structure(PATTERNS["concat of one tensor at several offsets"], (picture(),))
    joined = next(step for step in structure.trace.steps if step.name == "cat").outputs[0]
    assert joined is not None
    assert structure.coordinate(joined, 1).terms == (("a", 3),)
    assert structure.coordinate(joined, 1).at({"a": 3}) == 9
    assert structure.parameter_coordinates()["z.weight"][1].at({"a": 3}) == 9


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 2)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    find_groups(model, (picture(),))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
