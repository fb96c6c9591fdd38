import itertools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest

from lut import BudgetError, Predictor
from profiler.progress import Event
from pruner.cost import Latency
from pruner.loop import MARGIN, Bench, Trial, solve_measured
from pruner.solvers import Limit, Problem, width_options
from pruner.solvers.greedy import Greedy

SIZES = dict.fromkeys("abcdefgh", 64)
UNPRUNED_MS = 8.0


class Table:
    """What a predictor says: a sum of products, without an idea of what the device really does."""

    def latency_ms(self, widths: Mapping[str, int]) -> float:
        kept = list(widths.values())
        return 1e-3 * (sum(a * b for a, b in itertools.pairwise(kept)) + 300)

    def change_ms(self, widths: Mapping[str, int], group: str, width: int, options: object = None) -> float:
        return self.latency_ms({**widths, group: width}) - self.latency_ms(widths)


class Device:
    """A bench whose device disagrees with the table, and whose table never learns: the worst case."""

    def __init__(self, exponent: float, floor: float) -> None:
        self.predictor = cast(Predictor, Table())
        self.exponent, self.floor = exponent, floor
        self.measured = 0

    def unpruned_ms(self) -> float:
        return self.predictor.latency_ms(SIZES)

    def ratio_at(self, widths: Mapping[str, int]) -> tuple[float, float]:
        self.measured += 1
        share = self.predictor.latency_ms(widths) / self.unpruned_ms()
        return self.floor + (1 - self.floor) * share**self.exponent, 0.005


def pose(predictor: Any, most: float) -> Problem:
    scores = {name: np.sort(np.random.default_rng(ord(name)).random(size)) for name, size in SIZES.items()}
    cost = Latency(predictor)
    return Problem(
        start=SIZES,
        options={name: width_options(size, 8, 1) for name, size in SIZES.items()},
        scores=scores,
        limits=[Limit(cost, most)],
        rank=cost,
        together=dict.fromkeys(SIZES, frozenset(SIZES)),
    )


def solve(device: Device, budget: float, events: list[Event] | None = None) -> Trial:
    return solve_measured(
        Greedy(),
        cast(Bench, device),
        pose,
        budget_ms=budget * UNPRUNED_MS,
        unpruned_ms=UNPRUNED_MS,
        progress=(events if events is not None else []).append,
    )


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("exponent", "floor"), [(1.0, 0.0), (0.6, 0.0), (1.6, 0.0), (1.0, 0.15), (0.5, 0.1)])
def test_the_budget_is_kept_and_used_however_wrong_the_table_is(budget: float, exponent: float, floor: float) -> None:
    trial = solve(Device(exponent, floor), budget)
    assert trial.ratio <= budget * (1 - MARGIN)
    assert trial.ratio >= 0.9 * budget


def test_a_table_that_is_right_is_measured_once() -> None:
    device, events = Device(1.0, 0.0), list[Event]()
    solve(device, 0.5, events)
    assert device.measured <= 3
    assert "measured" in events[0].note


def test_what_no_plan_reaches_is_refused_with_the_least_that_was_measured() -> None:
    with pytest.raises(BudgetError, match=r"least that was measured.*6\.\d+ ms \(8\d%"):
        solve(Device(1.0, 0.8), 0.5)
