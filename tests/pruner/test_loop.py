import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from lut import BudgetError, Predictor
from lut.records import Calibration, Coordinate, Unit, UnitFamily
from profiler.progress import Event
from pruner.bench import Bench
from pruner.cost import Latency
from pruner.importance.ranking import rank_singly
from pruner.loop import WITHIN, Trial, refuse_impossible, solve_measured
from pruner.options import width_options
from pruner.posing import Budgeted, Question
from pruner.solvers import Problem, Solution
from pruner.solvers.greedy import Greedy, give_back

SIZES = dict.fromkeys("abcdefgh", 64)
UNPRUNED_MS = 8.0


class Quick:
    """A solver that uses a budget as well as the exact one, in no time."""

    name, ranks_by_ratio = "quick", False

    def solve(self, problem: Problem) -> Solution:
        found = Greedy().solve(problem)
        return problem.solution(*give_back(problem, found.choice, 0)) if found.met else found


class Table:
    """What a predictor says: a sum of products, without an idea of what the device really does."""

    units = tuple(
        Unit(f"{a}{b}", UnitFamily("convolution", "fp32", (), ()), (Coordinate(((a, 1),)), Coordinate(((b, 1),))))
        for a, b in itertools.pairwise(SIZES)
    )
    calibration = Calibration(overhead_ms=0.3)

    def unit_many_ms(self, number: int, channels: Any) -> Any:
        return 1e-3 * np.asarray(channels).prod(axis=1)

    def latency_ms(self, widths: Mapping[str, int], gone: object = (), left: object = ()) -> float:
        return 0.3 + 1e-3 * sum(a * b for a, b in itertools.pairwise(widths.values()))


class Device:
    """A bench whose device disagrees with the table, and whose table never learns: the worst case."""

    def __init__(self, exponent: float, floor: float, noise: float = 0.0) -> None:
        self.predictor = cast(Predictor, Table())
        self.exponent, self.floor, self.noise = exponent, floor, noise
        self.generator = np.random.default_rng(0)
        self.measured = self.processes = 0

    def unpruned_ms(self) -> float:
        return self.predictor.latency_ms(SIZES)

    def truth(self, widths: Mapping[str, int]) -> float:
        share = self.predictor.latency_ms(widths) / self.unpruned_ms()
        return self.floor + (1 - self.floor) * share**self.exponent

    def ratio_at(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> float:
        self.measured += 1
        return self.truth(widths) * float(np.exp(self.generator.normal(0, self.noise)))

    def ratio_anew(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> float:
        self.processes += 1
        return self.truth(widths) * float(np.exp(self.generator.normal(0, self.noise)))


def pose(predictor: Any, most: float) -> Question:
    generators = {name: np.random.default_rng(ord(name)) for name in SIZES}
    cost = Latency(predictor)
    return Question(
        full=SIZES,
        options={name: width_options(size, 4, 1) for name, size in SIZES.items()},
        lost={name: rank_singly(generators[name].random(size)).lost for name, size in SIZES.items()},
        budgets=[Budgeted(cost, most)],
        rank=cost,
    )


def measured(device: Device, budget: float, events: list[Event] | None = None) -> Trial:
    return solve_measured(
        Quick(),
        cast(Bench, device),
        pose,
        budget_ms=budget * UNPRUNED_MS,
        unpruned_ms=UNPRUNED_MS,
        progress=(events if events is not None else []).append,
    )


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("exponent", "floor"), [(1.0, 0.0), (0.6, 0.0), (1.6, 0.0), (1.0, 0.15), (0.5, 0.1)])
def test_the_budget_is_kept_and_used_however_wrong_the_table_is(budget: float, exponent: float, floor: float) -> None:
    trial = measured(Device(exponent, floor), budget)
    assert 0.95 <= trial.used(budget) <= WITHIN[1]


def test_nine_of_ten_plans_are_within_the_budget_and_use_it_when_another_process_measures_them() -> None:
    used = []
    for number in range(25):
        device = Device(0.8, 0.05, noise=0.012)
        device.generator = np.random.default_rng(number)
        trial = measured(device, 0.5)
        used.append(device.truth(trial.answer.widths) / 0.5)
    kept = np.array(used)
    assert (kept <= 1.0).mean() >= 0.95
    assert (kept >= 0.95).mean() >= 0.9


def test_a_plan_that_was_lucky_once_is_not_taken() -> None:
    class Lucky(Device):
        def ratio_at(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> float:
            return super().ratio_at(widths) * (0.9 if self.measured <= 1 else 1.0)

    trial = measured(Lucky(1.0, 0.0), 0.5)
    assert len(trial.ratios) == 3
    assert trial.used(0.5) <= WITHIN[1]


def test_a_table_that_is_right_is_measured_once_in_each_of_three_processes() -> None:
    device, events = Device(1.0, 0.0), list[Event]()
    measured(device, 0.5, events)
    assert device.measured <= 2
    assert device.processes <= 4
    assert "measured" in events[0].note


def test_what_no_plan_reaches_is_refused_with_the_least_that_was_measured() -> None:
    with pytest.raises(BudgetError, match=r"least that was measured.*6\.\d+ ms \(8\d%"):
        measured(Device(1.0, 0.8), 0.5)


def refused(device: Device, budget: float) -> None:
    refuse_impossible(Quick(), cast(Bench, device), pose, budget_ms=budget * UNPRUNED_MS, unpruned_ms=UNPRUNED_MS)


def test_what_is_impossible_is_known_before_the_first_of_several_rounds() -> None:
    with pytest.raises(BudgetError, match=r"least that was measured.*6\.\d+ ms \(8\d%"):
        refused(Device(1.0, 0.8), 0.01)


def test_what_the_table_says_is_possible_is_not_measured_and_what_it_doubts_is() -> None:
    device = Device(1.0, 0.0)
    refused(device, 0.5)
    assert device.measured == 0
    refused(Device(3.0, 0.0), 0.01)  # the table says 1.4 % at least, the device is faster
