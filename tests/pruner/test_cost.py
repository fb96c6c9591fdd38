import pytest
import torch

from profiler.network import Network, analyze
from pruner.cost import ActivationBytes, Channels, Cost, Macs, Memory
from tests.pruner.example_task import SmallNet, example_inputs


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return analyze(SmallNet().eval(), example_inputs())


def test_a_change_is_the_difference_of_the_whole(network: Network) -> None:
    liveness = network.cut.liveness
    costs: list[Cost] = [Macs(network.units), ActivationBytes(liveness), Memory(liveness), Channels()]
    widths = {name: size - 3 for name, size in network.widths.items()}
    for cost in costs:
        for name, width in widths.items():
            after = {**widths, name: width // 2}
            assert cost.change(widths, name, width // 2) == pytest.approx(cost.at(after) - cost.at(widths)), (
                cost.name,
                name,
            )


def test_halving_every_width_quarters_the_inner_convolutions(network: Network) -> None:
    inner = next(unit for unit in network.units if unit.name == "inner")
    half = {name: size // 2 for name, size in network.widths.items()}
    assert inner.macs(half) == inner.macs(network.widths) / 4
