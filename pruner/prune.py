"""The whole of `latprune prune`: score, solve, measure, shrink, fine-tune, export, check; resumable at every step."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lut import LatencyTable, open_table
from lut.errors import LatpruneError, TableError
from profiler.backends import get_backend
from profiler.progress import Progress, silent
from profiler.worker_client import WorkerClient
from pruner.budget import Budget, check_device
from pruner.distill import check_distillation
from pruner.question import check_importance, read_subject
from pruner.request import Check, PruneConfig, PruneRun
from pruner.rounds import Rounds
from pruner.runlock import held
from pruner.runstate import open_run
from pruner.solvers import get_solver
from pruner.task import Task
from pruner.training import check_training

RUNNER = "onnxruntime"
"""Checks the outputs of what is pruned for a target that is not here."""
NORMALIZATIONS = ("latency", "memory", "flops", "none")

__all__ = ["NORMALIZATIONS", "Budget", "Check", "PruneConfig", "PruneRun", "check_device", "prune"]


def prune(
    task: Task,
    table: LatencyTable | Path | str,
    *,
    budget_ms: float | None = None,
    budget_fraction: float | None = None,
    memory_bytes: float | None = None,
    memory_fraction: float | None = None,
    config: PruneConfig | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PruneRun:
    """Prune a task's network to a budget and write the run.

    Args:
        task: model, inputs, batches and loss (see `pruner.task.Task`); the model that it builds is pruned.
        table: of this device, or its file.
        budget_ms: of latency, absolute.
        budget_fraction: of latency, as a fraction of the unpruned network's measured one.
        memory_bytes: of weights + peak activations + workspace.
        memory_fraction: the same as a fraction of the unpruned network's.
        config: see `PruneConfig`.
        out: run directory, held for this call alone; the same call resumes an unfinished one.
        overwrite: start a finished one anew.
        progress: told of every step.

    Raises:
        BudgetError: a budget asks for nothing, or cannot be met (the message says what the least is).
        TableError: the table was measured on another device, or lacks a family.
        RunError: the run directory belongs to another request, is finished, or another process is writing it.
        TaskError: the task lacks what pruning needs.
    """
    config = config or PruneConfig()
    budget = Budget(budget_ms, budget_fraction, memory_bytes, memory_fraction)
    if not budget.on_latency and memory_bytes is None and memory_fraction is None:
        raise LatpruneError(
            "There is no budget. Give one of latency (--budget 60%), of memory (--memory 50%), or both."
        )
    solver = get_solver(config.solver)
    if config.normalize not in NORMALIZATIONS:
        raise LatpruneError(
            f"Importance is normalised by one of {', '.join(NORMALIZATIONS)}, not {config.normalize!r}."
        )
    check_importance(task, config.importance)
    check_training(
        task,
        teacher=config.distill > 0,
        distill=config.distill,
        device=config.train_device,
        mixed_precision=config.mixed_precision,
    )
    with contextlib.ExitStack() as stack:
        folder = (
            Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory(prefix="latprune-"))) / "run"
        )
        stack.enter_context(held(folder))
        opened = table if isinstance(table, LatencyTable) else _open(Path(table), config)
        ahead = opened.fingerprint.ahead_of_time
        client = stack.enter_context(
            WorkerClient(RUNNER if ahead else config.backend, threads=config.threads, cache=opened.path)
        )
        if ahead and budget.on_latency:
            raise TableError(
                f"{opened.name} was made ahead of time: it holds memory and no latencies, so --budget cannot be met "
                "against it.\nLeave --budget out, or profile a device: latprune profile TASK --backend …"
            )
        request = {"task": task.name, "budget": asdict(budget), "config": asdict(config), "table": str(opened.name)}
        if not ahead:
            check_device(opened.fingerprint, client.fingerprint(), config.allow_differences, budget.on_latency)
        subject = read_subject(task, config, progress)
        if config.distill:
            check_distillation(subject.model, task)
        state = open_run(folder, overwrite=overwrite, request=request)
        try:
            job = Rounds(subject, opened, budget, config, solver, client, state, progress)
            stack.callback(job.close)
            run = job.run()
        except LatpruneError:
            if not state.has("round 1"):
                state.discard()
            raise
        return run if out is not None else replace(run, out=None)


def _open(path: Path, config: PruneConfig) -> LatencyTable:
    """The rows of the backend; what another was compiled with ahead of time does not depend on threads."""
    status = get_backend(config.backend).status()
    if "measures" not in status.abilities:
        return open_table(path, backend=config.backend)
    with WorkerClient(config.backend, threads=config.threads) as client:
        return open_table(path, backend=config.backend, threads=config.threads, here=client.fingerprint())
