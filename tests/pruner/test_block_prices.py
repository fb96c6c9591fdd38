"""What solvers are told of a network without some blocks is what the network without them is priced at."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lut import LatencyTable, Predictor, UnitSpec
from lut.records import Measurement, Unit
from profiler.blocks import find_blocks
from profiler.leftovers import standing
from profiler.network import Network, analyze
from pruner.cost import Channels, Latency
from pruner.posing import Budgeted, Posed, Question, Removable
from pruner.question import standing_for
from tests.lut.examples import CONFIG, CPU
from tests.profiler.residual_networks import WIDTH, Basic, PreActivation


class NormFirst(nn.Module):
    """A transformer's: its norm belongs to the sum before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 11), nn.Linear(11, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


def convolutions(*blocks: nn.Module) -> Network:
    model = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), *blocks, nn.Conv2d(WIDTH, 2, 1))
    return analyze(model.eval(), (torch.randn(1, 3, 8, 8),))


def tokens(*blocks: nn.Module) -> Network:
    model = nn.Sequential(nn.Linear(5, WIDTH), *blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2))
    return analyze(model.eval(), (torch.randn(2, 4, 5),))


MADE = {
    "norm and activation first": lambda: convolutions(PreActivation(), PreActivation(), PreActivation()),
    "norm last": lambda: convolutions(Basic(), Basic()),
    "a transformer's": lambda: tokens(NormFirst(), NormFirst(), NormFirst()),
}


def made_up(network: Network, units: set[Unit]) -> Predictor:
    """A table that has a price of its own for each family, and knows what each block alone leaves behind."""
    families = sorted({unit.family for unit in [*network.units, *units]}, key=str)
    prices = {family: 1.0 + 0.37 * number for number, family in enumerate(families)}
    widths = network.widths
    rows = []
    for unit in [*network.units, *units]:
        spec, ms = UnitSpec(unit.family, unit.channels(widths)), prices[unit.family]
        rows.append(Measurement(spec, CONFIG, (ms, ms), ms, 0.01, place="in place"))
    return Predictor(network.units, LatencyTable(CPU, rows), allow_missing=True)


@pytest.mark.parametrize("kind", MADE)
def test_tables_price_a_network_without_any_one_of_its_blocks_as_that_network_is_priced(kind: str) -> None:
    torch.manual_seed(0)
    network = MADE[kind]()
    blocks = find_blocks(network)
    assert len(blocks) >= 2
    alone = [standing(network, [block]) for block in blocks]
    predictor = made_up(network, {unit for stood in alone for unit in stood.left})
    removables = [
        Removable(
            block.name,
            1.0,
            block.owns,
            block.groups,
            block.left,
            block.changed,
            frozenset({block.step, *block.steps, *block.idle}),
        )
        for block in blocks
    ]
    owned, instead_of = standing_for(removables, predictor)
    cost = Latency(predictor, instead_of=instead_of)
    lost = {name: np.linspace(1, 0, size + 1) for name, size in network.widths.items()}
    options = {name: (size,) for name, size in network.widths.items()}
    question = Question(network.widths, options, lost, [Budgeted(cost, 1e9)], Channels(network.widths), owned)
    posed = Posed(question, network.widths)
    place = posed.options.place
    for count in range(len(blocks) + 1):
        for gone in itertools.combinations(blocks, count):
            choice = posed.problem.start
            for block in gone:
                choice[place[f"block {block.name}"]] = 0
                choice[[place[name] for name in block.groups]] = 0
            stood = standing(network, gone).priced(predictor.prices)[0]
            exact = predictor.latency_ms(network.widths, gone=stood.gone, left=stood.left)
            tabled = posed.problem.limits[0].cost.at(choice)
            if count <= 1:
                assert tabled == pytest.approx(exact)
            else:
                assert tabled >= exact * (1 - 1e-9), "what two blocks leave together may have a lower price"
