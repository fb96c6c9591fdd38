"""Shrunk is masked, and positions found on a part are those of the whole."""

import copy

import pytest
import torch
from torch import nn

from lut.errors import LatpruneError
from profiler.cut import cut_positions, lost_positions
from profiler.trial import find_groups
from pruner.narrow import names_in, renamed
from pruner.surgery import mask, shape_difference, shapes_left, shrink
from tests.pruner.networks import NETWORKS, ConcatNet, ResidualNet, build, inputs


@pytest.mark.parametrize("network", NETWORKS)
def test_shrunk_computes_what_masked_computes(network: type[nn.Module]) -> None:
    model = build(network)
    before = copy.deepcopy(model.state_dict())
    groups = find_groups(model, inputs())
    remove = {group.name: [0, 2] for group in groups if not group.frozen_because}
    small, masked = (make(model, inputs(), remove, groups=groups) for make in (shrink, mask))
    whole, found = model(*inputs()), small(*inputs())
    torch.testing.assert_close(found, masked(*inputs()), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found, whole, rtol=1e-2)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_groups_are_found_where_they_are_not_given() -> None:
    small = shrink(build(ConcatNet), inputs(), {"left": [1]})
    assert small.left.weight.shape[0] == 3  # type: ignore[union-attr]


def test_frozen_layers_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="frozen"):
        shrink(build(ConcatNet), inputs(), {"left": [1]}, freeze=["left"])


def test_groups_of_another_network_are_refused() -> None:
    with pytest.raises(LatpruneError, match="belongs to another network"):
        mask(build(ConcatNet), inputs(), {}, groups=find_groups(build(ResidualNet), inputs()))


class Whole(nn.Module):
    """A network with a part that is deployed."""

    def __init__(self) -> None:
        super().__init__()
        self.part = build(ResidualNet)
        self.auxiliary = nn.Linear(4, 2)


def test_positions_found_on_a_part_are_renamed_for_the_whole() -> None:
    model = Whole()
    groups = renamed(find_groups(model.part, inputs()), names_in(model, model.part))
    found = lost_positions(groups, {"inner": [0, 1]})
    assert found["part.inner.weight"] == {0: [0, 1]}
    small = cut_positions(model, found)
    assert small.part.inner.weight.shape[0] == 3  # type: ignore[union-attr]
    assert shape_difference(small, shapes_left(model, found)) is None
    assert "part.inner.weight" in str(shape_difference(model, shapes_left(model, found)))


def test_a_part_that_is_a_copy_is_refused() -> None:
    model = Whole()
    with pytest.raises(LatpruneError, match="not a copy"):
        names_in(model, copy.deepcopy(model.part))


def test_positions_that_are_not_there_are_refused() -> None:
    for wrong in ({"absent": {0: [1]}}, {"inner.weight": {0: [5]}}, {"inner.weight": {4: [0]}}):
        with pytest.raises(LatpruneError, match="another network"):
            shapes_left(build(ResidualNet), wrong)
