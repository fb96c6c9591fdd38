"""`latprune frontier` on the example task and a made-up table: order, what each point says, and what is refused."""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import pruner
from lut import BudgetError, LatencyTable, LatpruneError, TableFile, TaskError, UnitSpec, open_table, predict
from lut.records import Measurement, NetworkMeasurement
from profiler.blocks import Block, find_blocks, without_blocks
from profiler.network import Network, analyze
from profiler.progress import silent
from pruner.commands.frontier import notes
from pruner.cost import Cost
from pruner.curve import Paced, spread_budgets, trace_curve
from pruner.frontier import count_parameters
from pruner.main import app
from pruner.posing import Question, Removable
from pruner.request import PruneConfig
from pruner.solvers import Problem, Solution
from pruner.solvers.greedy import Greedy
from pruner.task import Task, load_task
from tests.lut.examples import CONFIG, CPU
from tests.pruner.test_loop import Table, pose

EXAMPLE = Path(__file__).with_name("example_task.py")
QUICK = PruneConfig(solver="greedy")
POINTS = 8


@pytest.fixture(scope="module")
def task_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "curve_task.py"
    shutil.copyfile(EXAMPLE, path)
    return path


@pytest.fixture(scope="module")
def task(task_path: Path) -> Task:
    return load_task(str(task_path))


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return analyze(task.build(), task.inputs())


def made_up(network: Network, count: int = 30) -> tuple[list[Measurement], list[NetworkMeasurement]]:
    """Rows as profiling leaves them, of a device whose blocks are 8 channels wide."""
    generator = np.random.default_rng(0)
    rows, wholes = [], []
    for _ in range(count):
        widths = {name: int(generator.integers(1, size + 1)) for name, size in network.widths.items()}
        blocks = {name: -(-width // 8) * 8 for name, width in widths.items()}
        total = 0.0
        for unit in network.units:
            ms = 0.002 + 2e-8 * unit.macs(blocks)
            total += ms
            spec = UnitSpec(unit.family, unit.channels(widths))
            rows.append(Measurement(spec, CONFIG, (ms, ms), ms, 0.01, place="in place"))
        wholes.append(NetworkMeasurement(network.hash, tuple(sorted(widths.items())), CONFIG, (total,), total, 0.01))
    return rows, wholes


@pytest.fixture(scope="module")
def table_path(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "made-up.db"
    rows, wholes = made_up(network)
    each = len(rows) // len(wholes)
    with TableFile(path, create=True) as file:
        for number, whole in enumerate(wholes):
            file.add_network(CPU, whole, rows[number * each : (number + 1) * each])
    return path


@pytest.fixture(scope="module")
def table(table_path: Path) -> LatencyTable:
    return open_table(table_path)


@pytest.fixture(scope="module")
def found(task: Task, table: LatencyTable) -> Any:
    return pruner.frontier(task, table, config=QUICK, points=POINTS)


def call(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_curve_goes_from_the_unpruned_network_to_the_narrowest_plan(found: Any, network: Network) -> None:
    first, last = found.points[0], found.points[-1]
    assert first.widths == network.widths
    assert (first.importance_kept, first.speedup, first.gap) == (1.0, 1.0, 0.0)
    assert all(last.widths[name] < size for name, size in network.widths.items())
    assert len(found.points) >= POINTS - 1


def test_a_tighter_budget_never_keeps_more_and_is_never_predicted_slower(found: Any) -> None:
    for looser, tighter in itertools.pairwise(found.points):
        assert tighter.budget_ms < looser.budget_ms
        assert tighter.predicted_ms <= looser.predicted_ms
        assert tighter.importance_kept <= looser.importance_kept


def test_every_point_is_within_its_budget_and_says_what_the_table_predicts(
    found: Any, network: Network, table: LatencyTable
) -> None:
    for point in found.points:
        total = predict(network.units, point.widths, table, network=network.hash).total
        assert (point.predicted_ms, point.low_ms, point.high_ms) == (total.ms, total.low_ms, total.high_ms)
        assert point.predicted_ms <= point.budget_ms
        assert point.macs == network.macs(point.widths)
        assert point.memory == network.memory(point.widths, runtime="onnxruntime")


def test_the_parameters_counted_are_those_of_the_network_really_cut(found: Any, task: Task) -> None:
    point = found.points[len(found.points) // 2]
    sizes = found.unpruned.widths
    remove = {name: list(range(size - point.widths[name])) for name, size in sizes.items()}
    small = pruner.shrink(task.build(), task.inputs(), remove)
    assert point.parameters == sum(parameter.numel() for parameter in small.parameters()) < found.unpruned.parameters


def test_a_shared_parameter_is_counted_once() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    network = analyze(model, (torch.zeros(1, 4, 8, 8),))
    assert count_parameters(network, network.widths) == sum(parameter.numel() for parameter in model.parameters())


def test_scores_are_taken_once_and_nothing_is_measured(task: Task, table: LatencyTable) -> None:
    stages: list[str] = []
    pruner.frontier(task, table, config=QUICK, points=4, progress=lambda event: stages.append(event.stage))
    runs = [stage for number, stage in enumerate(stages) if number == 0 or stages[number - 1] != stage]
    assert sum(stage.startswith("scoring") for stage in runs) == 1
    assert not any("measure" in stage for stage in runs)


def test_what_is_frozen_and_the_least_width_stay_along_the_whole_curve(task: Task, table: LatencyTable) -> None:
    config = PruneConfig(solver="greedy", freeze=("inner",), min_width=16)
    curve = pruner.frontier(task, table, config=config, points=5)
    inner = next(name for name in curve.unpruned.widths if "inner" in name)
    assert len(curve.points) > 2
    for point in curve.points:
        assert point.widths[inner] == 64
        assert all(width >= 16 for width in point.widths.values())


def without_the_first(model: nn.Module, blocks: Sequence[Block], *_: Any, **__: Any) -> dict[str, float]:
    """Scores by which the first block loses almost nothing and the second all."""
    return {block.name: 1e6 * number + 1e-6 for number, block in enumerate(blocks)}


def test_blocks_go_along_the_curve_and_are_counted_as_gone(
    found: Any, task: Task, table: LatencyTable, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruner.question.branch_scores", without_the_first)
    curve = pruner.frontier(task, table, config=PruneConfig(blocks=True), points=POINTS)
    assert curve.blocks is not None
    first, second = curve.blocks
    assert curve.points[0].removed_blocks == ()
    assert {point.removed_blocks for point in curve.points[2:-1]} == {(first,)}
    assert curve.points[-1].removed_blocks == (first, second)
    assert curve.points[-1].predicted_ms < found.points[-1].predicted_ms
    blocks = {block.name: block for block in find_blocks(network)}
    for looser, tighter in itertools.pairwise(curve.points):
        assert tighter.predicted_ms <= looser.predicted_ms
        assert tighter.importance_kept <= looser.importance_kept
    for point in curve.points:
        assert point.predicted_ms <= point.budget_ms * (1 + 1e-9)
        present = without_blocks(network, [blocks[name] for name in point.removed_blocks])
        assert point.macs == present.macs(point.widths)
        assert not point.missing
    point = curve.points[2]
    inside = {name for block in point.removed_blocks for name in blocks[block].groups}
    remove = {
        name: list(range(size - point.widths[name])) for name, size in network.widths.items() if name not in inside
    }
    small = pruner.shrink(task.build(), task.inputs(), remove, blocks=point.removed_blocks)
    assert point.parameters == sum(parameter.numel() for parameter in small.parameters())


def test_the_command_tells_which_blocks_may_go_and_how_many_went(
    task_path: Path, table_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruner.question.branch_scores", without_the_first)
    args = ("frontier", task_path, "--table", table_path, "--points", 3, "--blocks", "--importance", "magnitude")
    done = call(*args)
    assert done.exit_code == 0, done.output
    assert "blocks that may go: " in done.stdout
    report = json.loads(call(*args, "--json").stdout)
    assert [len(point["removed_blocks"]) for point in report["points"]] == [0, 1, 2]


def test_what_blocks_leave_without_a_price_is_said(found: Any) -> None:
    first, *others = found.points
    told = notes(replace(found, points=(replace(first, missing=("block:gelu",)), *others), blocks=()))
    assert told[0] == "blocks that may go: none"
    assert told[1].startswith("predicted without block:gelu: left behind where blocks went")


def test_every_plan_keeps_a_memory_budget(found: Any, task: Task, table: LatencyTable) -> None:
    curve = pruner.frontier(task, table, config=QUICK, points=5, memory_fraction=0.7)
    assert curve.memory_budget_bytes == pytest.approx(0.7 * found.unpruned.memory.total_bytes)
    assert all(point.memory.total_bytes <= curve.memory_budget_bytes for point in curve.points)
    assert curve.points[0].importance_kept < 1
    with pytest.raises(BudgetError, match="the least that any plan reaches"):
        pruner.frontier(task, table, config=QUICK, memory_bytes=10)


def test_the_memory_kept_is_that_of_the_runtime_and_precision_asked_for(
    found: Any, task_path: Path, table_path: Path, network: Network
) -> None:
    args = (
        "frontier",
        task_path,
        "--table",
        table_path,
        "--solver",
        "greedy",
        "--points",
        3,
        "--memory",
        "90%",
        "--json",
    )
    for precision in ("fp32", "fp16"):
        report = json.loads(call(*args, "--memory-of", f"tensorrt-rtx:8.6:{precision}").stdout)
        counted = network.liveness("tensorrt-rtx", precision)
        assert report["memory_budget_bytes"] == pytest.approx(0.9 * counted.at(network.widths).total_bytes)
        for point in report["points"]:
            assert point["total_bytes"] == counted.at(point["widths"]).total_bytes <= report["memory_budget_bytes"]


def test_memory_that_only_a_plan_without_blocks_keeps_is_no_refusal(
    task: Task, table: LatencyTable, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruner.question.branch_scores", without_the_first)
    config = PruneConfig(blocks=True, min_width=24)
    least = pruner.frontier(task, table, config=replace(config, blocks=False), points=2).points[-1]
    gone = without_blocks(network, find_blocks(network))
    without = gone.liveness("onnxruntime").at(least.widths).total_bytes
    assert without < least.memory.total_bytes
    most = (without + least.memory.total_bytes) // 2
    with pytest.raises(BudgetError, match="the least that any plan reaches"):
        pruner.frontier(task, table, config=replace(config, blocks=False), points=4, memory_bytes=most)
    curve = pruner.frontier(task, table, config=config, points=4, memory_bytes=most)
    assert all(point.memory.total_bytes <= most for point in curve.points)
    assert all(point.removed_blocks for point in curve.points)
    with pytest.raises(BudgetError, match="the least that any plan reaches"):
        pruner.frontier(task, table, config=config, points=4, memory_bytes=without // 2)


def test_milp_is_never_worse_than_greedy_and_proves_its_gap(found: Any, task: Task, table: LatencyTable) -> None:
    exact = pruner.frontier(task, table, points=POINTS)
    assert len(exact.points) == len(found.points)
    for point, other in zip(exact.points, found.points, strict=True):
        assert point.lost <= other.lost * (1 + 1e-9)
        assert point.gap is not None
        assert point.gap <= 0.01


def test_units_that_the_table_lacks_are_named_and_in_no_latency(
    found: Any, task: Task, network: Network, task_path: Path, tmp_path: Path
) -> None:
    rows, _ = made_up(network)
    lacking = next(unit for unit in network.units if "inner" in unit.name or "inner" in str(unit.modules))
    alike = [unit.name for unit in network.units if unit.family == lacking.family]
    with TableFile(tmp_path / "part.db", create=True) as file:
        file.add_measurements(CPU, [row for row in rows if row.spec.family != lacking.family])
    done = call("frontier", task_path, "--table", tmp_path / "part.db", "--solver", "greedy", "--points", 3, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["missing"] == alike
    assert report["unpruned_ms"] < found.unpruned_ms
    assert "NOT in these latencies" in done.stderr


def test_the_command_gives_one_json_object_and_draws_the_curve(
    task_path: Path, table_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curve.svg"
    args = ("frontier", task_path, "--table", table_path, "--solver", "greedy", "--points", 5, "--plot", picture)
    done = call(*args, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {"points", "unpruned_ms", "importance", "solver", "missing"} <= set(report)
    keys = (
        "budget_ms predicted_ms low_ms high_ms speedup importance_kept lost parameters macs gap widths "
        "weights_bytes peak_activation_bytes workspace_bytes total_bytes traffic_bytes"
    )
    assert all(set(keys.split()) <= set(point) for point in report["points"])
    drawn = picture.read_text()
    assert "importance kept, % (fisher)" in drawn
    assert "predicted by made-up.db alone" in drawn
    text = call(*args).stdout
    assert "nothing was measured" in text
    assert "greedy proved nothing" in text


def test_what_a_reader_has_to_know_is_said_below_the_table(found: Any) -> None:
    assert notes(found) == ["gap: greedy proved nothing"]
    first, second, *others = found.points
    unsure = replace(second, high_ms=1.5 * second.predicted_ms, taken_over=True, gap=0.01)
    told = notes(replace(found, points=(first, unsure, *others)))
    assert told[0].startswith(f"*: at 1 of {len(found.points)} budgets the solver found a worse plan")
    assert told[1].startswith(f"the table is unsure at 1 of {len(found.points)} budgets")
    assert told[2].endswith(f"proved in time at 1 of {len(found.points) - 1} (--seconds gives more)")
    assert "pruning gains no latency here" in notes(replace(found, points=(first,)))[0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--plot", "curve.txt"), "no kind of picture"),
        (("--plot", "nowhere/curve.png"), "there is no folder"),
        (("--importance", "luck"), "no importance 'luck'"),
        (("--solver", "luck"), "no solver 'luck'"),
        (("--freeze", "nothing.*"), "names no layer"),
    ],
)
def test_what_makes_no_sense_is_refused_with_2(
    task_path: Path, table_path: Path, more: Sequence[str], says: str
) -> None:
    done = call("frontier", task_path, "--table", table_path, *more)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_task_without_a_loss_has_a_curve_only_by_what_looks_at_no_data(network: Network, table: LatencyTable) -> None:
    example = load_task(str(EXAMPLE))
    bare = Task("bare", example.model, example.example_inputs)
    with pytest.raises(TaskError, match=r"lacks train_batches\(\) and loss\(\)"):
        pruner.frontier(bare, table, config=QUICK)
    curve = pruner.frontier(bare, table, config=PruneConfig(solver="greedy", importance="magnitude"), points=3)
    assert curve.points[-1].importance_kept < 1


def test_a_network_whose_importance_is_nowhere_is_refused(task: Task, table: LatencyTable) -> None:
    def flat(model: nn.Module, batch: Any) -> torch.Tensor:
        return 0 * model(batch[0]).sum(1)

    blind = Task("flat", task.model, task.example_inputs, task.train_batches, flat)
    with pytest.raises(LatpruneError, match="importance is 0"):
        pruner.frontier(blind, table, config=QUICK)


class Erratic:
    """A solver that gives any options, within the limits or not, and proves nothing."""

    name = "erratic"
    ranks_by_ratio = False

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def solve(self, problem: Problem) -> Solution:
        choice = np.array([self.generator.integers(len(losses)) for losses in problem.losses])
        return problem.solution(choice, 0)


def question() -> Question:
    return pose(Table(), 1.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), points=st.integers(2, 12))
def test_whatever_a_solver_says_the_curve_is_in_order_and_within_its_budgets(seed: int, points: int) -> None:
    asked = question()
    latency = asked.budgets[0].cost
    budgets = spread_budgets(latency.at(asked.full), latency.at(asked.narrowest()), points)
    curve = trace_curve(asked, budgets, Erratic(seed), silent)
    assert [choice.budget_ms for choice in curve] == budgets
    assert all(choice.ms <= choice.budget_ms for choice in curve)
    for looser, tighter in itertools.pairwise(curve):
        assert looser.lost <= tighter.lost
        assert looser.ms >= tighter.ms
    assert curve[0].lost == 0


class Forgetful(Greedy):
    """Greedy, but at loose budgets it gives the narrowest plan."""

    def solve(self, problem: Problem) -> Solution:
        if problem.limits[0].most > 5:
            return problem.solution(np.zeros(len(problem.losses), dtype=np.int64), 0)
        return super().solve(problem)


def test_a_worse_answer_than_a_tighter_budgets_gives_way_and_is_marked() -> None:
    budgets = [7.0, 6.0, 4.0, 2.0]
    good, bad = (trace_curve(question(), budgets, solver, silent) for solver in (Greedy(), Forgetful()))
    assert [choice.taken_over for choice in good] == [False] * 4
    assert [choice.taken_over for choice in bad] == [True, True, False, False]
    assert bad[0].widths == bad[1].widths == bad[2].widths == good[2].widths


class LeavesHalf:
    """The latency without the first two units, which leave half a millisecond behind that no table knows of."""

    def at(self, widths: Mapping[str, int]) -> float:
        pairs = list(itertools.pairwise(widths.values()))[2:]
        return 0.8 + 1e-3 * sum(one * other for one, other in pairs)


def test_a_plan_without_blocks_is_within_its_budget_by_what_is_left_behind_too() -> None:
    asked = question()
    whole = replace(asked.budgets[0], without=lambda _blocks: cast(Cost, LeavesHalf()))
    block = Removable("block", 1e-6, owns=("ab", "bc"), groups=("b",))
    asked = replace(asked, budgets=[whole], blocks=[block])
    curve = trace_curve(asked, [24.0, 12.0, 6.0, 3.0], Greedy(), silent)
    assert all(choice.blocks for choice in curve[1:])
    for choice in curve:
        assert choice.ms <= choice.budget_ms
        assert choice.ms == pytest.approx((LeavesHalf() if choice.blocks else whole.cost).at(choice.widths))


def test_a_loose_budgets_bound_holds_for_tighter_ones() -> None:
    class Bounding(Greedy):
        def solve(self, problem: Problem) -> Solution:
            solution = super().solve(problem)
            most = problem.limits[0].most
            return problem.solution(solution.choice, 0, {6.0: 0.9 * solution.lost, 4.0: 1e-6}.get(most))

    curve = trace_curve(question(), [6.0, 4.0, 2.0], Bounding(), silent)
    assert curve[0].gap == pytest.approx(0.1)
    assert curve[1].bound == curve[0].bound
    assert curve[2].gap is None


@given(unpruned=st.floats(0.01, 1e4), least=st.floats(0.001, 0.999), points=st.integers(2, 40))
def test_budgets_descend_from_the_unpruned_latency_to_the_narrowest_plans(
    unpruned: float, least: float, points: int
) -> None:
    budgets = spread_budgets(unpruned, least * unpruned, points)
    assert budgets[0] == unpruned
    assert budgets == sorted(set(budgets), reverse=True)
    assert least * unpruned <= budgets[-1] <= least * unpruned * (1 + 1e-5)
    if (1 - least) / (points - 1) >= 0.01:
        assert all(abs(100 * b / unpruned - round(100 * b / unpruned)) < 1e-6 for b in budgets[:-1])
        assert 2 / 3 * points - 1 <= len(budgets) <= 1.5 * points + 1


def test_a_narrowest_plan_that_is_not_faster_leaves_one_budget() -> None:
    (budget,) = spread_budgets(2.0, 2.5, 20)
    assert budget == pytest.approx(2.5)


def test_time_that_easy_budgets_leave_goes_to_the_others() -> None:
    now = 100.0
    paced = Paced(10.0, clock=lambda: now)
    paced.begin(4)
    assert paced.left_s == pytest.approx(2.5)
    now = 101.0  # the first took one second
    paced.begin(3)
    assert paced.left_s == pytest.approx(3.0)
    now = 200.0
    paced.begin(2)
    assert paced.left_s == 0
