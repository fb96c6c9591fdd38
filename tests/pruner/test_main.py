"""The command line: what it hands on, what it prints where, and how it ends."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from lut import BudgetError, Measurement, TableFile
from profiler.progress import Event
from pruner.main import app, stop_in_order
from tests.lut.examples import CONFIG, CPU, GPU, convolution, network_row, row

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Kept:
    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Pruned:
    """As much of a `PruneRun` as the command reads."""

    met: bool = True
    checks: tuple[Kept, ...] = (Kept("latency", True, "0.9 ms of 1 ms"),)
    result: dict[str, Any] = field(default_factory=lambda: {"budget_ms": 1.0, "before": {}, "after": {}, "seed": 0})


def call(*args: object) -> Any:
    return RUNNER.invoke(app, [str(arg) for arg in args])


def install(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Put a module of that name in the place of the real one."""
    module = ModuleType(name)
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.db"
    with TableFile(path, create=True) as file:
        rows = [row((16, 32), 1.0), row((64, 32), 2.0), row((8, 8), 0.3, convolution(1))]
        failed = Measurement(rows[0].spec, CONFIG, (), None, None, failure="out of memory\nat node 3")
        file.add_network(CPU, network_row({"g": 4}, 3.0), [*rows, failed])
    return path


@pytest.fixture
def pruning(table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[dict[str, Any]]]:
    """Answer `prune` with a function's result, and note what it was called with."""

    def prepare(answer: Answer) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def run(task: Any, rows: Any, **more: Any) -> Any:
            calls.append({"task": task, "rows": rows, **more})
            return answer(more["progress"])

        monkeypatch.chdir(table.parent)
        install(monkeypatch, "pruner.prune", prune=run, PruneConfig=dict)
        monkeypatch.setattr("pruner.commands.prune.find_task", lambda *args: args)
        return calls

    return prepare


def test_table_show_tells_rows_coverage_noise_and_failures(table: Path) -> None:
    found = json.loads(call("table", "show", table, "--json").stdout)
    (content,) = found["fingerprints"]
    assert (content["rows"], content["failures"], content["networks"]) == (4, 1, 1)
    assert content["failed_because"] == {"out of memory": 1}
    first, second = content["families"]
    assert (first["rows"], first["points"], first["failures"]) == (3, 2, 1)
    assert first["channels"] == [[16, 64], [32, 32]]
    assert first["noise"] == pytest.approx(0.01)
    assert second["rows"] == 1
    text = call("table", "show", table).stdout
    for part in ("Some CPU", "16–64 → 32", "1.0 %", "failed 1 times: out of memory"):
        assert part in text


def test_table_show_shows_every_fingerprint_or_the_one_chosen(table: Path) -> None:
    with TableFile(table) as file:
        file.add_measurements(GPU, [row((8, 8), 0.1, convolution(precision="fp16"))])

    def names(*options: str) -> list[str]:
        found = json.loads(call("table", "show", table, "--json", *options).stdout)
        return [content["fingerprint"]["runtime"] for content in found["fingerprints"]]

    assert names() == ["onnxruntime", "tensorrt"]
    for options in (["--backend", "tensorrt"], ["--device", "rtx 4090"], ["--compute-capability", "8.9"]):
        assert names(*options) == ["tensorrt"]
    assert names("--threads", "1") == ["onnxruntime"]
    refused = call("table", "show", table, "--device", "abacus")
    assert refused.exit_code == 2
    assert "NVIDIA RTX 4090" in refused.stderr


def test_backends_says_which_are_here_and_why_one_is_not() -> None:
    done = call("backends", "--json")
    assert done.exit_code == 0
    found = {status["name"]: status for status in json.loads(done.stdout)["backends"]}
    assert {"onnxruntime", "tensorrt", "tensorrt-rtx"} <= set(found)
    assert all(status["why_not"] for status in found.values() if not status["installed"])
    assert "onnxruntime" in call("backends").stdout


def test_prune_hands_on_what_was_asked_for(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    calls = pruning(lambda _: Pruned())
    options = "--freeze head --freeze stem.* --min-width 4 --rounds 3 --epochs 7 --seed 5 --overwrite --json"
    bounds = ["--budget", "60%", "--memory", "40MB"]
    done = call("prune", "net.py", "--table", "t.db", *bounds, "--out", "run", *options.split())
    assert done.exit_code == 0, done.output
    (given,) = calls
    assert given["task"] == ("net.py", None, None)
    assert (given["budget_ms"], given["budget_fraction"]) == (None, 0.6)
    assert (given["memory_bytes"], given["memory_fraction"]) == (40_000_000, None)
    assert (given["rows"].fingerprint, given["out"], given["overwrite"]) == (CPU, Path("run"), True)
    config = given["config"]
    assert config["freeze"] == ("head", "stem.*")
    assert [config[key] for key in ("min_width", "rounds", "epochs", "seed")] == [4, 3, 7, 5]
    assert [config[key] for key in ("importance", "normalize", "solver")] == ["fisher", "latency", "milp"]
    assert (config["backend"], config["threads"]) == ("onnxruntime", 1)
    assert json.loads(done.stdout)["met"] is True


def test_prune_leaves_defaults_to_the_api(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    calls = pruning(lambda _: Pruned())
    call("prune", "net.py", "--table", "t.db", "--memory", "50%", "--out", "run")
    assert "epochs" not in calls[0]["config"]
    assert calls[0]["config"]["normalize"] == "memory"
    assert calls[0]["memory_fraction"] == 0.5


@pytest.mark.parametrize(
    "run", [Pruned(met=False), Pruned(checks=(Kept("outputs", False, "differ"),)), Pruned(met=False, checks=())]
)
def test_a_missed_goal_is_said_and_ends_with_1(run: Pruned, pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    pruning(lambda _: run)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run", "--json")
    assert done.exit_code == 1
    assert "the goal was missed" in done.stderr
    assert json.loads(done.stdout)["budget_ms"] == 1.0


def test_progress_and_what_a_task_prints_go_to_stderr(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    def chatty(progress: Any) -> Pruned:
        sys.stdout.write("epoch 1 of 9\n")
        progress(Event("fine-tune", 1, 9, "loss 0.5"))
        return Pruned()

    pruning(chatty)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run", "--json")
    assert json.loads(done.stdout)["out"] == "run"
    assert "epoch 1 of 9" in done.stderr
    assert "fine-tune: 1/9 – loss 0.5" in done.stderr


def test_a_users_error_is_its_message_and_2(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    def refuse(_: Any) -> Pruned:
        raise BudgetError("the least that any plan reaches is 0.7 ms.\nAsk for that")

    pruning(refuse)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "0.1ms", "--out", "run", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "the least that any plan reaches is 0.7 ms.\nAsk for that\n"


def test_ctrl_c_is_one_line_and_130(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    def interrupted(_: Any) -> Pruned:
        raise KeyboardInterrupt

    pruning(interrupted)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run")
    assert done.exit_code == 130
    assert done.stderr == "stopped; the same command goes on from here\n"


def test_a_request_to_end_does_what_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop_in_order()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_full_disk_is_told_in_words(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    def no_room(_: Any) -> Pruned:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/scales")

    pruning(no_room)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "A file cannot be written: No space left on device (/tmp/scales).\n"
        "Make room; for temporary files TMPDIR names another folder\n"
    )


def test_our_own_bug_keeps_its_traceback(pruning: Callable[[Answer], list[dict[str, Any]]]) -> None:
    def fail(_: Any) -> Pruned:
        raise ZeroDivisionError

    pruning(fail)
    done = call("prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run")
    assert isinstance(done.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("prune net.py --table t.db --out run", "--budget"),
        ("prune net.py --table t.db --out run --budget 8", "8ms"),
        ("prune net.py --table t.db --out run --memory 8ms", "40MB"),
        ("prune net.py --table t.db --out run --budget 8ms --normalize bytes", "latency, memory, flops, none"),
        ("prune net.py --table t.db --out run --budget 8ms --solver none", "greedy"),
        ("prune net.py --table t.db --out run --budget 8ms", "there is no table t.db"),
        ("prune net.py --out run --budget 8ms", "--table"),
        ("prune net.py --table t.db --out run --budget 8ms --rounds 0", "--rounds"),
        ("profile net.py --table t.db --precision int8", "fp32"),
        ("measure net.onnx", "net.onnx"),
        ("measure net.py --backend abacus", "onnxruntime, onnxruntime-cuda"),
        ("measure . --batch 4", "--batch"),
        ("export run --backend tensorrt-rtx --compute-capability 86", "8.6"),
        ("export run --backend tensorrt-rtx --device abacus", "--compute-capability"),
        ("export run --backend tensorrt-rtx --device A10 --compute-capability 8.6", "one of them"),
        ("table show nowhere.db", "nowhere.db"),
        ("table", "show"),
        ("fly", "fly"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_is_right(
    arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, "pruner.prune", prune=None, PruneConfig=dict)
    monkeypatch.setattr("pruner.commands.prune.find_task", lambda *args: args)
    done = call(*arguments.split())
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not isinstance(done.exception, Exception)
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_be_normalised_is_ranked_by_the_greedy_solver(
    pruning: Callable[[Answer], list[dict[str, Any]]],
) -> None:
    calls = pruning(lambda _: Pruned())
    command = ["prune", "net.py", "--table", "t.db", "--budget", "60%", "--out", "run"]
    assert call(*command, "--normalize", "memory", "--step", "8").exit_code == 0
    assert [calls[0]["config"][key] for key in ("solver", "normalize", "step")] == ["greedy", "memory", 8]


def test_normalize_is_refused_for_a_solver_that_does_not_rank_by_a_ratio(
    pruning: Callable[[Answer], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exact:
        name = "exact"
        ranks_by_ratio = False

    pruning(lambda _: Pruned())
    monkeypatch.setattr("pruner.solvers.SOLVERS", (Exact(),))
    command = ["prune", "net.py", "--table", "t.db", "--budget", "1ms", "--out", "run", "--solver", "exact"]
    assert call(*command).exit_code == 0
    done = call(*command, "--normalize", "latency")
    assert done.exit_code == 2
    assert "--normalize does not go with --solver exact" in done.stderr


def test_export_hands_on_the_capability_and_tells_what_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class ExportConfig:
        def __init__(self, **given: Any) -> None:
            vars(self).update(given)

    class Report:
        def to_json(self) -> dict[str, Any]:
            return {
                "path": "run/a.engine",
                "backend": "tensorrt-rtx",
                "precision": "int8",
                "remainder": "fp16",
                "compute_capabilities": ("8.9", "8.6"),
                "io_bytes": 2_500_000,
                "accuracy": {
                    "before": {"top1": 0.9},
                    "after": {"top1": 0.8},
                    "difference": 0.3,
                    "compared_on": "batches",
                },
                "batch": None,
                "kept_fp32": [{"node": "wide", "because": "it reaches 7e4"}],
                "notes": ["A note."],
                "file_bytes": 2_000_000,
                "seconds": 1.5,
                "kernels": 7,
                "warnings": ("[slow]",),
                "ahead_of_time_bound": {"weights_bytes": 1_500_000, "workspace_bytes": None},
            }

    def export_run(run: Path, **more: Any) -> Report:
        calls.append(more)
        return Report()

    install(monkeypatch, "pruner.deploy", export_run=export_run, ExportConfig=ExportConfig)
    command = ["export", "run", "--backend", "tensorrt-rtx"]
    done = call(*command, "--device", "RTX 4090", "--device", "RTX 3090", "--precision", "int8")
    assert done.exit_code == 0, done.output
    assert calls[0]["config"].compute_capabilities == ("8.9", "8.6")
    assert calls[0]["config"].precision == "int8"
    for part in (
        "run/a.engine",
        "8.9",
        "2.00 MB",
        "1.50 MB",
        "ahead of time",
        "[slow]",
        "0.8",
        "0.9",
        "wide",
        "A note.",
    ):
        assert part in done.stdout
    call(*command, "--compute-capability", "8.6,8.9", "--compute-capability", "7.5")
    assert calls[1]["config"].compute_capabilities == ("8.6", "8.9", "7.5")
    for wrong in (["--precision", "fp8"], ["--remainder", "fp16"], ["--device", "T4", "--compute-capability", "7.5"]):
        assert call(*command, *wrong).exit_code == 2


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    command = [sys.executable, "-m", "pruner.main", *map(str, args)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("arguments", ["--help", "--version", "backends", "prune --help", "table show {table} --json"])
def test_what_needs_no_network_does_not_import_torch(arguments: str, table: Path) -> None:
    script = (
        "import sys\nfrom pruner.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = [name for name in ('torch', 'scipy', 'onnx') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", script, *arguments.format(table=table).split()]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_users_error_has_no_traceback_and_nothing_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_text("no table")
    done = run("table", "show", "t.db", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a latency table" in done.stderr
    assert "Traceback" not in done.stderr
