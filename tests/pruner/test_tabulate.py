from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lut.records import Coordinate
from profiler.network import Network, analyze
from pruner.cost import ActivationBytes, Channels, Cost, Macs, Memory, Parameters, Sum, Term
from pruner.options import MOST, width_options
from pruner.posing import Budgeted, Posed, Question, Removable
from pruner.solvers.problem import Grid, Ints
from pruner.tabulate import Options, Tabulator
from tests.pruner.example_task import SmallNet, example_inputs


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return analyze(SmallNet().eval(), example_inputs())


def options_of(widths: Mapping[str, int], step: int = 4) -> Options:
    names = tuple(widths)
    offered = tuple(np.array(width_options(widths[name], step, 1), dtype=np.int64) for name in names)
    return Options(names, offered, {}, {}, {})


def test_tables_say_what_the_costs_say(network: Network) -> None:
    options = options_of(network.widths)
    costs: list[Cost] = [
        Macs(network.units),
        ActivationBytes(network.cut.liveness, network.units),
        Memory(network.cut.liveness),
        Parameters(network.cut.liveness),
        Channels(network.widths),
    ]
    generator = np.random.default_rng(0)
    for cost in costs:
        tabled = Tabulator(options, network.widths).cost(cost)
        for _ in range(10):
            choice: Ints = np.array([generator.integers(len(widths)) for widths in options.widths])
            widths = {name: int(own[o]) for name, own, o in zip(options.names, options.widths, choice, strict=True)}
            assert tabled.at(choice) == pytest.approx(cost.at(widths)), cost.name
            for group, own in enumerate(options.widths):
                along = [cost.at({**widths, options.names[group]: int(width)}) for width in own]
                assert tabled.changes(choice, group) == pytest.approx(np.array(along) - cost.at(widths)), cost.name


def test_halving_every_width_quarters_the_inner_convolutions(network: Network) -> None:
    inner = next(unit for unit in network.units if unit.name == "inner")
    half = {name: size // 2 for name, size in network.widths.items()}
    assert inner.macs(half) == inner.macs(network.widths) / 4


class Joined:
    """What a concat of many groups feeds: a product of their sum and of another width."""

    name, unit, knows_blocks = "latency", "ms", True

    def __init__(self, groups: int) -> None:
        joined = Coordinate(tuple((f"g{number}", 2 if number == 0 else 1) for number in range(groups)), 3)
        self.coordinates = (joined, Coordinate((("out", 1),)))

    def at(self, widths: Mapping[str, int]) -> float:
        return float(np.sqrt(self.coordinates[0].at(widths)) * self.coordinates[1].at(widths))

    def terms(self) -> list[Term]:
        return [Term(self.coordinates, lambda channels: np.sqrt(channels[:, 0]) * channels[:, 1])]

    def sums(self) -> list[Sum]:
        return [Sum((0,))]


def test_what_depends_on_a_sum_of_many_widths_is_held_exactly() -> None:
    cost = Joined(9)
    options = options_of({f"g{number}": 32 for number in range(9)} | {"out": 64})
    tabulator = Tabulator(options, {})
    tabled = tabulator.cost(cost)
    assert [type(part) for part in tabled.parts] == [Grid]
    assert tabulator.approximated == 0
    generator = np.random.default_rng(1)
    for _ in range(20):
        choice: Ints = np.array([generator.integers(len(widths)) for widths in options.widths])
        widths = {name: int(own[o]) for name, own, o in zip(options.names, options.widths, choice, strict=True)}
        assert tabled.at(choice) == pytest.approx(cost.at(widths))
        along = [cost.at({**widths, "g0": int(width)}) for width in options.widths[0]]
        assert tabled.changes(choice, 0) == pytest.approx(np.array(along) - cost.at(widths))


class Concat:
    """A unit with a channel count for each of many inputs: no table and no grid can hold it."""

    name, unit, knows_blocks = "latency", "ms", True

    def __init__(self, groups: int) -> None:
        self.coordinates = tuple(Coordinate(((f"g{number}", 1),)) for number in range(groups))

    def price(self, channels: Ints) -> np.ndarray:
        return 1.0 + channels.sum(axis=1) + 1e-3 * channels.sum(axis=1) ** 2.0

    def at(self, widths: Mapping[str, int]) -> float:
        return float(self.price(np.array([[c.at(widths) for c in self.coordinates]]))[0])

    def terms(self) -> list[Term]:
        return [Term(self.coordinates, self.price)]

    def sums(self) -> list[Sum]:
        return [Sum((0,))]


def test_what_no_table_holds_is_exact_about_given_widths_and_counted() -> None:
    cost = Concat(8)
    full = {f"g{number}": 32 for number in range(8)}
    options, about = options_of(full), dict.fromkeys(full, 16)
    tabulator = Tabulator(options, about)
    tabled = tabulator.cost(cost)
    assert tabulator.approximated == 1
    here: Ints = np.array([int(np.flatnonzero(widths == 16)[0]) for widths in options.widths])
    assert tabled.at(here) == pytest.approx(cost.at(about))
    along = [cost.at({**about, "g3": int(width)}) for width in options.widths[3]]
    assert tabled.along(here, 3) == pytest.approx(along)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_blocks_units_cost_nothing_without_it_and_what_stands_in_their_place_only_then(data: st.DataObject) -> None:
    inner = Coordinate((("inner", 1),))
    trunk = Coordinate((("trunk", 1),))

    class BlockCost:
        name, unit, knows_blocks = "latency", "ms", True

        def at(self, widths: Mapping[str, int]) -> float:
            return 3.0 * widths["trunk"] * widths["inner"] + 5.0 * widths["trunk"] + 1.0 * widths["trunk"]

        def terms(self) -> list[Term]:
            return [
                Term((trunk, inner), lambda c: 3.0 * c.prod(axis=1), "block.conv"),
                Term((trunk,), lambda c: 5.0 * c.prod(axis=1), "block.depthwise"),
                Term((trunk,), lambda c: 1.0 * c.prod(axis=1), "elsewhere"),
                Term((trunk,), lambda c: 2.0 * c.prod(axis=1), instead_of="block"),
            ]

        def sums(self) -> list[Sum]:
            return [Sum((0, 1, 2, 3))]

    cost = BlockCost()
    full = {"trunk": 16, "inner": 8}
    question = Question(
        full=full,
        options={"trunk": (4, 8, 16), "inner": (4, 8)},
        lost={name: np.arange(width + 1.0) for name, width in full.items()},
        budgets=[Budgeted(cost, 1e9)],
        rank=cost,
        blocks=[Removable("block", 7.0, ("block.conv", "block.depthwise"), ("inner",))],
    )
    posed = Posed(question, full)
    (limit,) = posed.problem.limits
    trunk_option = data.draw(st.integers(0, 2))
    there: Ints = np.array([trunk_option, data.draw(st.integers(1, 2)), 1])
    widths, gone = posed.answer(posed.problem.solution(there, 0))
    assert gone == ()
    assert limit.cost.at(there) == pytest.approx(cost.at(widths))
    without: Ints = np.array([trunk_option, 0, 0])
    widths, gone = posed.answer(posed.problem.solution(without, 0))
    assert gone == ("block",)
    assert limit.cost.at(without) == pytest.approx((1.0 + 2.0) * widths["trunk"])
    assert posed.problem.lost(without) == pytest.approx(7.0 + 16 - widths["trunk"])


@given(size=st.integers(1, 4000), step=st.integers(1, 128), least=st.integers(1, 5000))
def test_options_are_ascending_end_with_the_whole_and_respect_the_least_width(size: int, step: int, least: int) -> None:
    options = width_options(size, step, least)
    assert list(options) == sorted(set(options))
    assert options[-1] == size
    assert all(width >= min(least, size) for width in options)
    assert len(options) <= MOST + 3
