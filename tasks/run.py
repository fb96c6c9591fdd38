"""Run the main job from a task to an engine: profile, prune to a budget, export, measure; then say what was kept.

    python tasks/run.py tasks/digits.py --budget 50% --out runs/digits

It calls the `latprune` commands as a user would, and ends with 0 only if every promise was kept: the exported network's
measured latency is within the budget, its outputs are the shrunk network's, accuracy is within two points, and the
engine was built.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from profiler.export import to_onnx, write_onnx
from pruner.deploy import measure
from pruner.show import show_result
from pruner.task import load_task

ACCURACY_POINTS = 0.02
LATPRUNE = [sys.executable, "-m", "pruner.main"]
ERRORS = Console(stderr=True)


@dataclass(frozen=True)
class Promise:
    """One thing that must hold at the end, and what was found."""

    name: str
    passed: bool
    detail: str


def latprune(*arguments: str, may_miss: bool = False) -> dict[str, Any]:
    """Run one command with `--json`; its progress is shown, its result given back.

    Raises:
        SystemExit: the command failed; it has said why itself.
    """
    ERRORS.print(f"\n[bold]latprune {' '.join(arguments)}[/bold]", highlight=False)
    done = subprocess.run([*LATPRUNE, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in ((0, 1) if may_miss else (0,)):
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_anew(task: str, out: Path) -> float:
    """The exported network's latency over the unpruned one's, by turns in a new process."""
    found = load_task(task)
    with TemporaryDirectory() as folder:
        unpruned = Path(folder) / "unpruned.onnx"
        write_onnx(to_onnx(found.deployed(found.build()), found.inputs()), unpruned)
        ratio = measure(out, reference=unpruned).ratio
    assert ratio is not None
    return ratio


def check(result: dict[str, Any], engine: dict[str, Any], ratio: float, judge_accuracy: bool) -> list[Promise]:
    """Every promise, from what the commands wrote and what was measured anew."""
    after, before = result["after"], result["before"]
    latency = after["measured_ms"]
    difference = result["outputs_difference"]
    path = Path(engine["path"])
    anew = ratio * before["measured_ms"]
    promises = [
        Promise("latency", latency <= result["budget_ms"], f"{latency:.3f} ms of {result['budget_ms']:.3f} ms"),
        Promise("outputs", difference <= 1e-4, f"ONNX differs from PyTorch by {difference:.1g}, at most 1e-4"),
        Promise("engine", path.is_file() and path.stat().st_size > 0, f"{path}, {engine['file_bytes'] / 1e6:.2f} MB"),
        Promise(
            "latency again", anew <= result["budget_ms"], f"{anew:.3f} ms, in a new process, by turns with the unpruned"
        ),
    ]
    if judge_accuracy:
        lost = before["metric"] - after["metric"]
        detail = f"{result['metric']} {before['metric']:.4f} -> {after['metric']:.4f}, at most {ACCURACY_POINTS} lost"
        promises.insert(2, Promise("accuracy", lost <= ACCURACY_POINTS, detail))
    return promises


def main(
    task: str,
    budget: Annotated[str, typer.Option(help="Latency, absolute or of the unpruned network's.")] = "50%",
    out: Annotated[
        Path, typer.Option(help="The run's directory; a finished run is replaced, an unfinished one goes on.")
    ] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Of fine-tuning.")] = 6,
    networks: Annotated[int, typer.Option(help="Most networks to measure for the table.")] = 60,
    compute_capability: Annotated[str, typer.Option(help="Of the GPU that the engine is for.")] = "8.6",
    accuracy_check: Annotated[bool, typer.Option(help="Whether accuracy must be kept.")] = True,
) -> None:
    """Profile, prune, export and measure one task."""
    out.parent.mkdir(parents=True, exist_ok=True)
    table = out.parent / "this-machine.db"
    latprune("profile", task, "--table", str(table), "--networks", str(networks))
    pruning = ["prune", task, "--table", str(table), "--budget", budget, "--out", str(out), "--epochs", str(epochs)]
    anew = ["--overwrite"] if (out / "result.json").exists() else []
    result = latprune(*pruning, *anew, may_miss=True)
    engine = latprune("export", str(out), "--backend", "tensorrt-rtx", "--compute-capability", compute_capability)
    latprune("measure", str(out))
    promises = check(result, engine, measure_anew(task, out), accuracy_check)
    show_result(result, promises, Console(), out=out)
    broken = [promise for promise in promises if not promise.passed]
    for promise in broken:
        ERRORS.print(f"[bold red]{promise.name} failed:[/bold red] {promise.detail}")
    raise typer.Exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
