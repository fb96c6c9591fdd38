"""The whole of `latprune prune`: score, solve, measure, shrink, fine-tune, export, check; resumable after every step."""

import contextlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lut import LatencyTable, Predictor, open_table
from lut.errors import BudgetError, LatpruneError, TableError
from lut.records import ChannelGroup, DeviceFingerprint
from profiler.cut import cut_positions, lost_positions
from profiler.export import flat_arrays, largest_difference, lively, output_arrays, to_onnx, write_onnx
from profiler.network import Network, analyze
from profiler.progress import Event, Progress, silent
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from pruner.atomic import write_text
from pruner.cost import ActivationBytes, Channels, Cost, Latency, Macs, Memory
from pruner.deploy import CAREFULLY, MODEL
from pruner.importance import IMPORTANCES
from pruner.loop import Bench, solve_measured
from pruner.narrow import names_in, narrowed, renamed
from pruner.plan import PrunePlan
from pruner.rundir import load_weights, persistent_tensors, save
from pruner.runstate import RunState, open_run
from pruner.solvers import Limit, Problem, Solver, get_solver, width_options
from pruner.surgery import shapes_left
from pruner.task import Task
from pruner.training import evaluate, finetune, reestimate_norms

NORMALIZATIONS = ("latency", "memory", "flops", "none")
OUTPUTS_MATCH = 1e-4
"""Largest relative difference of the exported file's outputs from the shrunk network's."""


@dataclass(frozen=True)
class PruneConfig:
    """How to prune.

    Attributes:
        importance: name in `IMPORTANCES`.
        normalize: the cost that importance is divided by ("latency", "memory", "flops", "none").
        solver: name in `SOLVERS`.
        rounds: in how many rounds the budget is reached, with scores taken afresh and training between.
        epochs: of fine-tuning, shared out over the rounds.
        seed: of everything random.
        freeze: patterns of layers that stay whole.
        min_width: no group gets narrower.
        backend, threads: what measures.
        allow_differences: fields of the fingerprint in which this machine may differ from the table's.
    """

    importance: str = "fisher"
    normalize: str = "latency"
    solver: str = "greedy"
    rounds: int = 1
    epochs: int = 5
    seed: int = 0
    freeze: tuple[str, ...] = ()
    min_width: int = 1
    backend: str = "onnxruntime"
    threads: int = 1
    allow_differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One promise and whether it was kept."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class PruneRun:
    """What came of pruning.

    Attributes:
        plan: what was kept.
        model: the whole pruned model, in eval mode.
        result: the contents of `result.json`.
        checks: the promises.
        out: the run directory, or None when nothing was to be written.
    """

    plan: PrunePlan
    model: nn.Module
    result: dict[str, Any]
    checks: tuple[Check, ...]
    out: Path | None

    @property
    def met(self) -> bool:
        """Whether every promise was kept."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Budget:
    """Limits as absolute figures or as fractions of the unpruned network's own."""

    ms: float | None = None
    fraction: float | None = None
    memory_bytes: float | None = None
    memory_fraction: float | None = None

    @property
    def on_latency(self) -> bool:
        """Whether there is a latency budget."""
        return self.ms is not None or self.fraction is not None

    def latency_ms(self, unpruned_ms: float) -> float:
        """The latency budget in milliseconds.

        Raises:
            BudgetError: it is not below the unpruned network's latency.
        """
        budget = self.ms if self.ms is not None else (self.fraction or 0.0) * unpruned_ms
        if budget >= unpruned_ms:
            raise BudgetError(
                f"The budget of {budget:.4g} ms is not below the present latency: the unpruned network takes "
                f"{unpruned_ms:.4g} ms here. There is nothing to prune for it."
            )
        return budget

    def bytes(self, unpruned: int) -> float | None:
        """The memory budget in bytes, or None.

        Raises:
            BudgetError: it is not below what the unpruned network needs.
        """
        if self.memory_bytes is None and self.memory_fraction is None:
            return None
        budget = self.memory_bytes if self.memory_bytes is not None else (self.memory_fraction or 0.0) * unpruned
        if budget >= unpruned:
            raise BudgetError(
                f"The memory budget of {budget / 1e6:.4g} MB is not below what the unpruned network needs: "
                f"{unpruned / 1e6:.4g} MB. There is nothing to prune for it."
            )
        return budget


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
        budget_ms, budget_fraction: of latency, absolute or of the unpruned network's measured one.
        memory_bytes, memory_fraction: of weights + peak activations + workspace.
        config: see `PruneConfig`.
        out: run directory; the same call resumes an unfinished one.
        overwrite: start a finished one anew.
        progress: told of every step.

    Raises:
        BudgetError: a budget asks for nothing, or cannot be met (the message says what the least is).
        TableError: the table was measured on another device, or lacks a family.
        RunError: the run directory belongs to another request, or is finished.
        TaskError: the task lacks what pruning needs.
    """
    config = config or PruneConfig()
    budget = Budget(budget_ms, budget_fraction, memory_bytes, memory_fraction)
    if not budget.on_latency and memory_bytes is None and memory_fraction is None:
        raise LatpruneError("There is no budget. Give one of latency (--budget 60%), of memory (--memory 50%), or both.")
    solver = get_solver(config.solver)
    if config.normalize not in NORMALIZATIONS:
        raise LatpruneError(f"Importance is normalised by one of {', '.join(NORMALIZATIONS)}, not {config.normalize!r}.")
    if config.importance not in IMPORTANCES:
        raise LatpruneError(f"There is no importance {config.importance!r}; there are {', '.join(IMPORTANCES)}.")
    task.require("train_batches", "loss")
    opened = table if isinstance(table, LatencyTable) else open_table(Path(table), backend=config.backend, threads=config.threads)
    with contextlib.ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory(prefix="latprune-"))) / "run"
        request = {"task": task.name, "budget": asdict(budget), "config": asdict(config), "table": str(opened.name)}
        client = stack.enter_context(WorkerClient(config.backend, threads=config.threads))
        check_device(opened.fingerprint, client.fingerprint(), config.allow_differences, budget.on_latency)
        progress(Event("read the network", 0, 1))
        torch.manual_seed(config.seed)
        model = task.build()
        network = analyze(task.deployed(model), task.inputs(), config.freeze)
        progress(Event("read the network", 1, 1, f"{len(network.widths)} groups can be pruned"))
        if not network.widths:
            reasons = "; ".join(sorted({str(group.frozen_because) for group in network.groups})[:3])
            raise LatpruneError(f"Nothing in this network can be pruned: {reasons}.")
        state = open_run(folder, overwrite=overwrite, request=request)
        try:
            job = _Job(task, model, network, opened, budget, config, solver, client, state, progress)
            stack.callback(job.close)
            run = job.run()
        except LatpruneError:
            if not state.has("round 1"):
                state.discard()
            raise
        return run if out is not None else replace(run, out=None)


def check_device(
    table: DeviceFingerprint, here: DeviceFingerprint, allowed: tuple[str, ...], latencies_needed: bool = True
) -> None:
    """Refuse a table that was measured elsewhere.

    Raises:
        TableError: naming what differs.
    """
    different = [item for item in table.differences(here) if item[0] not in allowed]
    if different and latencies_needed:
        name, there, now = different[0]
        more = f" (and {len(different) - 1} more: {', '.join(item[0] for item in different[1:])})" if different[1:] else ""
        raise TableError(
            f"The table was measured with {name} {there}; this machine has {now}{more}.\n"
            f"Measure again: latprune profile … --table another.db, or accept it: "
            + " ".join(f"--allow-difference {item[0]}" for item in different)
        )


class _Job:
    """One run from start to end; each method is a stage that is skipped when the run directory has it."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        network: Network,
        table: LatencyTable,
        budget: Budget,
        config: PruneConfig,
        solver: Solver,
        client: WorkerClient,
        state: RunState,
        progress: Progress,
    ) -> None:
        self.task, self.model, self.network, self.table = task, model, network, table
        self.budget, self.config, self.solver, self.client = budget, config, solver, client
        self.state, self.progress = state, progress
        self.names = names_in(model, network.model)
        self.groups = renamed(network.groups, self.names)
        progress(Event("export the network", 0, 1))
        self.bench = Bench(prepare(network), client, table, latencies=budget.on_latency or config.normalize == "latency")
        progress(Event("export the network", 1, 1))
        self.kept = {name: list(range(size)) for name, size in network.widths.items()}

    def close(self) -> None:
        """Remove temporary files."""
        self.bench.close()

    def run(self) -> PruneRun:
        """All stages."""
        before = self._before()
        unpruned_ms = float(before["measured_ms"])
        budget_ms = self.budget.latency_ms(unpruned_ms) if self.budget.on_latency else None
        memory = self.budget.bytes(self.network.memory(self.network.widths).total_bytes)
        small = self.model
        for number in range(self.config.rounds):
            share = (number + 1) / self.config.rounds
            limits = (
                unpruned_ms * (budget_ms / unpruned_ms) ** share if budget_ms else None,
                self._memory_step(memory, share),
            )
            small = self._round(small, number, limits, unpruned_ms)
        return self._finish(small, before, budget_ms, memory)

    def _memory_step(self, memory: float | None, share: float) -> float | None:
        full = self.network.memory(self.network.widths).total_bytes
        return full * (memory / full) ** share if memory else None

    @property
    def widths(self) -> dict[str, int]:
        """Present widths."""
        return {name: len(kept) for name, kept in self.kept.items()}

    def _before(self) -> dict[str, Any]:
        """The unpruned network's measured latency and metric."""
        if self.state.has("before"):
            return self.state.payload("before")
        self.progress(Event("measure the unpruned network", 0, 1))
        reply = self.bench.time(self.bench.unpruned, CAREFULLY, reference=False)
        metrics = evaluate(self.task, self.model) if self.task.evaluate else {}
        found = {"measured_ms": reply.median_ms, "noise": reply.noise, "samples": len(reply.samples_ms), "metrics": metrics}
        self.state.complete("before", found)
        self.progress(Event("measure the unpruned network", 1, 1, f"{reply.median_ms:.4g} ms"))
        return found

    def _round(
        self, model: nn.Module, number: int, limits: tuple[float | None, float | None], unpruned_ms: float
    ) -> nn.Module:
        """Score, solve, shrink and fine-tune once; gives back the smaller model."""
        stage = f"round {number + 1}"
        groups = narrowed(self.groups, self._removed())
        if self.state.has(stage):
            planned = self.state.payload(stage)
        else:
            planned = {"kept": self._solve(self._scores(model, groups), limits, unpruned_ms)}
            self.state.complete(stage, planned)
        chosen = {name: set(planned["kept"][name]) for name in self.kept}
        gone = {
            name: [choice for choice, original in enumerate(kept) if original not in chosen[name]]
            for name, kept in self.kept.items()
        }
        self.kept = {name: list(planned["kept"][name]) for name in self.kept}
        smaller = cut_positions(model, lost_positions(groups, {name: choices for name, choices in gone.items() if choices}))
        self._finetune(smaller, number)
        return smaller

    def _removed(self) -> dict[str, list[int]]:
        """Original choices that are gone so far."""
        found = {}
        for name, size in self.network.widths.items():
            kept = set(self.kept[name])
            if len(kept) < size:
                found[name] = [choice for choice in range(size) if choice not in kept]
        return found

    def _scores(self, model: nn.Module, groups: list[ChannelGroup]) -> dict[str, NDArray[np.float64]]:
        scorer = IMPORTANCES[self.config.importance]
        torch.manual_seed(self.config.seed)
        prunable = [group for group in groups if not group.frozen_because and group.size > 0]
        batches = self.task.train_batches() if self.task.train_batches else ()
        loss = self.task.loss
        assert loss is not None
        scores = scorer(model, prunable, batches, loss, progress=self.progress)
        return {name: score.double().cpu().numpy() for name, score in scores.items()}

    def _solve(
        self, scores: Mapping[str, NDArray[np.float64]], limits: tuple[float | None, float | None], unpruned_ms: float
    ) -> dict[str, list[int]]:
        """The original choices that each group keeps."""
        budget_ms, memory = limits

        def posed(predictor: Predictor, most_ms: float) -> Problem:
            return self._problem(scores, Limit(Latency(predictor), most_ms), memory)

        if budget_ms is not None:
            trial = solve_measured(
                self.solver, self.bench, posed, budget_ms=budget_ms, unpruned_ms=unpruned_ms, progress=self.progress
            )
            widths = trial.solution.widths
        else:
            problem = self._problem(scores, None, memory)
            solution = self.solver.solve(problem)
            if not solution.met:
                least = Memory(self.network.cut.liveness).at(problem.narrowest())
                raise BudgetError(
                    f"The memory budget of {(memory or 0) / 1e6:.4g} MB cannot be met: the least that any plan reaches is "
                    f"{least / 1e6:.4g} MB."
                )
            widths = solution.widths
        kept = {}
        for name, original in self.kept.items():
            best = np.argsort(-scores[name], kind="stable")[: widths[name]] if name in scores else range(len(original))
            kept[name] = sorted(original[int(choice)] for choice in best)
        return kept

    def _problem(
        self, scores: Mapping[str, NDArray[np.float64]], latency: Limit | None, memory: float | None
    ) -> Problem:
        units, widths = self.network.units, self.widths
        limits = [latency] if latency is not None else []
        if memory is not None:
            limits.append(Limit(Memory(self.network.cut.liveness), memory))
        options = {
            name: width_options(width, self._step(name), self.config.min_width) for name, width in widths.items() if name in scores
        }
        together: dict[str, set[str]] = {name: {name} for name in widths}
        for unit in units:
            for name in unit.groups:
                together[name].update(unit.groups)
        return Problem(
            start=widths,
            options=options,
            scores={name: np.sort(score) for name, score in scores.items()},
            limits=limits,
            rank=self._rank(),
            together={name: frozenset(others) for name, others in together.items()},
        )

    def _step(self, group: str) -> int:
        if self.bench.predictor is None:
            return 1
        return self.bench.table.width_step(group, self.network.units, self.network.widths)

    def _rank(self) -> Cost:
        if self.config.normalize == "latency" and self.bench.predictor is not None:
            return Latency(self.bench.predictor)
        if self.config.normalize == "flops":
            return Macs(self.network.units)
        if self.config.normalize == "none":
            return Channels()
        return ActivationBytes(self.network.cut.liveness)

    def _finetune(self, model: nn.Module, number: int) -> None:
        """Fine-tune from where an interrupted run stopped; weights are kept after every epoch."""
        shared = self.config.epochs // self.config.rounds + (number < self.config.epochs % self.config.rounds)
        stage = f"round {number + 1} tuned"
        done = self.state.payload(stage) if self.state.has(stage) else {"epochs": 0, "finished": False}
        if self.state.has(stage):
            load_weights(model, self.state.tensors(stage), f"the checkpoint of {stage}")
        else:
            reestimate_norms(model, self.task, seed=self.config.seed)
        if done["finished"]:
            return

        def keep(epochs: int, tuned: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
            self.state.complete(stage, {"epochs": epochs, "finished": False}, persistent_tensors(tuned))

        finetune(
            model,
            self.task,
            epochs=shared,
            seed=self.config.seed + number,
            first_epoch=int(done["epochs"]),
            after_epoch=keep,
            progress=self.progress,
        )
        model.eval()
        self.state.complete(stage, {"epochs": shared, "finished": True}, persistent_tensors(model))

    def _finish(self, small: nn.Module, before: Mapping[str, Any], budget_ms: float | None, memory: float | None) -> PruneRun:
        """Write, check and measure what came out."""
        out = self.state.folder
        part, inputs = self.task.deployed(small), lively(self.task.inputs())
        self.progress(Event("export and check", 0, 3))
        write_onnx(to_onnx(part, inputs), out / MODEL)
        reply = self.client.outputs(out / MODEL, flat_arrays(inputs))
        difference = (
            largest_difference(list(reply.outputs.values()), output_arrays(part, inputs)) if reply.failure is None else float("inf")
        )
        self.progress(Event("export and check", 1, 3))
        timed = self.bench.time(out / MODEL, CAREFULLY)
        measured_ms = float(timed.ratio or 1.0) * float(before["measured_ms"])
        metrics = evaluate(self.task, small) if self.task.evaluate else {}
        self.progress(Event("export and check", 2, 3))
        plan = self._plan(budget_ms, memory)
        after_memory = self.network.memory(self.widths)
        checks = [
            Check("outputs", difference <= OUTPUTS_MATCH, f"ONNX differs from PyTorch by {difference:.1g} (at most {OUTPUTS_MATCH:.0e})")
        ]
        if budget_ms is not None:
            checks.insert(0, Check("latency", measured_ms <= budget_ms, f"{measured_ms:.4g} ms of {budget_ms:.4g} ms"))
        if memory is not None:
            total = after_memory.total_bytes
            checks.append(Check("memory", total <= memory, f"{total / 1e6:.4g} MB of {memory / 1e6:.4g} MB"))
        name = next(iter(before["metrics"]), None)
        result = {
            "budget_ms": budget_ms,
            "memory_budget_bytes": memory,
            "before": self._side(self.network.widths, self.network.model, before["measured_ms"], before["noise"], before["metrics"]),
            "after": self._side(self.widths, part, measured_ms, timed.ratio_noise or timed.noise, metrics),
            "metric": name,
            "seed": self.config.seed,
            "versions": versions(),
            "fingerprint": self.table.fingerprint.to_json(),
            "outputs_difference": difference,
            "checks": [asdict(check) for check in checks],
            "plan": plan.to_json(),
        }
        save(small, plan, out)
        write_text(out / "result.json", json.dumps(result, indent=2) + "\n")
        self.state.finish()
        self.progress(Event("export and check", 3, 3))
        return PruneRun(plan, small, result, tuple(checks), out)

    def _side(
        self,
        widths: Mapping[str, int],
        part: nn.Module,
        measured_ms: float,
        noise: float | None,
        metrics: Mapping[str, float],
    ) -> dict[str, Any]:
        predictor = self.bench.predictor
        return {
            "metric": next(iter(metrics.values()), None),
            "metrics": dict(metrics),
            "predicted_ms": predictor.latency_ms(widths) if predictor else None,
            "measured_ms": measured_ms,
            "noise": noise,
            "parameters": sum(parameter.numel() for parameter in part.parameters()),
            "macs": self.network.macs(widths),
            **self.network.memory(widths).to_json(),
        }

    def _plan(self, budget_ms: float | None, memory: float | None) -> PrunePlan:
        predictor = self.bench.predictor
        total = predictor.predict(self.widths).total if predictor else None
        removed = lost_positions(self.groups, self._removed())
        return PrunePlan(
            network_hash=self.network.hash,
            kept={name: tuple(kept) for name, kept in self.kept.items()},
            sizes=dict(self.network.widths),
            removed=removed,
            shapes=shapes_left(self.model, removed),
            budget_ms=budget_ms,
            memory_budget_bytes=memory,
            prediction={"predicted_ms": total.ms, "low_ms": total.low_ms, "high_ms": total.high_ms} if total else None,
            fingerprint=self.table.fingerprint.to_json(),
            importance=self.config.importance,
            normalize=self.config.normalize,
            solver=self.config.solver,
            seed=self.config.seed,
            frozen=self.config.freeze,
            created_with=versions(),
        )


def versions() -> dict[str, str]:
    """Versions of what took part."""
    found = {"python": platform.python_version()}
    for name in ("latprune", "torch", "onnx", "onnxscript", "onnxruntime", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
