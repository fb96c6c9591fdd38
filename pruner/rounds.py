"""The rounds of a run: score, choose, shrink, fine-tune; each stage is kept, so that a run can go on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from lut import LatencyTable
from lut.errors import RunError
from lut.records import ChannelGroup
from profiler.blocks import Block, without_blocks
from profiler.cut import cut
from profiler.progress import Event, Progress
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from pruner.bench import Bench
from pruner.budget import Budget, Limits
from pruner.choosing import Choosing, Scored
from pruner.deploy import CAREFULLY
from pruner.memory_bench import memory_target, open_memory
from pruner.narrow import names_in, narrowed
from pruner.outcome import Ahead, finish
from pruner.present import Present, missing
from pruner.pruned import pruned_model
from pruner.question import Subject, removable_blocks, score, score_blocks
from pruner.removal import narrowed_all, renamed_blocks
from pruner.request import PruneConfig, PruneRun
from pruner.runstate import RunState
from pruner.solvers import Solver
from pruner.training import evaluate
from pruner.tuning import tune


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
        self.subject, self.task, self.model, self.network = subject, subject.task, subject.model, subject.network
        self.budget, self.config, self.state, self.progress = budget, config, state, progress
        self.ahead = table.fingerprint.ahead_of_time
        network = self.network
        network.liveness(*memory_target(config, table.fingerprint))  # an unknown runtime is refused before any work
        progress(Event("export the network", 0, 1))
        self.blocks = removable_blocks(subject) if config.blocks else []
        self.bench = Bench(
            prepare(network, stay=subject.fixed),
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
        self.choosing = Choosing(network, self.bench, self.memory, config, solver, progress)
        whole = {name: list(range(size)) for name, size in network.widths.items()}
        self.present = Present(network, whole, network, self.choosing.liveness(network))
        self.solved: list[dict[str, Any]] = []

    def close(self) -> None:
        """Remove temporary files."""
        self.bench.close()
        if self.memory is not None:
            self.memory.compiler.close()

    def run(self) -> PruneRun:
        """All stages."""
        full_bytes = self.choosing.unpruned_bytes()
        before = self._before()
        unpruned_ms = float(before["measured_ms"] or 0.0)
        limits = Limits(
            self.budget.latency_ms(unpruned_ms) if self.budget.on_latency else None, self.budget.bytes(full_bytes)
        )
        full = Limits(unpruned_ms, full_bytes)
        small = self.model
        for number in range(self.config.rounds):
            small = self._round(small, number, limits, full)
        pruned = pruned_model(
            self.task, self.model, small, self.subject.groups, self.present, self._as_in_model(self.present.gone)
        )
        return finish(
            pruned,
            self.bench,
            before,
            limits,
            self.config,
            self.state,
            self.solved,
            self.progress,
            ahead=Ahead(self.memory, self.not_compiled, self.present.liveness),
        )

    def _before(self) -> dict[str, Any]:
        """The unpruned network's measured latency and metric.

        Raises:
            RunError: an interrupted run is to go on with another network than it began with.
        """
        if self.state.has("before"):
            found = self.state.payload("before")
            if found.get("network", self.network.hash) != self.network.hash:
                raise RunError(
                    f"{self.state.folder} holds an unfinished run of another network: the task's model or its inputs "
                    "have changed since. --overwrite begins anew; another --out keeps it."
                )
            return found
        found = {"network": self.network.hash, "measured_ms": None, "noise": None, "samples": 0}
        if not self.ahead:
            self.progress(Event("measure the unpruned network", 0, 1))
            reply = self.bench.time(self.bench.unpruned, CAREFULLY, reference=False)
            found |= {"measured_ms": reply.median_ms, "noise": reply.noise, "samples": len(reply.samples_ms)}
            self.progress(Event("measure the unpruned network", 1, 1, f"{reply.median_ms:.4g} ms"))
        found["metrics"] = evaluate(self.task, self.model) if self.task.evaluate else {}
        self.state.complete("before", found)
        return found

    def _round(self, model: nn.Module, number: int, limits: Limits, full: Limits) -> nn.Module:
        """Score, choose, shrink and fine-tune once; gives back the smaller model.

        Args:
            model: the whole model, as it is now.
            number: of the round, counted from 0.
            limits: that the last round reaches.
            full: what the unpruned network costs.
        """
        stage = f"round {number + 1}"
        groups, blocks = self._what_is_left()
        if self.state.has(stage):
            planned = self.state.payload(stage)
        else:
            share, unpruned_ms = (number + 1) / self.config.rounds, full.ms or 0.0
            now = limits.on_the_way(share, full)
            if self.config.rounds > 1:
                self.progress(Event(f"round {number + 1} of {self.config.rounds}", 0, note=f"to {now}"))
            scored = self._score(model, groups, blocks)
            if number == 0 and share < 1:
                self.choosing.refuse_impossible(self.present, scored, limits, unpruned_ms)
            planned = self.choosing.choose(self.present, scored, now, unpruned_ms)
            self.state.complete(stage, planned)
            self.state.settle()
        self.solved.append(planned["solved"])
        going = [block for block in blocks if block.name in planned["blocks"]]
        smaller = cut(model, groups, self._take(planned), blocks=going)
        tune(
            smaller,
            number,
            task=self.task,
            teacher=self.model,
            config=self.config,
            state=self.state,
            progress=self.progress,
        )
        return smaller

    def _score(self, model: nn.Module, groups: list[ChannelGroup], blocks: list[Block]) -> Scored:
        """Score what is left, anew."""
        rankings = score(self.task, model, groups, fixed=self.subject.fixed, config=self.config, progress=self.progress)
        removable = score_blocks(
            self.task, model, blocks, self.blocks, rankings, config=self.config, progress=self.progress
        )
        return Scored(rankings, removable)

    def _take(self, planned: Mapping[str, Any]) -> dict[str, list[int]]:
        """Let go of what a plan does not keep; gives back what goes, in positions among what was there before."""
        going = {}
        for name, before in self.present.kept.items():
            places = {original: place for place, original in enumerate(before)}
            gone = missing(len(before), [places[original] for original in planned["kept"][name]])
            if gone:
                going[name] = gone
        self.present = replace(self.present, kept={name: list(planned["kept"][name]) for name in self.present.kept})
        if planned["blocks"]:
            names = {*self.present.names_gone, *planned["blocks"]}
            gone_blocks = tuple(block for block in self.blocks if block.name in names)
            network = without_blocks(self.network, gone_blocks)
            self.present = replace(
                self.present, gone=gone_blocks, network=network, liveness=self.choosing.liveness(network)
            )
        return going

    def _what_is_left(self) -> tuple[list[ChannelGroup], list[Block]]:
        """The groups and blocks as they stand now, named as in the whole model."""
        groups, present = self.subject.groups, self.present
        if not self.blocks:
            return narrowed(groups, present.removed), []
        return narrowed_all(groups, self._as_in_model(self.blocks), present.removed, self._as_in_model(present.gone))

    def _as_in_model(self, blocks: Any) -> list[Block]:
        """Blocks of the deployed part, named as in the whole model."""
        return renamed_blocks(blocks, names_in(self.model, self.network.model))
