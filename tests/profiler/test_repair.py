"""Numbers in modules: which follow a group, and that guesses that do not hold are dropped."""

import torch
from torch import Tensor, nn

from lut.records import SizeAttribute
from profiler.cut import cut_positions, lost_positions, number_in
from profiler.trial import find_groups
from tests.profiler.patterns import PATTERNS, conv


def picture() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Viewed(nn.Module):
    """Views its channels by its own numbers, one of which only looks like a count of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.z = conv(3, 6), conv(6, 2)
        self.hidden_dim = 6
        self.shape = (6, 8, 8)
        self.feature_scale_dims = 6

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).view(-1, self.hidden_dim, 64).view(-1, *self.shape)
        return self.z(y) * self.feature_scale_dims


def test_the_number_of_heads_follows_whole_heads() -> None:
    groups = {group.name: group for group in find_groups(PATTERNS["attention by hand"], (picture(),))}
    assert groups["m.qkv"].attributes == (SizeAttribute("m", "num_heads", -1, 1),)


def test_numbers_stand_among_what_is_lost_and_travel_with_it() -> None:
    groups = find_groups(PATTERNS["attention by hand"], (picture(),))
    lost = lost_positions(groups, {"m.qkv": [1, 3]})
    assert lost["m.num_heads"] == {-1: [0, 1]}
    smaller = cut_positions(PATTERNS["attention by hand"], lost)
    assert number_in(smaller, "m.num_heads") == 2
    assert smaller(picture()).shape == (1, 64, 2)


def test_a_guess_that_changes_the_output_gives_way_to_a_program() -> None:
    model = Viewed()
    group = next(group for group in find_groups(model, (picture(),)) if group.name == "a")
    assert group.size == 6
    assert [program.module for program in group.programs] == [""]
    model.feature_scale_dims = 5
    group = next(group for group in find_groups(model, (picture(),)) if group.name == "a")
    assert group.size == 6
    assert {(number.attribute, number.item) for number in group.attributes} == {("hidden_dim", -1), ("shape", 0)}
    assert not group.programs


def test_names_of_no_number_are_none() -> None:
    assert number_in(PATTERNS["attention by hand"], "m.scale") is None
    assert number_in(PATTERNS["attention by hand"], "nowhere.heads") is None
