"""Held-out widths: drawn freely, on the edges of the steps that were found, and as pruning to budgets leaves them."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lut import LatencyTable, Predictor
from profiler.network import Network
from profiler.sampling import DEVIATION, LEAST_KEPT
from pruner.cost import Latency
from pruner.importance.ranking import rank_singly
from pruner.options import Offered
from pruner.posing import Budgeted, Question
from pruner.solvers import get_solver
from pruner.solving import solve

SEED = 20_251
"""Profiling draws with seed 0."""
BUDGETS = (0.30, 0.95)
"""Of the unpruned network's predicted latency: plans are spread evenly between."""
CHANNEL_SPREAD, GROUP_SPREAD = 1.0, 0.5
"""Standard deviations of the logarithm of importances: of channels within a group, and of groups."""
MOST_TRIES = 50
OPTIONS = 8
"""Widths from which a plan chooses for each group, at most; `latprune prune` takes three times as many."""

Widths = dict[str, int]
Key = tuple[tuple[str, int], ...]


def key_of(widths: Mapping[str, int]) -> Key:
    """Widths in the form in which the table keeps them."""
    return tuple(sorted(widths.items()))


def choose_vectors(
    network: Network, table: LatencyTable, predictor: Predictor, each: int
) -> Iterator[tuple[str, Widths]]:
    """Draw vectors of each kind, none of which the table has measured, and none twice; fewer where there are no more.

    Args:
        network: the unpruned one.
        table: in which steps are looked up.
        predictor: of the network, by which plans are made.
        each: how many of each kind.
    """
    full = network.widths
    taken = {row.widths for row in table.networks if row.network == network.hash} | {key_of(full)}
    steps = {name: table.width_step(name, network.units, full) for name in full}
    plans = Plans(network, table, predictor)
    shares = np.linspace(*BUDGETS, each) if each > 1 else np.array([sum(BUDGETS) / 2])
    for kind in ("free", "edge", "plan"):
        for number in range(each):
            for attempt in range(MOST_TRIES):
                generator = np.random.default_rng([SEED, ("free", "edge", "plan").index(kind), number, attempt])
                if kind == "plan":
                    widths = plans.plan(float(shares[number]), generator)
                else:
                    widths = draw(full, steps if kind == "edge" else None, generator)
                if key_of(widths) not in taken:
                    taken.add(key_of(widths))
                    yield kind, widths
                    break


def draw(full: Mapping[str, int], steps: Mapping[str, int] | None, generator: np.random.Generator) -> Widths:
    """Each group its own share of a level, as profiling draws; with steps a multiple of these, or one channel more."""
    level = generator.uniform(LEAST_KEPT, 1.0)
    widths = {}
    for name, size in full.items():
        share = float(np.clip(level + generator.normal(0, DEVIATION), 0.05, 1.0))
        width = max(1, round(share * size))
        if steps is not None:
            step = min(steps[name], size)
            width = max(step, round(width / step) * step) + int(generator.integers(2))
        widths[name] = min(width, size)
    return widths


class Plans:
    """What `latprune prune` would decide for a network whose importances are made up."""

    def __init__(self, network: Network, table: LatencyTable, predictor: Predictor) -> None:
        offered = Offered(table, network.units, network.widths, predictor, most=OPTIONS)
        self.full = network.widths
        self.options = {name: offered.options(name, self.full) for name in self.full}
        self.cost = Latency(predictor)

    def plan(self, share: float, generator: np.random.Generator) -> Widths:
        """The greedy solver's widths at a share of the unpruned latency, or the narrowest where that cannot be met."""
        question = Question(
            full=self.full,
            options=self.options,
            lost={name: rank_singly(own).lost for name, own in made_up_importances(self.full, generator).items()},
            budgets=[Budgeted(self.cost, share * self.cost.at(self.full))],
            rank=self.cost,
        )
        return dict(solve(question, get_solver("greedy")).widths)


def made_up_importances(full: Mapping[str, int], generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Importances as they usually lie, log-normal among channels and among groups; ascending."""
    found = {}
    for name, size in full.items():
        group = generator.normal(0, GROUP_SPREAD)
        found[name] = np.sort(np.exp(group + generator.normal(0, CHANNEL_SPREAD, size)))
    return found
