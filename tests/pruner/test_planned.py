"""What a command reads of a plan is the network that was deployed by it."""

import pytest
import torch
from torch import nn

from lut import LatpruneError
from profiler.cut import cut
from profiler.export import to_onnx
from profiler.graph_form import read_form
from profiler.network import Network, analyze
from profiler.program_module import ProgramModule
from profiler.variants import prepare
from pruner.commands.planned import analyze_planned, plan_widths
from pruner.plan import PrunePlan
from pruner.task import Task
from tests.profiler.test_deployed import vision_transformer


def model() -> nn.Module:
    torch.manual_seed(0)
    return vision_transformer().eval()


TASK = Task("transformer", model, lambda: (torch.zeros(1, 3, 32, 32),))


@pytest.fixture(scope="module")
def network() -> Network:
    return analyze(TASK.build(), TASK.inputs())


def plan_of(network: Network, frozen: tuple[str, ...], cut_to: dict[str, int]) -> PrunePlan:
    kept = {name: tuple(range(cut_to.get(name, size))) for name, size in network.widths.items()}
    return PrunePlan(network.hash, kept, dict(network.widths), {}, frozen=frozen)


def test_a_group_that_was_kept_whole_has_no_program_in_the_graph_that_is_predicted(network: Network) -> None:
    frozen = tuple(sorted({group.members[0].parameter for group in network.groups if group.programs}))
    assert frozen
    free = [group.name for group in network.groups if group.size > 8 and not group.programs]
    plan = plan_of(network, frozen, {name: network.widths[name] - 5 for name in free})
    predicted, stay = analyze_planned(TASK, plan)
    assert stay
    assert stay.isdisjoint(free)
    widths = plan_widths(predicted, plan)
    variants = prepare(predicted, stay=stay)
    assert variants.whole is None, "no module is a program"
    remove = variants.widths_removal(widths)
    deployed = cut(TASK.build(), predicted.groups, remove)
    assert not any(isinstance(module, ProgramModule) for module in deployed.modules())
    assert read_form(variants.at(remove)) == read_form(to_onnx(deployed, TASK.inputs()))


def test_a_plan_that_kept_what_the_network_lacks_is_refused(network: Network) -> None:
    with pytest.raises(LatpruneError, match=r"nowhere\.\* names no layer"):
        analyze_planned(TASK, plan_of(network, ("nowhere.*",), {}))


def test_without_a_plan_everything_is_as_it_is(network: Network) -> None:
    found, stay = analyze_planned(TASK, None)
    assert found.hash == network.hash
    assert stay == frozenset()
