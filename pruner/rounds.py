"""The rounds of a run: score, solve by measurement, shrink, fine-tune; each stage is kept, so that a run can go on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lut import LatencyTable, Predictor
from lut.errors import BudgetError
from lut.memory import Liveness, MemoryBound
from lut.records import ChannelGroup
from profiler.blocks import Block, without_blocks
from profiler.cut import cut
from profiler.leftovers import Standing, standing
from profiler.network import Network
from profiler.progress import Event, Progress
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from pruner.averages import optimizer_tensors, without_optimizer
from pruner.bench import Bench
from pruner.budget import Budget
from pruner.cost import Memory
from pruner.deploy import CAREFULLY
from pruner.importance import Ranking
from pruner.loop import solve_measured
from pruner.memory_bench import bounds_in, corrected, memory_target, open_memory
from pruner.memory_loop import solve_compiled
from pruner.narrow import names_in, narrowed
from pruner.norms import reestimate_norms
from pruner.outcome import Ahead, finish, pruned_model
from pruner.posing import Answer, Budgeted, Question, Removable, solve
from pruner.question import Subject, ask, removable_blocks, score, score_blocks
from pruner.removal import narrowed_all, renamed_blocks
from pruner.request import PruneConfig, PruneRun
from pruner.rundir import load_weights, persistent_tensors
from pruner.runstate import RunState
from pruner.solvers import Solver
from pruner.training import evaluate, finetune


class Rounds:
    """One run from start to end; each method is a stage that is skipped when the run directory has it."""

    def __init__(
        self,
        subject: Subject,
        table: LatencyTable,
        budget: Budget,
        config: PruneConfig,
        solver: Solver,
        client: WorkerClient,
        state: RunState,
        progress: Progress,
    ) -> None:
        self.task, self.model, self.network = subject.task, subject.model, subject.network
        self.groups, self.fixed = list(subject.groups), subject.fixed
        self.table, self.budget, self.config, self.solver = table, budget, config, solver
        self.client, self.state, self.progress = client, state, progress
        network = self.network
        self.present = network
        self.ahead = table.fingerprint.ahead_of_time
        network.liveness(*memory_target(config, table.fingerprint))  # an unknown runtime is refused before any work
        progress(Event("export the network", 0, 1))
        self.blocks = removable_blocks(subject) if config.blocks else []
        self.bench = Bench(
            prepare(network, stay=self.fixed),
            client,
            table,
            blocks=self.blocks,
            latencies=budget.on_latency or config.normalize == "latency",
        )
        progress(Event("export the network", 1, 1))
        self.memory, self.not_compiled = None, None
        if budget.on_memory:
            try:
                self.memory, self.not_compiled = open_memory(self.bench, config, progress)
            except BaseException:
                self.bench.close()
                raise
        self.liveness = self._liveness(network)
        self.full_bytes = self._unpruned_bytes()
        self.kept = {name: list(range(size)) for name, size in network.widths.items()}
        self.gone: list[str] = []
        self.solved: list[dict[str, Any]] = []

    def close(self) -> None:
        """Remove temporary files."""
        self.bench.close()
        if self.memory is not None:
            self.memory.compiler.close()

    def run(self) -> PruneRun:
        """All stages."""
        before = self._before()
        unpruned_ms = float(before["measured_ms"] or 0.0)
        budget_ms = self.budget.latency_ms(unpruned_ms) if self.budget.on_latency else None
        memory = self.budget.bytes(self.full_bytes)
        small = self.model
        for number in range(self.config.rounds):
            share = (number + 1) / self.config.rounds
            limits = (
                unpruned_ms * (budget_ms / unpruned_ms) ** share if budget_ms else None,
                self.full_bytes * (memory / self.full_bytes) ** share if memory else None,
            )
            small = self._round(small, number, limits, unpruned_ms)
        named = renamed_blocks(self._gone_blocks, names_in(self.model, self.network.model))
        pruned = pruned_model(self.task, self.model, small, self.network, self.groups, self.kept, self.present, named)
        limits = budget_ms, memory
        return finish(
            pruned,
            self.bench,
            before,
            limits,
            self.config,
            self.state,
            self.solved,
            self.progress,
            ahead=Ahead(self.memory, self.not_compiled, self.liveness),
        )

    def _liveness(self, network: Network) -> Liveness:
        """A network's tensors as they are laid out where they are deployed, by all that is known of it."""
        runtime, precision = memory_target(self.config, self.table.fingerprint)
        counted = network.liveness(runtime, precision)
        if self.memory is not None:
            self.memory.bound(self.network.widths)
            return self.memory.learned(counted)
        unpruned = self.network.liveness(runtime, precision)
        known = bounds_in(self.table, self.network.hash, unpruned) if self.ahead else []
        return corrected(counted, unpruned, known)

    def _unpruned_bytes(self) -> int:
        """What the unpruned network needs: as the compiler says, or as it is counted."""
        if self.memory is not None:
            return self.memory.bound(self.network.widths).total_bytes
        return self.liveness.at(self.network.widths).total_bytes

    @property
    def widths(self) -> dict[str, int]:
        """Present widths."""
        return {name: len(kept) for name, kept in self.kept.items()}

    def _before(self) -> dict[str, Any]:
        """The unpruned network's measured latency and metric."""
        if self.state.has("before"):
            return self.state.payload("before")
        if self.ahead:
            metrics = evaluate(self.task, self.model) if self.task.evaluate else {}
            unmeasured = {"measured_ms": None, "noise": None, "samples": 0, "metrics": metrics}
            self.state.complete("before", unmeasured)
            return unmeasured
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
        groups, blocks = self._what_is_left()
        if self.state.has(stage):
            planned = self.state.payload(stage)
        else:
            rankings = score(self.task, model, groups, fixed=self.fixed, config=self.config, progress=self.progress)
            removables = score_blocks(
                self.task, model, blocks, self.blocks, rankings, config=self.config, progress=self.progress
            )
            planned = self._solve(rankings, removables, limits, unpruned_ms)
            self.state.complete(stage, planned)
            self.state.settle()
        self.solved.append(planned["solved"])
        chosen = {name: set(planned["kept"][name]) for name in self.kept}
        gone = {
            name: [choice for choice, original in enumerate(kept) if original not in chosen[name]]
            for name, kept in self.kept.items()
        }
        self.kept = {name: list(planned["kept"][name]) for name in self.kept}
        if planned["blocks"]:
            self.gone += planned["blocks"]
            self.present = without_blocks(self.network, self._gone_blocks)
            self.liveness = self._liveness(self.present)
        going = [block for block in blocks if block.name in planned["blocks"]]
        smaller = cut(model, groups, {name: choices for name, choices in gone.items() if choices}, blocks=going)
        self._finetune(smaller, number)
        return smaller

    def _what_is_left(self) -> tuple[list[ChannelGroup], list[Block]]:
        """The groups and blocks as they stand now, named as in the whole model."""
        if not self.blocks:
            return narrowed(self.groups, self._removed()), []
        blocks = renamed_blocks(self.blocks, names_in(self.model, self.network.model))
        gone = [block for block in blocks if block.name in self.gone]
        return narrowed_all(self.groups, blocks, self._removed(), gone)

    @property
    def _gone_blocks(self) -> list[Block]:
        return [block for block in self.blocks if block.name in self.gone]

    def _removed(self) -> dict[str, list[int]]:
        """Original choices that are gone so far."""
        found = {}
        for name, size in self.network.widths.items():
            kept = set(self.kept[name])
            if len(kept) < size:
                found[name] = [choice for choice in range(size) if choice not in kept]
        return found

    def _solve(
        self,
        rankings: Mapping[str, Ranking],
        blocks: Sequence[Removable],
        limits: tuple[float | None, float | None],
        unpruned_ms: float,
    ) -> dict[str, Any]:
        """The original choices that each group keeps ("kept"), the blocks that go, and how they were found."""
        memory = limits[1]
        bound: MemoryBound | None = None
        measured: tuple[float, ...] = ()
        if memory is None or self.memory is None:
            answer, measured = self._attempt(rankings, blocks, limits, unpruned_ms)[1:]
            if not answer.met:
                least = Memory(self.liveness).at(self._question(rankings, blocks, None, None, memory).narrowest())
                raise BudgetError(
                    f"The memory budget of {(memory or 0) / 1e6:.4g} MB cannot be met: "
                    f"the least that any plan reaches is {least / 1e6:.4g} MB."
                )
        else:

            def attempt(aim: float) -> tuple[Question, Answer]:
                nonlocal measured
                question, answer, measured = self._attempt(rankings, blocks, (limits[0], aim), unpruned_ms)
                return question, answer

            turn = solve_compiled(
                attempt,
                self.memory,
                self.liveness,
                most=memory,
                target=str(self.memory.target),
                filling=limits[0] is None,
                progress=self.progress,
                gone=self.gone,
            )
            answer, bound = turn.answer, turn.bound
        kept = {
            name: [original[choice] for choice in rankings[name].kept(answer.widths[name])]
            if name in rankings
            else original
            for name, original in self.kept.items()
        }
        total = sum(float(ranking.lost[-1]) for ranking in rankings.values())
        solved = {
            "importance_kept": 1 - answer.lost / total if total else 1.0,
            "gap": answer.gap,
            "approximated_terms": answer.approximated,
            "measured_of_unpruned": list(measured),
            "compiled_bytes": bound.total_bytes if bound else None,
        }
        return {"kept": kept, "blocks": list(answer.blocks), "solved": solved}

    def _attempt(
        self,
        rankings: Mapping[str, Ranking],
        blocks: Sequence[Removable],
        limits: tuple[float | None, float | None],
        unpruned_ms: float,
    ) -> tuple[Question, Answer, tuple[float, ...]]:
        """Solve once within limits of latency, which is measured, and of the memory that is told."""
        budget_ms, memory = limits
        if budget_ms is None:
            question = self._question(rankings, blocks, self.bench.predictor, None, memory)
            return question, solve(question, self.solver), ()

        def pose(predictor: Predictor, most_ms: float) -> Question:
            return self._question(rankings, blocks, predictor, most_ms, memory)

        trial = solve_measured(
            self.solver,
            self.bench,
            pose,
            budget_ms=budget_ms,
            unpruned_ms=unpruned_ms,
            progress=self.progress,
            gone=self.gone,
        )
        # its latency was measured, whatever was predicted of it
        answer = replace(trial.answer, met=memory is None or trial.answer.costs[-1] <= memory)
        return self._question(rankings, blocks, self.bench.predictor, budget_ms, memory), answer, trial.ratios

    def _question(
        self,
        rankings: Mapping[str, Ranking],
        blocks: Sequence[Removable],
        predictor: Predictor | None,
        most_ms: float | None,
        memory: float | None,
    ) -> Question:
        stood = self._standing(predictor)
        return ask(
            self.network,
            self.bench.table,
            rankings,
            widths=self.widths,
            predictor=predictor,
            most_ms=most_ms,
            memory=None if memory is None else Budgeted(Memory(self.liveness), memory),
            config=self.config,
            blocks=blocks,
            gone=stood.gone,
            left=stood.left,
        )

    def _standing(self, predictor: Predictor | None) -> Standing:
        """What stands in place of the units of blocks that are gone, as far as it has a price of its own."""
        stood = standing(self.network, self._gone_blocks)
        return stood if predictor is None else stood.priced(predictor.prices)[0]

    def _finetune(self, model: nn.Module, number: int) -> None:
        """Fine-tune from where an interrupted run stopped; weights are kept after every epoch."""
        shared = self.config.epochs // self.config.rounds + (number < self.config.epochs % self.config.rounds)
        stage = f"round {number + 1} tuned"
        done = self.state.payload(stage) if self.state.has(stage) else {"epochs": 0, "finished": False}
        kept = self.state.tensors(stage) if self.state.has(stage) else {}
        if kept:
            load_weights(model, without_optimizer(kept), f"the checkpoint of {stage}")
        else:
            reestimate_norms(model, self.task, seed=self.config.seed, device=self.config.train_device)
        if done["finished"]:
            return

        def keep(epochs: int, tuned: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            tensors = {**persistent_tensors(tuned), **optimizer_tensors(optimizer, tuned)}
            self.state.complete(stage, {"epochs": epochs, "finished": False}, tensors)

        finetune(
            model,
            self.task,
            epochs=shared,
            seed=self.config.seed + number,
            first_epoch=int(done["epochs"]),
            averages=kept,
            after_epoch=keep,
            teacher=self.model if self.config.distill else None,
            distill=self.config.distill,
            device=self.config.train_device,
            mixed_precision=self.config.mixed_precision,
            progress=self.progress,
        )
        model.eval()
        self.state.complete(stage, {"epochs": shared, "finished": True}, persistent_tensors(model))
