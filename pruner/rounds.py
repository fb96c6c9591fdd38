"""The rounds of a run: score, solve by measurement, shrink, fine-tune; each stage is kept, so that a run can go on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lut import LatencyTable, Predictor
from lut.errors import BudgetError
from lut.records import ChannelGroup
from profiler.cut import cut
from profiler.network import Network
from profiler.progress import Event, Progress
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from pruner.budget import Budget
from pruner.cost import ActivationBytes, Channels, Cost, Latency, Macs, Memory
from pruner.deploy import CAREFULLY
from pruner.importance import RANKINGS, Ranking
from pruner.loop import Bench, solve_measured
from pruner.narrow import names_in, narrowed, renamed
from pruner.options import Offered
from pruner.outcome import finish, pruned_model
from pruner.posing import Budgeted, Question, solve
from pruner.request import PruneConfig, PruneRun
from pruner.rundir import load_weights, persistent_tensors
from pruner.runstate import RunState
from pruner.solvers import Solver
from pruner.task import Task
from pruner.training import evaluate, finetune, reestimate_norms


class Rounds:
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
        fixed: frozenset[str] = frozenset(),
    ) -> None:
        self.task, self.model, self.network, self.table = task, model, network, table
        self.budget, self.config, self.solver, self.client = budget, config, solver, client
        self.state, self.progress = state, progress
        self.fixed = fixed
        self.liveness = network.liveness(config.memory_of or config.backend)
        self.names = names_in(model, network.model)
        self.groups = renamed(network.groups, self.names)
        progress(Event("export the network", 0, 1))
        self.bench = Bench(
            prepare(network), client, table, latencies=budget.on_latency or config.normalize == "latency"
        )
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
        memory = self.budget.bytes(self.liveness.at(self.network.widths).total_bytes)
        small = self.model
        for number in range(self.config.rounds):
            share = (number + 1) / self.config.rounds
            limits = (
                unpruned_ms * (budget_ms / unpruned_ms) ** share if budget_ms else None,
                self._memory_step(memory, share),
            )
            small = self._round(small, number, limits, unpruned_ms)
        pruned = pruned_model(self.task, self.model, small, self.network, self.groups, self.kept)
        return finish(pruned, self.bench, before, (budget_ms, memory), self.config, self.state, self.progress)

    def _memory_step(self, memory: float | None, share: float) -> float | None:
        full = self.liveness.at(self.network.widths).total_bytes
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
        found = {
            "measured_ms": reply.median_ms,
            "noise": reply.noise,
            "samples": len(reply.samples_ms),
            "metrics": metrics,
        }
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
            planned = {"kept": self._solve(self._rankings(model, groups), limits, unpruned_ms)}
            self.state.complete(stage, planned)
        chosen = {name: set(planned["kept"][name]) for name in self.kept}
        gone = {
            name: [choice for choice, original in enumerate(kept) if original not in chosen[name]]
            for name, kept in self.kept.items()
        }
        self.kept = {name: list(planned["kept"][name]) for name in self.kept}
        smaller = cut(model, groups, {name: choices for name, choices in gone.items() if choices})
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

    def _rankings(self, model: nn.Module, groups: list[ChannelGroup]) -> dict[str, Ranking]:
        ranked = RANKINGS[self.config.importance]
        torch.manual_seed(self.config.seed)
        prunable = [group for group in groups if group.size > 0 and group.name not in self.fixed]
        batches = self.task.train_batches() if self.task.train_batches else ()
        loss = self.task.loss
        assert loss is not None
        return ranked(model, prunable, batches, loss, progress=self.progress)

    def _solve(
        self, rankings: Mapping[str, Ranking], limits: tuple[float | None, float | None], unpruned_ms: float
    ) -> dict[str, list[int]]:
        """The original choices that each group keeps."""
        budget_ms, memory = limits
        if budget_ms is not None:
            trial = solve_measured(
                self.solver,
                self.bench,
                lambda predictor, most_ms: self._question(rankings, predictor, most_ms, memory),
                budget_ms=budget_ms,
                unpruned_ms=unpruned_ms,
                progress=self.progress,
            )
            widths = trial.answer.widths
        else:
            question = self._question(rankings, self.bench.predictor, None, memory)
            answer = solve(question, self.solver)
            if not answer.met:
                least = Memory(self.liveness).at(question.narrowest())
                raise BudgetError(
                    f"The memory budget of {(memory or 0) / 1e6:.4g} MB cannot be met: "
                    f"the least that any plan reaches is {least / 1e6:.4g} MB."
                )
            widths = answer.widths
        return {
            name: [original[choice] for choice in rankings[name].kept(widths[name])] if name in rankings else original
            for name, original in self.kept.items()
        }

    def _question(
        self,
        rankings: Mapping[str, Ranking],
        predictor: Predictor | None,
        most_ms: float | None,
        memory: float | None,
    ) -> Question:
        offered = Offered(
            self.bench.table,
            self.network.units,
            self.network.widths,
            predictor,
            step=self._step(),
            min_width=self.config.min_width,
        )
        widths, budgets = self.widths, []
        latency = Latency(predictor) if predictor is not None else None
        if most_ms is not None:
            assert latency is not None
            budgets.append(Budgeted(latency, most_ms))
        if memory is not None:
            budgets.append(Budgeted(Memory(self.liveness), memory))
        return Question(
            full=widths,
            options={name: offered.options(name, widths) for name in widths if name in rankings},
            lost={name: ranking.lost for name, ranking in rankings.items()},
            budgets=budgets,
            rank=self._rank(latency),
        )

    def _step(self) -> int | None:
        """As asked for; else what ranks by something other than latency knows no steps, as published."""
        by_latency = self.config.normalize == "latency" or not self.solver.ranks_by_ratio
        return self.config.step or (None if by_latency else 1)

    def _rank(self, latency: Latency | None) -> Cost:
        if self.config.normalize == "latency" and latency is not None:
            return latency
        if self.config.normalize == "flops":
            return Macs(self.network.units)
        if self.config.normalize == "none":
            return Channels(self.network.widths)
        return ActivationBytes(self.network.cut.liveness, self.network.units)

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
