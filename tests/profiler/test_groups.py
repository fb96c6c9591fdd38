"""Structural patterns one by one: what each group's size is, or the word that its reason holds."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from lut.errors import LatpruneError
from lut.records import ChannelGroup
from profiler.cut import awaken, cut, relative_difference, zero
from profiler.groups import read_structure
from profiler.trial import find_groups
from tests.profiler.patterns import PATTERNS, conv

BORDERS = {"it is the network's input", "they reach the network's output"}

Expectation = int | str
"""A size; "~4" for four that are approximate; else a word of the reason for which the group is frozen."""

EXPECTED: dict[str, dict[str, Expectation]] = {
    "channel shuffle": {"a": 4},
    "nn.ChannelShuffle": {"a": 2},
    "flip along channels": {"a": 8},
    "roll along channels": {"a": "something else"},
    "index_select with a constant": {"a": "does not run"},
    "indexing with a list": {"a": "does not run", "a#2": "no layer takes them in"},
    "indexing by the data": {"a": "sort", "z#2": "size is fixed"},
    "chunk": {"a": 4},
    "uneven split": {"a": "split_sizes", "a#2": "split_sizes", "b": 5},
    "leading slice only": {"a": "does not run", "a#2": "no layer takes them in"},
    "two slices that cover": {"a": "does not run", "a#2": 5, "b": 5},
    "partial convolution": {"a": "does not run", "a#2": 6, "b": 2},
    "every other channel": {"a": 4},
    "concat of one tensor at several offsets": {"a": 4},
    "concat, then split across the border": {"a": 2, "a#2": 2},
    "C2f": {"a": 4, "b": 4},
    "group convolution after concat": {"a": 4, "g": 3},
    "depthwise with a multiplier": {"a": 4},
    "pixel shuffle": {"a": 3},
    "pixel unshuffle": {"a": 3},
    "hard-coded view": {"a": "is invalid for input"},
    "view that mixes channels with pixels": {"a": "slides over them", "z#2": "size is fixed"},
    "functional weights": {"a": 4, "w": 6},
    "scaled weights": {"a": 4, "w": 6},
    "einsum with a parameter": {"a": 4, "w": 6},
    "matmul with a parameter": {"a": 4, "w": 6},
    "LayerNorm over one dimension": {"a": "~4"},
    "LayerNorm over several dimensions": {"a": "~4", "n": "size is fixed", "n#2": "size is fixed"},
    "RMSNorm by hand": {"a": "~4"},
    "nn.RMSNorm": {"a": "~4"},
    "GroupNorm": {"a": 4},
    "GroupNorm without parameters": {"a": 4},
    "InstanceNorm without parameters": {"a": 8},
    "local response norm": {"a": "mixes them", "z#2": "size is fixed"},
    "softmax over channels": {"a": "~8"},
    "softmax over pixels": {"a": 8},
    "cosine normalisation": {"a": "~8"},
    "sum over channels": {"a": "~8"},
    "argmax over channels": {"a": "argmax"},
    "MultiheadAttention": {"a": "unflatten", "m.in_proj_weight": "unflatten", "m.out_proj": 8},
    "attention by hand": {"a": 8, "m.qkv": 4, "m.proj": 8},
    "LSTM": {
        "a": "rnn",
        "m.weight_ih_l0": "rnn",
        "m.weight_ih_l0#2": "rnn",
        "m.weight_hh_l0": "rnn",
        "m.weight_hh_l0#2": "rnn",
        "m.bias_ih_l0": "rnn",
        "m.bias_hh_l0": "rnn",
        "z#2": "size is fixed",
    },
    "weight norm": {"a": "~4", "b.parametrizations.weight.original1": 6},
    "spectral norm": {
        "a": "mv in b.parametrizations",
        "b.parametrizations.weight.original": "mv in b.parametrizations",
        "b.parametrizations.weight.0._u": "vdot in b.parametrizations",
        "b.parametrizations.weight.0._v": "mv in b.parametrizations",
    },
    "buffer met element-wise": {"a": 4},
    "constant met element-wise": {"a": "mul in the network", "z#2": "size is fixed"},
    "position table": {"a": 8, "p": "size is fixed"},
    "class token": {"a": 8, "p": "size is fixed"},
    "embedding added": {"a": 8},
    "channels padded in the shortcut": {"a": 4, "b": "does not run"},
    "one layer called twice": {"a": 4},
    "tied weights": {"a": 8},
    "bilinear product of two branches": {"a": 4, "b": "crossed with others"},
    "written into a part": {"a": "copy_", "b": "copy_", "z#2": "size is fixed"},
    "topk over channels": {"a": "topk", "z#2": "size is fixed"},
    "max over channels": {"a": "~4", "z#2": "no layer of the network makes them"},
    "frozen BatchNorm": {"a": 8},
    "PReLU of one slope a channel": {"a": 8},
    "auxiliary head in training": {"a": 8, "b": 6},
    "unfolded patches": {"a": 4},
    "maxout": {"a": 4},
    "repeat_interleave": {"a": 4},
    "mean over a table of experts": {"a": 4, "w": "no layer of the network makes them", "w#2": 6},
}


def picture(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


@cache
def found(name: str) -> list[ChannelGroup]:
    return find_groups(PATTERNS[name], (picture(),))


def test_every_pattern_has_an_expectation() -> None:
    assert EXPECTED.keys() == PATTERNS.keys()


@pytest.mark.parametrize("name", PATTERNS)
def test_groups_are_those_that_a_person_finds(name: str) -> None:
    groups = [group for group in found(name) if group.frozen_because not in BORDERS]
    assert {group.name for group in groups} == set(EXPECTED[name])
    for group in groups:
        expected = str(EXPECTED[name][group.name])
        size = ("~" if group.approximate_because else "") + str(group.size)
        assert (size == expected) if not group.frozen_because else (expected in group.frozen_because), group.name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_prunable_runs_and_is_the_masked_network(name: str, seed: int) -> None:
    groups = found(name)
    model = awaken(deepcopy(PATTERNS[name]).double().eval(), seed)
    generator = np.random.default_rng(seed)
    removal = {
        group.name: generator.choice(group.size, int(generator.integers(1, group.size)), replace=False).tolist()
        for group in groups
        if group.size > 1
    }
    soft = {group.name for group in groups if group.approximate_because}
    exact = {group: gone for group, gone in removal.items() if group not in soft}
    with torch.no_grad():
        cut(model, groups, removal)(picture(torch.float64))
        masked, shrunk = (side(model, groups, exact)(picture(torch.float64)) for side in (zero, cut))
        assert relative_difference(shrunk, masked) <= 1e-8
        if exact:
            assert relative_difference(masked, model(picture(torch.float64))) >= 0.01


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.ELU, nn.LeakyReLU, nn.SELU, nn.CELU]
)
def test_every_activation_passes_channels_on(kind: type[nn.Module], inplace: bool) -> None:
    model = nn.Sequential(conv(3, 8), kind(inplace=inplace), conv(8, 2))
    assert find_groups(model, (picture(),))[0].size == 8


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
