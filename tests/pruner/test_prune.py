import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pruner
from lut import BudgetError, LatencyTable, LatpruneError, RunError, TableError, open_table
from lut.records import DeviceFingerprint
from profiler.network import analyze
from profiler.profile import ProfileConfig, profile
from profiler.progress import Event
from pruner.deploy import export_run, measure
from pruner.prune import Budget, PruneConfig, check_device, prune
from pruner.task import Task, load_task

pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).with_name("example_task.py")
CONFIG = PruneConfig(epochs=1)
HERE = DeviceFingerprint("a processor", "onnxruntime", "1.0", threads=1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("task") / "small_task.py"
    shutil.copyfile(EXAMPLE, path)
    return load_task(str(path))


@pytest.fixture(scope="module")
def table_path(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "device.db"
    network = analyze(task.build(), task.inputs())
    profile(network, path, config=ProfileConfig(networks_min=10, networks_max=14, runs=8))
    return path


@pytest.fixture(scope="module")
def table(table_path: Path) -> LatencyTable:
    return open_table(table_path)


@pytest.fixture(scope="module")
def finished(task: Task, table_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=out)
    return out


def test_a_run_holds_what_other_programs_rely_on(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    for side in ("before", "after"):
        for key in (
            "metric predicted_ms measured_ms noise parameters weights_bytes peak_activation_bytes workspace_bytes "
            "total_bytes traffic_bytes"
        ).split():
            assert isinstance(result[side][key], int | float), (side, key)
    assert result["metric"] == "top1"
    assert result["after"]["parameters"] < result["before"]["parameters"]
    assert result["outputs_difference"] <= 1e-4
    assert {"plan", "versions", "fingerprint", "seed", "budget_ms"} <= set(result)
    assert {"plan.json", "model.safetensors", "model.onnx", "result.json"} <= {path.name for path in finished.iterdir()}


def test_what_was_measured_on_the_way_is_in_the_table(finished: Path, table_path: Path, task: Task) -> None:
    network = analyze(task.build(), task.inputs())
    table = open_table(table_path)
    own = [dict(row.widths) for row in table.networks if row.network == network.hash]
    result = json.loads((finished / "result.json").read_text())
    assert len(own) > 14  # what profiling left
    assert network.widths | result["plan"]["widths"] in own
    assert all(row.forms for row in table.networks)


def test_a_pruned_network_comes_back_from_json_and_safetensors(finished: Path, task: Task) -> None:
    from profiler.backends.onnxruntime_plain import evaluate
    from profiler.export import flat_arrays, largest_difference, output_arrays

    model = pruner.load(task.model, finished)
    inputs = (torch.randn(8, 1, 16, 16),)
    exported = list(evaluate((finished / "model.onnx").read_bytes(), flat_arrays(inputs)).values())
    assert largest_difference(exported, output_arrays(model, inputs)) <= 1e-4
    result = json.loads((finished / "result.json").read_text())
    assert sum(parameter.numel() for parameter in model.parameters()) == result["after"]["parameters"]


def test_a_model_that_the_user_trained_on_is_saved_and_comes_back(finished: Path, task: Task, tmp_path: Path) -> None:
    model = pruner.load(task.model, finished)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    pruner.save(model, pruner.PrunePlan.read(finished / "plan.json"), tmp_path / "tuned", inputs=task.inputs())
    again = pruner.load(task.model, tmp_path / "tuned")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert measure(tmp_path / "tuned").samples > 0
    assert export_run(tmp_path / "tuned", backend="onnxruntime").file_bytes > 0


def test_a_finished_run_is_not_touched_without_overwrite(finished: Path, task: Task, table_path: Path) -> None:
    before = (finished / "result.json").read_bytes()
    with pytest.raises(RunError, match="--overwrite"):
        prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=finished)
    assert (finished / "result.json").read_bytes() == before


class _StopError(Exception):
    """Stands for a kill at one moment."""


def test_an_interrupted_run_goes_on_and_scores_only_once(task: Task, table_path: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.stage.startswith("fine-tuning") and event.done >= 2:
            raise _StopError

    with pytest.raises(_StopError):
        prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=tmp_path / "run", progress=interrupt)
    assert not (tmp_path / "run" / "result.json").exists()
    seen: list[str] = []
    run = prune(
        task,
        table_path,
        budget_fraction=0.7,
        config=CONFIG,
        out=tmp_path / "run",
        progress=lambda e: seen.append(e.stage),
    )
    assert (tmp_path / "run" / "result.json").exists()
    assert any(stage.startswith("fine-tuning") for stage in seen)
    assert not any(stage.startswith("scoring") for stage in seen)
    assert run.result["after"]["parameters"] < run.result["before"]["parameters"]
    with pytest.raises(RunError, match="finished"):
        prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=tmp_path / "run")


def test_two_runs_at_once_do_not_write_into_one_directory(task: Task, table_path: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def another(event: Event) -> None:
        if event.stage.startswith("scoring") and not refused:
            with pytest.raises(RunError, match="is being written by another") as error:
                prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=tmp_path / "run", overwrite=True)
            refused.append(str(error.value))
            raise _StopError

    with pytest.raises(_StopError):
        prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=tmp_path / "run", progress=another)
    assert len(refused) == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.json"]


def test_an_unfinished_run_goes_on_only_with_the_same_request(task: Task, table_path: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.stage.startswith("fine-tuning"):
            raise _StopError

    with pytest.raises(_StopError):
        prune(task, table_path, budget_fraction=0.7, config=CONFIG, out=tmp_path / "run", progress=interrupt)
    with pytest.raises(RunError, match="something else"):
        prune(task, table_path, budget_fraction=0.8, config=CONFIG, out=tmp_path / "run")


def test_an_unfinished_run_goes_on_only_with_the_same_network(task: Task, table_path: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.stage.startswith("fine-tuning"):
            raise _StopError

    config = PruneConfig(epochs=1, normalize="memory")
    with pytest.raises(_StopError):
        prune(task, table_path, memory_fraction=0.8, config=config, out=tmp_path / "run", progress=interrupt)
    changed = replace(task, batch=2)
    with pytest.raises(RunError, match="another network: the task's model or its inputs have changed"):
        prune(changed, table_path, memory_fraction=0.8, config=config, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"budget_ms": 1e6}, "not below the present latency"),
        ({"budget_fraction": 1.2}, "not below the present latency"),
        ({"budget_ms": 1e-6}, "the least that was measured"),
        ({"memory_bytes": 1e12}, "not below what the unpruned network needs"),
        ({"memory_bytes": 10}, "the least that any plan reaches"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_and_leaves_nothing(
    task: Task, table_path: Path, tmp_path: Path, budget: dict[str, float], says: str
) -> None:
    with pytest.raises(BudgetError, match=says):
        prune(task, table_path, config=CONFIG, out=tmp_path / "run", **budget)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", [{"budget_fraction": 0.02}, {"memory_fraction": 0.01}], ids=str)
def test_what_the_last_round_cannot_reach_is_refused_before_the_first_trains(
    task: Task, table_path: Path, tmp_path: Path, budget: dict[str, float]
) -> None:
    seen: list[str] = []
    config = PruneConfig(epochs=12, rounds=12)
    with pytest.raises(BudgetError, match="cannot be met: the least that"):
        prune(task, table_path, config=config, out=tmp_path / "run", progress=lambda e: seen.append(e.stage), **budget)  # type: ignore[arg-type]
    assert "fine-tuning" not in seen
    assert not (tmp_path / "run").exists()


def test_no_budget_at_all_is_refused(task: Task, table_path: Path, tmp_path: Path) -> None:
    with pytest.raises(LatpruneError, match="no budget"):
        prune(task, table_path, out=tmp_path / "run")


def test_frozen_layers_and_the_least_width_are_kept_in_two_rounds(task: Task, table_path: Path, tmp_path: Path) -> None:
    config = PruneConfig(epochs=2, rounds=2, freeze=("inner", "stem"), min_width=16)
    told: list[Event] = []
    run = prune(task, table_path, memory_fraction=0.8, config=config, out=tmp_path / "run", progress=told.append)
    assert [event.stage for event in told if event.stage.startswith("round")] == ["round 1 of 2", "round 2 of 2"]
    assert run.model.inner.out_channels == 64
    assert run.model.stem.out_channels == run.model.project.out_channels == 48
    assert all(width >= 16 for width in run.plan.widths.values())
    assert run.result["after"]["total_bytes"] <= run.result["memory_budget_bytes"]
    assert run.met


@pytest.mark.parametrize("normalize", ["memory", "flops", "none"])
def test_every_normalization_meets_a_memory_budget(
    task: Task, table_path: Path, tmp_path: Path, normalize: str
) -> None:
    config = PruneConfig(epochs=0, normalize=normalize)
    run = prune(task, table_path, memory_fraction=0.6, config=config)
    assert run.result["after"]["total_bytes"] <= run.result["memory_budget_bytes"]
    assert run.out is None


def test_a_table_from_another_device_is_refused_and_can_be_accepted() -> None:
    other = DeviceFingerprint("another processor", "onnxruntime", "1.0", threads=1)
    with pytest.raises(TableError, match="another processor"):
        check_device(other, HERE, ())
    check_device(other, HERE, ("device",))
    check_device(HERE, HERE, ())


def test_a_budget_in_percent_is_of_the_measured_latency() -> None:
    assert Budget(fraction=0.5).latency_ms(8.0) == 4.0
    assert Budget(ms=3.0).latency_ms(8.0) == 3.0


def test_a_memory_budget_can_be_that_of_the_runtime_it_is_deployed_on(
    table: LatencyTable, task: Task, tmp_path: Path
) -> None:
    network = analyze(task.build(), task.inputs())
    full = network.memory(network.widths, runtime="tensorrt-rtx")
    assert full.workspace_bytes == 8_192_000
    assert network.memory(network.widths).workspace_bytes == 0
    config = PruneConfig(epochs=0, memory_of="tensorrt-rtx", normalize="memory")
    run = prune(task, table, memory_bytes=int(0.97 * full.total_bytes), config=config, out=tmp_path / "run")
    assert run.met
    assert run.result["before"]["total_bytes"] == pytest.approx(full.total_bytes, rel=0.01)
    compiled = importlib.util.find_spec("tensorrt_rtx") is not None
    assert run.result["after"]["memory_is"] == ("ahead-of-time bound" if compiled else "counted")
    assert run.result["after"]["total_bytes"] <= 0.97 * full.total_bytes
    assert run.result["after"]["memory_of"] == "tensorrt-rtx"
    with pytest.raises(LatpruneError, match="no backend called 'nowhere'"):
        prune(task, table, memory_fraction=0.9, config=PruneConfig(memory_of="nowhere"))
