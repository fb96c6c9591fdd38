import math

import pytest
import torch

from lut.records import MeasureConfig
from profiler.backends.interface import NodeTime
from profiler.inplace import SHORTEST_MS, CutCheck, Kernel, Owners, find_forms, find_kernels, to_rows
from profiler.network import Network, analyze
from profiler.robust import relative_noise
from profiler.worker_replies import NodesReply
from tests.pruner.example_task import SmallNet, example_inputs


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return analyze(SmallNet().eval(), example_inputs())


def node(origin: str | None, *samples: float, outputs: tuple[str, ...] = ("made",), kernel: str = "") -> NodeTime:
    return NodeTime("", "Conv", ("read",), outputs, sum(samples) / len(samples), samples, origin, kernel=kernel)


def test_a_units_nodes_are_sorted_by_kind_and_added_up() -> None:
    owners = Owners({"conv": 0, "relu": 0, "pool": 1})
    nodes = [
        *(node("conv", 1.0, 2.0, kernel="Conv"), node("relu", 0.5, 0.5, kernel="Relu")),
        *(node("pool", 3.0, 4.0, kernel="Pool"), node("pool", 1.0, 1.0, kernel="Pool"), node(None, 7.0, 7.0)),
    ]
    kernels, unowned = find_kernels(owners, nodes, 3, 0.25)
    assert kernels == [
        [Kernel("Conv", (0.75, 1.75)), Kernel("Relu", (0.25, 0.25))],
        [Kernel("Pool ×2", (3.5, 4.5))],
        [],
    ]
    assert unowned == 6.75


def test_what_profiling_adds_never_makes_a_time_negative() -> None:
    kernels, _ = find_kernels(Owners({"conv": 0}), [node("conv", 0.002, 0.004)], 1, 0.003)
    assert kernels[0][0].samples_ms == pytest.approx([0.0, 0.001])


def test_a_row_says_what_the_runtime_made_of_the_unit(network: Network) -> None:
    owners = Owners({"conv": 0})
    nodes = (node("conv", 1.0, kernel="Conv"), node("conv", 0.5, kernel="Add"))
    reply = NodesReply(median_ms=1.5, noise=0.01, nodes=nodes, node_overhead_ms=0.0)
    whole, rows = to_rows(network, owners, network.widths, reply, MeasureConfig(), 1.0)
    assert rows[0].kernels == (("Add", 0.5), ("Conv", 1.0))
    assert rows[0].median_ms == 1.5
    assert rows[1].kernels == (("merged", SHORTEST_MS),)
    forms = find_forms(network, owners, nodes)
    assert forms == dict(whole.forms)
    assert forms[network.units[0].name] == ("Add", "Conv")
    assert forms[network.units[1].name] == ("merged",)


def test_a_unit_that_is_often_too_short_to_see_still_gets_a_row(network: Network) -> None:
    owners = Owners({"conv": 0})
    samples = (0.003, 0.003, 0.003, 0.003, 0.009, 0.009, 0.009)
    reply = NodesReply(median_ms=1.0, noise=0.01, nodes=(node("conv", *samples),), node_overhead_ms=0.003)
    whole, rows = to_rows(network, owners, network.widths, reply, MeasureConfig(), 1.0)
    assert len(rows) == len(network.units)
    assert all(row.median_ms is not None and row.median_ms >= SHORTEST_MS for row in rows)
    assert all(row.noise is not None and math.isfinite(row.noise) for row in rows)
    assert whole.median_ms == 1.0


def test_a_machine_that_was_slow_is_divided_out(network: Network) -> None:
    reply = NodesReply(median_ms=2.0, noise=0.01, nodes=(node("conv", 1.0, 1.0),), node_overhead_ms=0.0)
    whole, rows = to_rows(network, Owners({"conv": 0}), network.widths, reply, MeasureConfig(), 2.0)
    assert whole.median_ms == 1.0
    assert rows[0].median_ms == 0.5


def test_a_failure_is_a_row_of_its_own(network: Network) -> None:
    whole, rows = to_rows(network, Owners({}), network.widths, NodesReply(failure="killed"), MeasureConfig(), 1.0)
    assert (whole.failure, whole.median_ms, rows) == ("killed", None, [])


def test_samples_around_nothing_have_no_noise_to_speak_of() -> None:
    assert relative_noise([0.0, 0.0, 0.0, 1.0]) == math.inf


def test_the_cut_is_compared_with_what_the_runtime_ran() -> None:
    check = CutCheck.of([("Conv",), ("Conv",), ("Add", "Conv"), ("Reorder ×2",), ("merged",)])
    assert check == CutCheck(alone=2, several=2, merged=1)
    assert "2 of 5" in str(check)
