"""Pruning in which residual blocks go wholly, end to end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import pruner
from lut import LatencyTable
from lut.records import NetworkMeasurement
from profiler.blocks import Block, find_blocks, without_blocks
from profiler.export import flat_arrays, largest_difference, output_arrays
from profiler.network import analyze
from profiler.profile import ProfileConfig, profile
from pruner.main import app
from pruner.prune import PruneConfig, PruneRun, prune
from pruner.question import read_subject, removable_blocks
from pruner.task import Task, load_task
from tests.lut.examples import CPU

pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).with_name("example_task.py")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(str(EXAMPLE))


@pytest.fixture(scope="module")
def run(task: Task, tmp_path_factory: pytest.TempPathFactory) -> PruneRun:
    """Two rounds; the first block loses nothing, so that the solver gives it up at once."""
    folder = tmp_path_factory.mktemp("blocks")
    table = folder / "device.db"
    profile(analyze(task.build(), task.inputs()), table, config=ProfileConfig(networks_min=8, networks_max=10, runs=6))

    def scores(model: torch.nn.Module, blocks: Sequence[Block], *_: Any, **__: Any) -> dict[str, float]:
        return {block.name: 0.0 if block.name == "network" else 1e6 for block in blocks}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pruner.question.branch_scores", scores)
        config = PruneConfig(epochs=2, rounds=2, blocks=True)
        return prune(task, table, budget_fraction=0.5, config=config, out=folder / "run")


def test_a_block_that_loses_nothing_goes(run: PruneRun, task: Task) -> None:
    subject = read_subject(task, PruneConfig(), lambda _: None)
    blocks = removable_blocks(subject)
    assert len(blocks) == 2
    assert run.plan.removed_blocks == (blocks[0].name,)
    assert set(run.plan.dropped) == set(blocks[0].parameters)
    assert not set(run.plan.dropped) & set(dict(run.model.named_parameters()))


def test_a_network_without_a_block_comes_back_and_is_what_was_exported(run: PruneRun, task: Task) -> None:
    from profiler.backends.onnxruntime_plain import evaluate

    assert run.out is not None
    found = pruner.load(task.model, run.out)
    inputs = (torch.randn_like(task.inputs()[0]),)
    expected = output_arrays(found, inputs)
    onnx = evaluate((run.out / "model.onnx").read_bytes(), flat_arrays(inputs))
    assert largest_difference(list(onnx.values()), expected) <= 1e-4
    with torch.no_grad():
        assert torch.allclose(found(*inputs), run.model(*inputs), atol=1e-6)


def test_what_is_left_is_counted_without_the_block(run: PruneRun, task: Task) -> None:
    subject = read_subject(task, PruneConfig(), lambda _: None)
    network = subject.network
    gone = [block for block in removable_blocks(subject) if block.name in run.plan.removed_blocks]
    present = without_blocks(network, gone)
    after = run.result["after"]
    assert after["macs"] == present.macs(network.widths | run.plan.widths)
    assert after["parameters"] == sum(parameter.numel() for parameter in run.model.parameters())
    assert after["predicted_ms"] == pytest.approx(run.plan.prediction["predicted_ms"] if run.plan.prediction else None)


def test_without_a_block_it_is_another_network_in_the_table(run: PruneRun, task: Task) -> None:
    from lut import open_table

    assert run.out is not None
    subject = read_subject(task, PruneConfig(), lambda _: None)
    gone = [block for block in removable_blocks(subject) if block.name in run.plan.removed_blocks]
    rows: list[NetworkMeasurement] = open_table(run.out.parent / "device.db").networks
    other = without_blocks(subject.network, gone).hash
    assert any(row.network == other for row in rows)
    lost = {name for block in gone for name in block.units}
    assert all(lost.isdisjoint(name for name, _ in row.forms) for row in rows if row.network == other)


def test_predict_knows_what_a_plan_leaves_out(run: PruneRun) -> None:
    assert run.out is not None
    given = ["--table", str(run.out.parent / "device.db"), "--plan", str(run.out), "--guess", "--json"]
    done = CliRunner().invoke(app, ["predict", str(EXAMPLE), *given])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["predicted_ms"] == pytest.approx(run.result["after"]["predicted_ms"])
    assert {"inner", "outer"}.isdisjoint(unit["name"] for unit in found["units"])
    assert not found["missing"]


@pytest.mark.slow
def test_a_memory_budget_that_only_a_network_without_blocks_keeps_is_met(task: Task, tmp_path: Path) -> None:
    network = analyze(task.build(), task.inputs())
    blocks = find_blocks(network)
    narrowest = dict.fromkeys(network.widths, 24)
    with_them, without = (each.memory(narrowest).total_bytes for each in (network, without_blocks(network, blocks)))
    most = (with_them + without) // 2
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=0, blocks=True, min_width=24, step=8)
    run = prune(task, LatencyTable(CPU, []), memory_bytes=most, config=config, out=tmp_path / "run")
    assert run.met
    assert run.plan.removed_blocks
    present = without_blocks(network, [block for block in blocks if block.name in run.plan.removed_blocks])
    kept = network.widths | run.plan.widths
    assert run.result["after"]["total_bytes"] == present.memory(kept, runtime="onnxruntime").total_bytes <= most
