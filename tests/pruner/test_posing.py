import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from lut.records import Coordinate
from pruner.beyond import with_what_is_beyond
from pruner.cost import Sum, Term
from pruner.importance.ranking import rank_singly
from pruner.posing import Budgeted, Posed, Question, Removable
from pruner.solvers import SOLVERS, Solver
from pruner.solvers.problem import Ints
from pruner.solving import solve

WIDTHS = {"a": 64, "b": 64, "c": 64}
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)


class Chain:
    """A cost like that of convolutions one after another; what is true may lie above what the tables hold."""

    name, unit, knows_blocks = "memory", "bytes", False

    def __init__(self, gaps: float = 0.0) -> None:
        self.gaps = gaps

    def at(self, widths: Mapping[str, int]) -> float:
        total = widths["a"] * widths["b"] + widths["b"] * widths["c"]
        return float(total * (1 + self.gaps * (widths["b"] % 16 != 0)) + 100)

    def terms(self) -> list[Term]:
        pairs = [("a", "b"), ("b", "c")]
        return [
            Term(
                tuple(Coordinate(((group, 1),)) for group in pair),
                lambda channels: channels.prod(axis=1).astype(float),
                "".join(pair),
            )
            for pair in pairs
        ]

    def sums(self) -> list[Sum]:
        return [Sum((0, 1), 100.0)]


def ask(cost: Chain, most: float, blocks: tuple[Removable, ...] = ()) -> Question:
    generator = np.random.default_rng(0)
    return Question(
        full=WIDTHS,
        options={name: tuple(range(8, size + 1, 8)) for name, size in WIDTHS.items()},
        lost={name: rank_singly(generator.random(size)).lost for name, size in WIDTHS.items()},
        budgets=[Budgeted(cost, most)],
        rank=cost,
        blocks=blocks,
    )


@every_solver
@pytest.mark.parametrize("gaps", [0.0, 0.05, 0.4])
def test_a_budget_is_kept_by_the_cost_itself_where_tables_know_only_a_part_of_it(solver: Solver, gaps: float) -> None:
    cost = Chain(gaps)
    answer = solve(ask(cost, 4000.0), solver)
    assert answer.met
    assert answer.costs == (cost.at(answer.widths),)
    assert answer.costs[0] <= 4000.0
    assert answer.approximated == 0


@every_solver
def test_what_no_plan_keeps_is_not_met(solver: Solver) -> None:
    answer = solve(ask(Chain(), 150.0), solver)
    assert not answer.met
    assert answer.widths == dict.fromkeys(WIDTHS, 8)


def test_a_block_that_loses_little_goes_and_its_groups_stay_as_they_are() -> None:
    block = Removable("b", 1e-3, ("ab", "bc"), ("b",))
    exact = next(solver for solver in SOLVERS if solver.name == "milp")
    answer = solve(ask(Chain(), 4000.0, (block,)), exact)
    assert answer.blocks == ("b",)
    assert answer.widths == WIDTHS
    assert answer.lost == pytest.approx(1e-3)
    assert answer.costs == (pytest.approx(100.0),)


def test_nothing_is_proved_where_costs_are_only_approximated() -> None:
    class Joining(Chain):
        def terms(self) -> list[Term]:
            coordinates = tuple(Coordinate(((f"g{number}", 1),)) for number in range(8))
            return [Term(coordinates, lambda channels: channels.sum(axis=1).astype(float))]

        def at(self, widths: Mapping[str, int]) -> float:
            return float(sum(widths.values()))

        def sums(self) -> list[Sum]:
            return [Sum((0,))]

    cost, full = Joining(), {f"g{number}": 32 for number in range(8)}
    generator = np.random.default_rng(0)
    question = Question(
        full=full,
        options={name: tuple(range(4, 33, 4)) for name in full},
        lost={name: rank_singly(generator.random(32)).lost for name in full},
        budgets=[Budgeted(cost, 100.0)],
        rank=cost,
    )
    answer = solve(question, next(solver for solver in SOLVERS if solver.name == "milp"))
    assert answer.met
    assert answer.approximated == 1
    assert answer.bound is None
    assert answer.gap is None


class Packed(Chain):
    """A chain whose layout has gaps that no table knows: the widest layer's, once more."""

    def at(self, widths: Mapping[str, int]) -> float:
        return super().at(widths) + 40.0 * max(widths.values())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_gaps_that_no_table_knows_cost_little_of_the_budget(share: float) -> None:
    cost = Packed()
    exact = next(solver for solver in SOLVERS if solver.name == "milp")
    asked = ask(cost, share * cost.at(WIDTHS))
    answer = solve(asked, exact)
    assert answer.met
    every = [dict(zip(asked.options, widths, strict=True)) for widths in itertools.product(*asked.options.values())]
    within = [widths for widths in every if cost.at(widths) <= asked.budgets[0].most]
    least = min(sum(float(asked.lost[name][64 - width]) for name, width in widths.items()) for widths in within)
    assert answer.lost <= 1.3 * least


def test_what_is_beyond_the_tables_is_exact_at_a_plan_and_beside_it() -> None:
    cost = Packed()
    asked = ask(cost, 4000.0)
    posed = Posed(asked, WIDTHS)
    (limit,) = posed.problem.limits
    plan = np.array([3, 6, 2])

    def at(choice: Ints) -> float:
        return cost.at(posed.answer_of(choice)[0])

    def other(group: int, option: int) -> Ints:
        moved = plan.copy()
        moved[group] = option
        return moved

    found = with_what_is_beyond(limit.cost, plan, lambda group, option: at(other(group, option)), at(plan))
    for group, option in itertools.product(range(3), range(8)):
        assert found.at(other(group, option)) == pytest.approx(at(other(group, option)))
