"""Memory with no device at hand: tables that a compiler fills, budgets that its own figure keeps; small real builds."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from lut import BackendError, BudgetError, LatencyTable, TableError, open_table
from lut.store import TableFile
from profiler.ahead import Compiler, Target, as_precision, workspace_in
from profiler.ahead_profile import AheadConfig, AheadReport, profile_ahead
from profiler.backends import memory_rules
from profiler.export import flat_arrays, lively, to_onnx
from profiler.network import Network, analyze
from pruner.main import app
from pruner.plan import PrunePlan
from pruner.prune import PruneConfig, prune
from pruner.rundir import load
from pruner.task import Task, load_task

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).with_name("example_task.py")
FP16 = Target("tensorrt-rtx", "8.6", "fp16")
FEW = AheadConfig(networks_min=3, networks_max=3)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("task") / "ahead_task.py"
    shutil.copyfile(EXAMPLE, path)
    return load_task(str(path))


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return analyze(task.build(), task.inputs())


def fill(network: Network, path: Path, target: Target, config: AheadConfig = FEW) -> AheadReport:
    with Compiler(target, flat_arrays(lively(network.inputs))) as compiler:
        return profile_ahead(network, path, compiler, config=config)


@pytest.fixture(scope="module")
def table_path(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "ahead.db"
    fill(network, path, FP16)
    return path


def test_rows_are_kept_under_a_fingerprint_of_their_own_and_are_not_made_twice(
    network: Network, table_path: Path
) -> None:
    table = open_table(table_path)
    assert table.fingerprint.ahead_of_time
    assert table.fingerprint.compute_capability == "8.6"
    assert dict(table.fingerprint.settings)["precision"] == "fp16"
    assert dict(table.fingerprint.settings)["max_aux_streams"] == 0
    assert Target.of(table.fingerprint) == FP16
    assert len(table.networks) == 3
    for row in table.networks:
        assert row.median_ms is None
        assert row.precision == "fp16"
        assert row.weights_bytes is not None
        assert row.activation_bytes is not None
        assert 0 < (row.workspace_bytes or 0) < row.activation_bytes
    again = fill(network, table_path, FP16)
    assert (again.compiled, again.reused, again.failed) == (0, 3, 0)
    assert open_table(table_path).networks == table.networks


def test_units_tell_their_memory_alone_and_count_neither_as_latencies_nor_as_failures(table_path: Path) -> None:
    table = open_table(table_path)
    rows = {row.spec.family.operation: row for row in table.measurements}
    assert {"convolution", "linear"} <= set(rows)
    assert all(row.memory_alone and row.place == "isolated" for row in table.measurements)
    assert all(row.spec.family.precision == "fp16" for row in table.measurements)
    assert 2 * 48 * 4 <= (rows["linear"].weights_bytes or 0) <= 4 * 48 * 4 + 1024
    assert (table.families, table.failures) == ((), [])
    shown = CliRunner().invoke(app, ["table", "show", str(table_path), "--json"])
    (content,) = json.loads(shown.stdout)["fingerprints"]
    assert content["failures"] == 0
    assert content["ahead_of_time_bounds"][0]["compiled"] == len(table.networks)


@pytest.mark.parametrize("command", ["predict", "frontier"])
def test_what_goes_by_latencies_says_that_the_table_has_none(table_path: Path, command: str) -> None:
    refused = CliRunner().invoke(app, [command, str(EXAMPLE), "--table", str(table_path), "--json"])
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "made ahead of time: it holds memory and no latencies" in " ".join(refused.stderr.split())


def test_two_precisions_stand_side_by_side_and_one_has_to_be_chosen(
    network: Network, table_path: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both.db"
    shutil.copyfile(table_path, both)
    single = fill(network, both, Target("tensorrt-rtx", "8.6"), AheadConfig(networks_min=1, networks_max=1))
    half = open_table(both, precision="fp16")
    with TableFile(both) as file:
        assert len(file.fingerprints()) == 2
    with pytest.raises(TableError, match="--precision"):
        open_table(both)
    full = dict(half.networks[0].widths)
    assert full == network.widths
    assert (half.networks[0].weights_bytes or 0) < 0.6 * single.unpruned.weights_bytes


def test_a_budget_of_memory_needs_no_latencies_and_is_kept_by_the_compilers_figure(
    task: Task, table_path: Path, tmp_path: Path
) -> None:
    table = open_table(table_path)
    full = next(row for row in table.networks if dict(row.widths) == analyze(task.build(), task.inputs()).widths)
    most = int(0.955 * ((full.weights_bytes or 0) + (full.activation_bytes or 0)))
    out = tmp_path / "run"
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=0, backend="tensorrt-rtx")
    run = prune(task, table, memory_bytes=most, config=config, out=out)
    assert run.met
    result = json.loads((out / "result.json").read_text())
    assert result["before"]["measured_ms"] is None
    assert result["after"]["memory_is"] == "ahead-of-time bound"
    assert result["memory_from"]["fingerprint"]["compute_capability"] == "8.6"
    assert result["after"]["total_bytes"] == (
        result["after"]["weights_bytes"] + result["after"]["peak_activation_bytes"] + result["after"]["workspace_bytes"]
    )
    assert result["after"]["io_bytes"] == 4 * (8 * 16 * 16 + 8 * 4)
    assert len(open_table(table_path).networks) > 3, "what is compiled on the way is kept in the table"
    with Compiler(FP16, flat_arrays(task.inputs())) as compiler:
        small = load(task.build, out)
        figure = compiler.bound(to_onnx(small, task.inputs())).total_bytes
    assert figure == result["after"]["total_bytes"]
    assert 0.95 * most <= figure <= most
    assert PrunePlan.from_json(result["plan"]).memory_budget_bytes == most


class Alike(nn.Module):
    """Fresh norms whose biases are all equal, on a stream that adds to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 96, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(96, 64, 1, bias=False) for _ in range(6))
        self.outer = nn.ModuleList(nn.Conv2d(64, 96, 1, bias=False) for _ in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(96) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, outer, norm in zip(self.inner, self.outer, self.norms, strict=True):
            x = torch.relu(x + norm(outer(torch.relu(inner(x)))))
        return x.mean((2, 3))


def pictures() -> Iterator[Tensor]:
    yield torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_the_loop_compiled_last_is_what_the_exported_file_is_said_to_need(epochs: int, tmp_path: Path) -> None:
    alike = Task(
        "alike",
        Alike,
        lambda: (torch.randn(1, 3, 16, 16),),
        train_batches=pictures,
        loss=lambda model, batch: model(batch).square().mean(1),
    )
    with Compiler(Target("tensorrt-rtx", "8.6"), []) as compiler:
        table = LatencyTable(compiler.fingerprint, [])
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=epochs, backend="tensorrt-rtx")
    result = prune(alike, table, memory_fraction=0.99, config=config, out=tmp_path / "run").result
    assert result["exported_as_timed"]
    assert result["solver"]["rounds"][-1]["compiled_bytes"] == result["after"]["total_bytes"]


def test_budgets_that_cannot_be_met_are_refused(task: Task, table_path: Path) -> None:
    table = open_table(table_path)
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=0, backend="tensorrt-rtx")
    with pytest.raises(
        BudgetError, match=r"ahead-of-time bound of tensorrt-rtx.*\n.*8\.192 MB are the compiler's works"
    ):
        prune(task, table, memory_fraction=0.5, config=config)
    with pytest.raises(TableError, match="no latencies"):
        prune(task, table, budget_fraction=0.5, config=config)


def test_a_table_of_another_version_of_the_compiler_is_refused(task: Task, table_path: Path) -> None:
    found = open_table(table_path)
    older = LatencyTable(
        type(found.fingerprint).from_json(found.fingerprint.to_json() | {"runtime_version": "1.0"}), []
    )
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=0, backend="tensorrt-rtx")
    with pytest.raises(TableError, match=r"runtime_version 1\.0"):
        prune(task, older, memory_fraction=0.9, config=config)


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.last = nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.deep(torch.relu(self.wide(x)))))


@pytest.mark.parametrize(("capability", "precision"), [("8.9", "fp32"), ("12.0", "fp16"), ("7.5", "int8")])
def test_every_precision_is_told_closely_once_a_few_networks_were_compiled(
    capability: str, precision: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = analyze(Depthwise().eval(), (torch.randn(1, 3, 48, 48),))
    target = Target("tensorrt-rtx", capability, as_precision(precision))
    report = fill(network, tmp_path / "table.db", target, AheadConfig(networks_min=5, networks_max=5))
    assert report.failed == 0
    assert report.error is not None
    assert report.error < 0.1


def test_there_is_a_workspace_where_something_contracts_and_none_beside_large_tensors_alone() -> None:
    rules = memory_rules("tensorrt-rtx", "fp32")
    x = torch.randn(1, 4, 8, 8)
    plain, contracting = to_onnx(nn.MaxPool2d(2), (x,)), to_onnx(nn.Conv2d(4, 4, 3), (x,))
    assert workspace_in(rules, 9_000_000, contracting) == 8_192_000
    assert workspace_in(rules, 9_000_000, plain) == 0
    assert workspace_in(None, 9_000_000, contracting) == 0


def test_what_cannot_be_compiled_for_is_refused_and_no_row_claims_otherwise(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    with pytest.raises(BackendError, match=r"Hopper"):
        fill(network, path, Target("tensorrt-rtx", "9.0"))
    with TableFile(path) as file:
        (fingerprint,) = file.fingerprints()
        assert all(row.failure is not None and row.weights_bytes is None for row in file.networks(fingerprint))


def test_a_device_that_nothing_is_compiled_for_is_refused_before_there_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    told = ["profile", str(EXAMPLE), "--backend", "tensorrt-rtx", "--table", str(path)]
    done = CliRunner().invoke(app, [*told, "--compute-capability", "8.6,9.0"])
    assert done.exit_code == 2
    assert "Hopper" in done.stderr
    assert not path.exists()
