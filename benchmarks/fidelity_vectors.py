"""Held-out widths: drawn freely, on the edges of the steps that were found, and as pruning to budgets leaves them."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lut import LatencyTable, Predictor
from lut.calibration import calibrated
from profiler.network import Network
from profiler.sampling import DEVIATION, LEAST_KEPT
from pruner.solvers import Limit, Problem, get_solver, width_options

SEED = 20_251
"""Profiling draws with seed 0."""
BUDGETS = (0.30, 0.95)
"""Of the unpruned network's predicted latency: plans are spread evenly between."""
CHANNEL_SPREAD, GROUP_SPREAD = 1.0, 0.5
"""Standard deviations of the logarithm of importances: of channels within a group, and of groups."""
MOST_TRIES = 50
MOST_COORDINATES = 3
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
    posed = Posed(network, predictor, steps)
    shares = np.linspace(*BUDGETS, each) if each > 1 else np.array([sum(BUDGETS) / 2])
    for kind in ("free", "edge", "plan"):
        for number in range(each):
            for attempt in range(MOST_TRIES):
                generator = np.random.default_rng([SEED, ("free", "edge", "plan").index(kind), number, attempt])
                if kind == "plan":
                    widths = posed.plan(float(shares[number]), generator)
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


class SumOfUnits:
    """The predicted latency as `pruner.cost.Latency` gives it, but a group's options are estimated all at once.

    What a unit costs is remembered, and what joins more than a few tensors is taken as proportional to its channels, so
    that DenseNet is solved in seconds; the widths found are predicted anew, by the table.
    """

    name, unit = "latency", "ms"

    def __init__(self, predictor: Predictor, options: Mapping[str, Sequence[int]], full: Mapping[str, int]) -> None:
        self.predictor, self.options, self.full = predictor, options, full
        self.calibration = predictor.calibration
        self.touching: dict[str, list[int]] = {name: [] for name in full}
        self.slopes: dict[str, float] = dict.fromkeys(full, 0.0)
        self.fixed_ms = 0.0
        self._known: list[dict[tuple[int, ...], float]] = [{} for _ in predictor.units]
        self.priced = [n for n, unit in enumerate(predictor.units) if len(unit.coordinates) <= MOST_COORDINATES]
        for number in self.priced:
            for group in predictor.units[number].groups:
                self.touching[group].append(number)
        for number in sorted(set(range(len(predictor.units))) - set(self.priced)):
            self._add_joining(number)

    def _add_joining(self, number: int) -> None:
        unit = self.predictor.units[number]
        each_ms = self.predictor.unit_ms(number, self.full) / sum(unit.channels(self.full))
        for coordinate in unit.coordinates:
            self.fixed_ms += each_ms * coordinate.constant
            for group, count in coordinate.terms:
                self.slopes[group] += each_ms * count

    def at(self, widths: Mapping[str, int]) -> float:
        """Predicted milliseconds of one inference."""
        total = self.fixed_ms + sum(slope * widths[group] for group, slope in self.slopes.items())
        total += sum(self._ms(number, widths) for number in self.priced)
        return float(calibrated(self.calibration, np.array([total]))[0])

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """Difference in milliseconds, the whole group at once."""
        after = {**widths, group: width}
        units, touched = self.predictor.units, self.touching[group]
        if any(units[number].channels(after) not in self._known[number] for number in touched):
            self._estimate(widths, group, {width, *self.options[group]})
        priced = sum(self._ms(number, after) - self._ms(number, widths) for number in touched)
        return self.calibration.scale * (priced + self.slopes[group] * (width - widths[group]))

    def _estimate(self, widths: Mapping[str, int], group: str, options: Collection[int]) -> None:
        """Fill in what the group's units cost at each of its options."""
        each = [{**widths, group: option} for option in options]
        for number in self.touching[group]:
            unit, known = self.predictor.units[number], self._known[number]
            channels = sorted({unit.channels(at) for at in each} - set(known))
            if channels:
                known.update(zip(channels, self.predictor.unit_many_ms(number, channels).tolist(), strict=True))

    def _ms(self, number: int, widths: Mapping[str, int]) -> float:
        channels, known = self.predictor.units[number].channels(widths), self._known[number]
        if channels not in known:
            known[channels] = self.predictor.unit_ms(number, widths)
        return known[channels]


class Posed:
    """The problem that `latprune prune` poses with a latency budget, for a network whose importances are made up."""

    def __init__(self, network: Network, predictor: Predictor, steps: Mapping[str, int]) -> None:
        self.network = network
        self.unpruned_ms = predictor.latency_ms(network.widths)
        own = _plan_steps(network, predictor, steps)
        self.options = {name: width_options(size, own[name], 1, OPTIONS) for name, size in network.widths.items()}
        self.cost = SumOfUnits(predictor, self.options, network.widths)
        self.together: dict[str, set[str]] = {name: {name} for name in network.widths}
        for unit in network.units:
            for name in unit.groups:
                self.together[name].update(unit.groups)

    def plan(self, share: float, generator: np.random.Generator) -> Widths:
        """The greedy solver's widths at a share of the unpruned latency, or the narrowest where that cannot be met."""
        full = self.network.widths
        problem = Problem(
            start=full,
            options=self.options,
            scores=made_up_importances(full, generator),
            limits=[Limit(self.cost, share * self.unpruned_ms)],
            rank=self.cost,
            together={name: frozenset(others) for name, others in self.together.items()},
        )
        return dict(get_solver("greedy").solve(problem).widths)


def made_up_importances(full: Mapping[str, int], generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Importances as they usually lie, log-normal among channels and among groups; ascending."""
    found = {}
    for name, size in full.items():
        group = generator.normal(0, GROUP_SPREAD)
        found[name] = np.sort(np.exp(group + generator.normal(0, CHANNEL_SPREAD, size)))
    return found


def _plan_steps(network: Network, predictor: Predictor, steps: Mapping[str, int]) -> Widths:
    """What `pruner.rounds` takes: each group's own step, but in wide groups at least that of most of the time."""
    votes: dict[int, float] = {}
    full = network.widths
    for name in full:
        cost = sum(predictor.unit_ms(unit.name, full) for unit in network.units if name in unit.groups)
        votes[steps[name]] = votes.get(steps[name], 0.0) + cost
    common = max(votes, key=lambda step: votes[step], default=1)
    return {name: max(steps[name], common) if size >= 4 * common else steps[name] for name, size in full.items()}
