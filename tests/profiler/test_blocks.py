"""Residual blocks are found in the trace where they are, and only there; what goes with each is told."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lut.records import Unit
from profiler.blocks import Block, examine_blocks, find_blocks, without_blocks
from profiler.cut import cut
from profiler.network import Network, analyze
from profiler.recording import record
from tests.profiler.residual_networks import CASES, WIDTH, Around, Basic, Scaled, build


def network_of(*inner: nn.Module) -> Network:
    torch.manual_seed(0)
    return analyze(Around(*inner).eval(), (torch.randn(2, 3, 8, 8),))


@pytest.mark.parametrize("name", CASES)
def test_the_blocks_that_can_go_are_found(name: str) -> None:
    model, inputs = build(name)
    before = copy.deepcopy(model.state_dict())
    network = analyze(model, inputs)
    blocks = find_blocks(network)
    assert [block.name for block in blocks] == list(CASES[name].blocks)
    for block in blocks:
        addition = network.trace.steps[block.step]
        assert addition.name in {"add", "add_"}
        assert {block.kept, block.branch} == set(addition.inputs)
        assert block.step not in block.steps
        assert all(model.get_submodule(name) is not None for name in block.written)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_what_goes_with_a_block_is_told() -> None:
    network = network_of(Basic(), Basic(stride=2), Basic())
    block = find_blocks(network)[1]
    own = [name for name in network.model.state_dict() if name.startswith("inner.2.")]
    assert sorted(block.parameters) == sorted(own)
    assert "inner.2.bn1.num_batches_tracked" in own
    assert block.units == ("inner.2.conv1", "inner.2.conv2")
    assert block.groups == ("inner.2.conv1",)
    assert [network.trace.steps[step].name for step in block.idle] == ["relu_"], "it reads what a ReLU made"
    assert block.left == ()


class Forked(nn.Module):
    """What the block keeps is read elsewhere, too."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * torch.sigmoid(x)


def test_what_stays_behind_the_addition_is_a_small_unit_of_its_own() -> None:
    (block,) = find_blocks(network_of(Forked()))
    assert [unit.name for unit in block.left] == ["inner.0.block:gelu"]
    assert block.left[0].family.operation == "elementwise"
    assert not block.idle


def test_what_stays_joins_the_unit_before_where_that_can_take_it() -> None:
    network = network_of(nn.Conv2d(WIDTH, WIDTH, 1), Scaled())
    (block,) = find_blocks(network)
    assert block.left == ()
    before, after = (
        {unit.name: unit.family.followers for unit in c.units} for c in (network, without_blocks(network, [block]))
    )
    assert before["inner.0"] == ()
    assert after["inner.0"] == ("gelu",)


def kinds(units: tuple[Unit, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """What the units are, in some order; programs run attention in the form that this device has for it."""
    return sorted(
        (unit.family.operation.replace("_flash_attention_for_cpu", "_attention"), unit.family.followers)
        for unit in units
    )


@pytest.mark.parametrize("name", CASES)
def test_units_without_blocks_are_those_of_the_network_that_lacks_them(name: str) -> None:
    model, inputs = build(name)
    network = analyze(model, inputs)
    for block in find_blocks(network):
        smaller = cut(model, network.groups, {}, blocks=[block])
        again = analyze(smaller, inputs)
        expected, found = map(kinds, (without_blocks(network, [block]).units, again.units))
        assert expected == found
        assert len(expected) < len(network.units)


def test_blocks_tell_in_which_others_they_lie() -> None:
    model, inputs = build("nested")
    found = {block.name: block for block in find_blocks(analyze(model, inputs))}
    assert found["inner.0.blocks.0"].within == ("inner.0",)
    assert found["inner.0"].within == ()
    assert set(found["inner.0"].parameters) > set(found["inner.0.blocks.1"].parameters)


def test_samples_stand_where_the_batch_grows() -> None:
    for name, dimension in (("encoder", 0), ("encoder, norms last", 1), ("resnet", 0), ("windows", 0)):
        model, inputs = build(name)
        assert {block.samples for block in find_blocks(analyze(model, inputs))} == {dimension}, name


class UsedElsewhere(Basic):
    """The branch's inside is an output, too."""

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.conv1(x))
        return x + self.conv2(inside) + inside.mean()


class Deciding(Basic):
    """Goes by what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        inside = self.conv1(x)
        return x + self.conv2(inside if float(inside.mean()) < 9 else -inside)


class Twice(nn.Module):
    """One block, run two times."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Basic()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


class Tied(nn.Module):
    """Two blocks that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Basic(), Basic()
        self.two.conv1.weight = self.one.conv1.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (UsedElsewhere, "used elsewhere"),
        (Deciding, "goes by a number that it computes"),
        (Twice, "runs 2 times"),
        (Tied, "shares inner.0.one.conv1.weight with other layers"),
    ],
)
def test_a_block_that_cannot_go_says_why(inner: type[nn.Module], reason: str) -> None:
    network = network_of(inner())
    assert find_blocks(network) == ()
    found = examine_blocks(network)
    assert found
    assert all(reason in str(block.frozen_because) for block in found)


class Dense(Basic):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv2(self.conv1(x))], 1)[:, :WIDTH]


class TwoSides(Basic):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.conv2(torch.relu(self.conv1(x)))


class OtherHalf(nn.Module):
    """What is added to one half is computed from the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH // 2, WIDTH // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a + self.conv(b), b], 1)


class ScaledSkip(Basic):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.conv2(self.conv1(x)), x, alpha=0.5)


class NoLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(x)


class FromBefore(Basic):
    """What is added to the skip is computed from what stands before it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x - 0.1) + self.conv2(self.conv1(x))


class WrittenLater(Basic):
    """The skip is changed, through another tensor of the same memory, between branch and addition."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        branch = self.conv2(self.conv1(x))
        x[:, :2] = branch[:, 2:4]
        return x + branch


@pytest.mark.parametrize("inner", [Dense, TwoSides, OtherHalf, ScaledSkip, NoLayer, FromBefore, WrittenLater])
def test_what_is_no_residual_block_is_not_taken_for_one(inner: type[nn.Module]) -> None:
    assert examine_blocks(network_of(inner())) == ()


def test_a_without_blocks_blocks_taken_out_is_the_network_s_own() -> None:
    network = network_of(Basic())
    assert without_blocks(network, []).units == network.units


def test_finding_blocks_leaves_the_trace_as_it_was() -> None:
    network = network_of(Basic())
    blocks: tuple[Block, ...] = find_blocks(network)
    assert blocks == find_blocks(network)
    assert record(network.model, network.inputs).network_hash == network.hash
