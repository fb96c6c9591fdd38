"""A network without a block computes what it does with the branch at zero, has nothing of it left, and comes back."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, RunError
from lut.program import to_json
from lut.records import ChannelGroup
from profiler.awake import awaken
from profiler.blocks import Block, find_blocks
from profiler.cut import cut, lost_positions, programs_after
from profiler.export import to_onnx
from profiler.network import Network, analyze
from profiler.outputs import relative_difference
from profiler.program_module import ProgramModule
from profiler.proof import double_by_default, uneven_removal
from pruner.narrow import names_in, renamed
from pruner.plan import PrunePlan
from pruner.removal import blocks_in_place, dropped_by, narrowed_all, renamed_blocks
from pruner.rundir import load, save
from pruner.surgery import mask, shapes_left, shrink
from tests.profiler.residual_networks import CASES, Around, Basic, Nested, Scaled, build

EXACT = 1e-10


def awake(model: nn.Module) -> nn.Module:
    return awaken(copy.deepcopy(model).double())


def double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in inputs)


def exact_groups(network: Network) -> list[ChannelGroup]:
    return [group for group in network.groups if not group.frozen_because and not group.approximate_because]


def prepared(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Network, tuple[Block, ...]]:
    model, inputs = build(name)
    network = analyze(model, inputs)
    return model, inputs, network, find_blocks(network)


def outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad(), double_by_default():
        return model(*inputs)


@pytest.mark.parametrize("name", CASES)
def test_without_blocks_a_network_computes_what_it_does_with_their_branches_at_zero(name: str) -> None:
    model, inputs, network, blocks = prepared(name)
    remove = uneven_removal(exact_groups(network), 1)
    sets = [[block] for block in blocks] + [list(blocks)]
    model, inputs = awake(model), double(inputs)
    whole = outputs(model, inputs)
    for going in sets:
        for gone in ({}, remove):
            small, same = (make(model, inputs, gone, groups=network.groups, blocks=going) for make in (shrink, mask))
            found, expected = outputs(small, inputs), outputs(same, inputs)
            assert relative_difference(found, expected) <= EXACT
            assert relative_difference(found, whole) >= 0.01
            lost = {name for block in going for name in block.parameters}
            assert lost
            assert lost.isdisjoint(small.state_dict())
            assert small.state_dict().keys() == model.state_dict().keys() - lost
            assert same.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", CASES)
def test_the_same_holds_in_training(name: str) -> None:
    model, inputs, network, blocks = prepared(name)
    remove = uneven_removal(exact_groups(network), 2)
    model, inputs = awake(model), double(inputs)
    inputs = tuple(torch.cat([tensor, tensor.flip(0) * 0.7, tensor * 1.3]) for tensor in inputs)  # another batch
    small, same = (make(model, inputs, remove, groups=network.groups, blocks=blocks) for make in (shrink, mask))
    with double_by_default():
        found, expected = small.train()(*inputs), same.train()(*inputs).detach()
    assert relative_difference(found.detach(), expected) <= EXACT
    found.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in small.parameters())
    kept = dict(same.named_buffers())
    for key, buffer in small.named_buffers():
        if key.endswith("num_batches_tracked"):
            assert buffer == kept[key] > 0


@pytest.mark.parametrize("name", ["mobilenet", "encoder"])
def test_masked_is_the_whole_network_but_for_the_blocks(name: str) -> None:
    """Against a hook on the user's own module, which knows nothing of programs."""
    model, inputs, network, blocks = prepared(name)
    model, inputs = awake(model), double(inputs)
    block = blocks[-1]
    own = copy.deepcopy(model)
    branch = {"mobilenet": "inner.1.project", "encoder": "encoder.layers.1.linear2"}[name]
    own.get_submodule(branch).register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    own.eval()
    masked = mask(model, inputs, {}, groups=network.groups, blocks=[block])
    assert relative_difference(outputs(masked, inputs), outputs(own, inputs)) <= EXACT


@pytest.mark.parametrize("name", CASES)
def test_a_block_leaves_no_operation_behind_in_onnx(name: str) -> None:
    model, inputs, network, blocks = prepared(name)
    going = [block for block in blocks if not block.within]
    kinds = [node.op_type for node in to_onnx(cut(model, network.groups, {}, blocks=going), inputs).graph.node]
    staying = {"resnet": 1, "encoder": 0}.get(name)
    assert not {"Identity", "Constant", "ConstantOfShape"} & set(kinds)
    if name in {"mobilenet", "pre-activation", "nested"}:
        assert kinds == ["Conv", "Relu", "ReduceMean", "Gemm"]
    elif name == "scaled":
        assert [kind for kind in kinds if kind in {"Conv", "Relu", "ReduceMean", "Gemm"}] == kinds[:2] + kinds[-2:]
        assert kinds.count("Conv") == 1
    elif staying is not None:
        assert kinds.count("Add") <= 2 + staying


def test_a_relu_that_meets_what_a_relu_made_goes_too() -> None:
    model, inputs, network, blocks = prepared("resnet")
    before = [node.op_type for node in to_onnx(model, inputs).graph.node]
    after = [node.op_type for node in to_onnx(cut(model, network.groups, {}, blocks=blocks), inputs).graph.node]
    assert before.count("Relu") - after.count("Relu") == 4


def test_blocks_are_asked_for_by_name() -> None:
    model, inputs, network, _ = prepared("resnet")
    small = shrink(model, inputs, {"inner.0.conv1": [0]}, blocks=["inner.2"])
    assert isinstance(small.inner[2], ProgramModule)  # type: ignore[index, union-attr]
    assert not list(small.inner[2].parameters())  # type: ignore[index, union-attr]
    assert small.inner[0].conv1.weight.shape[0] == 4  # type: ignore[index, union-attr]
    assert outputs(small, inputs).shape == (2, 10)
    with pytest.raises(ValueError, match=r"no block 'inner.1'; these can go: inner.0, inner.2"):
        shrink(model, inputs, {}, blocks=["inner.1"])
    assert network.widths


def test_a_block_that_cannot_go_is_refused_with_its_reason() -> None:
    from tests.profiler.test_blocks import Twice

    with pytest.raises(ValueError, match=r"'inner\.0\.block' cannot go: inner.0.block runs 2 times"):
        shrink(Around(Twice()).eval(), (torch.randn(1, 3, 8, 8),), {}, blocks=["inner.0.block"])


def test_blocks_of_another_network_are_refused() -> None:
    blocks = prepared("resnet")[3]
    model, inputs = build("scaled")
    with pytest.raises((LatpruneError, AttributeError)):
        shrink(model, inputs, {}, blocks=blocks)


def test_what_the_block_keeps_is_not_written_into_afterwards() -> None:
    """The ReLU behind the addition works in place; what the block keeps is read after it."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Basic()

        def forward(self, x: Tensor) -> Tensor:
            x = x - 1.0
            return self.block(x) + x * 2

    torch.manual_seed(0)
    model, inputs = Around(Holder()).eval(), (torch.randn(2, 3, 8, 8),)
    network = analyze(model, inputs)
    blocks = [block for block in find_blocks(network) if block.name == "inner.0.block"]
    assert not blocks[0].idle
    model, inputs = awake(model), double(inputs)
    small, same = (make(model, inputs, {}, groups=network.groups, blocks=blocks) for make in (shrink, mask))
    assert relative_difference(outputs(small, inputs), outputs(same, inputs)) <= EXACT
    found = small.train()(*inputs)
    found.sum().backward()


def plan_of(network: Network, remove: dict[str, list[int]], blocks: tuple[Block, ...]) -> PrunePlan:
    removed = {
        name: {dimension: tuple(gone) for dimension, gone in dims.items()}
        for name, dims in lost_positions(network.groups, remove).items()
    }
    return PrunePlan(
        network_hash=network.hash,
        kept={
            name: tuple(choice for choice in range(size) if choice not in remove.get(name, ()))
            for name, size in network.widths.items()
        },
        sizes=network.widths,
        removed=removed,
        shapes=shapes_left(network.model, removed),
        removed_blocks=tuple(block.name for block in blocks),
        dropped=dropped_by(blocks),
        programs=tuple(to_json(program) for program in programs_after(network.groups, remove, blocks)),
    )


@pytest.mark.parametrize("name", ["resnet", "encoder", "nested", "in a program"])
def test_a_network_without_blocks_comes_back_from_its_plan_and_weights(name: str, tmp_path: Path) -> None:
    model, inputs, network, blocks = prepared(name)
    remove = uneven_removal(exact_groups(network), 3)
    small = cut(model, network.groups, remove, blocks=blocks[1:])
    plan = plan_of(network, remove, blocks[1:])
    save(small, plan, tmp_path)
    assert PrunePlan.read(tmp_path / "plan.json") == plan
    back = load(lambda: build(name)[0], tmp_path)
    with torch.no_grad():
        assert torch.equal(back(*inputs), small(*inputs))
    assert back.state_dict().keys() == small.state_dict().keys()


def test_a_model_that_still_has_the_block_is_not_saved_under_a_plan_without_it(tmp_path: Path) -> None:
    model, _, network, blocks = prepared("resnet")
    with pytest.raises(RunError, match=r"still has the parameter 'inner\.0.conv1.weight' of a block that is gone"):
        save(model, plan_of(network, {}, blocks), tmp_path)


def test_a_plan_without_a_block_is_refused_where_the_model_lacks_it(tmp_path: Path) -> None:
    model, _, network, blocks = prepared("resnet")
    save(cut(model, network.groups, {}, blocks=blocks), plan_of(network, {}, blocks), tmp_path)
    with pytest.raises(RunError, match="does not fit the model"):
        load(lambda: build("scaled")[0], tmp_path)


@pytest.mark.parametrize("name", ["resnet", "encoder", "nested", "in a program"])
def test_removing_in_two_rounds_is_removing_at_once(name: str) -> None:
    model, inputs, network, blocks = prepared(name)
    model, inputs = awake(model), double(inputs)
    first = uneven_removal(exact_groups(network), 4, (0.2, 0.3))
    small = cut(model, network.groups, first, blocks=blocks[:1])
    groups, left = narrowed_all(network.groups, blocks, first, blocks[:1])
    assert [block.name for block in left] == [block.name for block in blocks[1:]]
    assert {group.name for group in network.groups} - {group.name for group in groups} == set(blocks[0].groups)
    second = {group.name: [0] for group in groups if group.size > 1 and group.name in first}
    for going in ([], left[:1]):
        smaller = cut(small, groups, second, blocks=going)
        total = {
            group.name: sorted({*first.get(group.name, ()), *([rest(group, first)[0]] if group.name in second else ())})
            for group in network.groups
        }
        names = {blocks[0].name, *(block.name for block in going)}
        once = cut(model, network.groups, total, blocks=[block for block in blocks if block.name in names])
        assert relative_difference(outputs(smaller, inputs), outputs(once, inputs)) <= EXACT
        assert {k: v.shape for k, v in smaller.state_dict().items()} == {
            k: v.shape for k, v in once.state_dict().items()
        }


def rest(group: ChannelGroup, gone: dict[str, list[int]]) -> list[int]:
    return [choice for choice in range(group.size) if choice not in gone.get(group.name, ())]


class Whole(nn.Module):
    """A network whose deployed part is one module of it."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Around(Nested(), Scaled())
        self.other = nn.Linear(3, 3)


def test_blocks_found_on_a_part_go_from_the_whole() -> None:
    torch.manual_seed(0)
    model, inputs = Whole().eval(), (torch.randn(2, 3, 8, 8),)
    network = analyze(model.part, inputs)
    names = names_in(model, model.part)
    blocks = find_blocks(network)
    assert blocks_in_place(model, network, blocks) == blocks
    going = renamed_blocks(blocks, names)
    assert all(name.startswith("part.") for block in going for name in block.parameters)
    small = cut(model, renamed(network.groups, names), {}, blocks=going)
    expected = cut(model.part, network.groups, {}, blocks=blocks)
    with torch.no_grad():
        assert torch.equal(small.part(*inputs), expected(*inputs))  # type: ignore[operator]
