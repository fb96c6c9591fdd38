import torch

from profiler.cut import cut
from profiler.trial import find_groups
from pruner.narrow import names_in, narrowed, renamed
from tests.pruner.example_task import SmallNet, example_inputs


def test_cutting_twice_is_cutting_once() -> None:
    torch.manual_seed(0)
    model = SmallNet().eval()
    groups = find_groups(model, example_inputs())
    sizes = {group.name: group.size for group in groups if not group.frozen_because}
    first = {name: [0, 3, size - 2] for name, size in sizes.items()}
    left = {name: [c for c in range(size) if c not in first[name]] for name, size in sizes.items()}
    second = {name: [1, 4] for name in sizes}
    both = {name: sorted(first[name] + [left[name][choice] for choice in second[name]]) for name in sizes}
    once = cut(model, groups, both)
    twice = cut(cut(model, groups, first), narrowed(groups, first), second)
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name]), name


def test_a_part_is_named_as_in_the_whole() -> None:
    whole = torch.nn.ModuleDict({"dense": SmallNet()})
    part = whole["dense"]
    groups = find_groups(part, example_inputs())
    known = set(dict(whole.named_parameters()) | dict(whole.named_buffers()))
    for group in renamed(groups, names_in(whole, part)):
        assert {member.parameter for member in group.members} <= known
