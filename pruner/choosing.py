"""Chooses what a round keeps: within limits of latency, which is measured, and of memory, as it is told or compiled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lut import Predictor
from lut.errors import BudgetError
from lut.memory import Liveness, MemoryBound
from profiler.blocks import without_blocks
from profiler.leftovers import standing
from profiler.network import Network
from profiler.progress import Progress
from pruner.bench import Bench
from pruner.budget import Limits
from pruner.cost import Memory
from pruner.importance import Ranking
from pruner.loop import WAYS_OUT, refuse_impossible, solve_measured
from pruner.memory_bench import MemoryBench, bounds_in, corrected, memory_target
from pruner.memory_loop import solve_compiled
from pruner.posing import Answer, Budgeted, Question, Removable
from pruner.present import Present
from pruner.question import ask
from pruner.request import PruneConfig
from pruner.solvers import Solver
from pruner.solving import solve


@dataclass(frozen=True)
class Scored:
    """What a round may choose from.

    Attributes:
        rankings: of the groups that may change, as they stand.
        blocks: that may go.
    """

    rankings: Mapping[str, Ranking]
    blocks: Sequence[Removable]


@dataclass(frozen=True)
class Choosing:
    """Asks, solves and measures, for one round after another.

    Attributes:
        network: the unpruned one.
        bench: times it at any widths.
        memory: compiles it at any widths, or None where memory is counted.
        config: of the run.
        solver: chooses.
        progress: told of each turn.
    """

    network: Network
    bench: Bench
    memory: MemoryBench | None
    config: PruneConfig
    solver: Solver
    progress: Progress

    def liveness(self, network: Network) -> Liveness:
        """The tensors of the unpruned network, or of what blocks left of it, by all that is known of the target."""
        runtime, precision = memory_target(self.config, self.bench.table.fingerprint)
        counted = network.liveness(runtime, precision)
        if self.memory is not None:
            self.memory.bound(self.network.widths)
            return self.memory.learned(counted)
        unpruned = self.network.liveness(runtime, precision)
        ahead = self.bench.table.fingerprint.ahead_of_time
        known = bounds_in(self.bench.table, self.network.hash, unpruned) if ahead else []
        return corrected(counted, unpruned, known)

    def unpruned_bytes(self) -> int:
        """What the unpruned network needs: as the compiler says, or as it is counted."""
        if self.memory is not None:
            return self.memory.bound(self.network.widths).total_bytes
        return self.liveness(self.network).at(self.network.widths).total_bytes

    def refuse_impossible(self, present: Present, scored: Scored, limits: Limits, unpruned_ms: float) -> None:
        """Make sure that each limit can be kept at all, before the training on the way there.

        Args:
            present: how the network stands.
            scored: what may go of it.
            limits: of the whole run.
            unpruned_ms: the unpruned network's latency.

        Raises:
            BudgetError: one cannot; the message says what the least is.
        """
        if limits.ms is not None:
            refuse_impossible(
                self.solver,
                self.bench,
                self._posing(present, scored, Limits(limits.ms)),
                budget_ms=limits.ms,
                unpruned_ms=unpruned_ms,
                gone=present.names_gone,
            )
        if limits.memory_bytes is not None:
            self.choose(present, scored, Limits(memory_bytes=limits.memory_bytes), unpruned_ms)

    def choose(self, present: Present, scored: Scored, limits: Limits, unpruned_ms: float) -> dict[str, Any]:
        """What to keep, as plain JSON.

        Args:
            present: how the network stands.
            scored: what may go of it.
            limits: of this round.
            unpruned_ms: the unpruned network's latency, the scale of the limit.

        Returns:
            "kept": the original choices that each group keeps; "blocks": names of those that go; "solved": how both
            were found.

        Raises:
            BudgetError: nothing keeps the limits; the message says what the least is.
        """
        bound: MemoryBound | None = None
        measured: tuple[float, ...] = ()
        if limits.memory_bytes is None or self.memory is None:
            question, answer, measured = self._attempt(present, scored, limits, unpruned_ms)
            if not answer.met:
                least = min(Memory(present.liveness).at(question.narrowest()), answer.costs[-1])
                raise BudgetError(
                    f"The memory budget of {(limits.memory_bytes or 0) / 1e6:.4g} MB cannot be met: "
                    f"the least that any plan reaches is {least / 1e6:.4g} MB. {WAYS_OUT}"
                )
        else:

            def attempt(aim: float) -> tuple[Question, Answer]:
                nonlocal measured
                aimed = replace(limits, memory_bytes=aim)
                question, answer, measured = self._attempt(present, scored, aimed, unpruned_ms)
                return question, answer

            turn = solve_compiled(
                attempt,
                self.memory,
                present.liveness,
                most=limits.memory_bytes,
                target=str(self.memory.target),
                filling=limits.ms is None,
                progress=self.progress,
                gone=present.names_gone,
            )
            answer, bound = turn.answer, turn.bound
        kept = {
            name: [original[choice] for choice in scored.rankings[name].kept(answer.widths[name])]
            if name in scored.rankings
            else list(original)
            for name, original in present.kept.items()
        }
        total = sum(float(ranking.lost[-1]) for ranking in scored.rankings.values())
        solved = {
            "importance_kept": 1 - answer.lost / total if total else 1.0,
            "gap": answer.gap,
            "approximated_terms": answer.approximated,
            "measured_of_unpruned": list(measured),
            "compiled_bytes": bound.total_bytes if bound else None,
        }
        return {"kept": kept, "blocks": list(answer.blocks), "solved": solved}

    def _attempt(
        self, present: Present, scored: Scored, limits: Limits, unpruned_ms: float
    ) -> tuple[Question, Answer, tuple[float, ...]]:
        """Solve once within limits of latency, which is measured, and of the memory that is told."""
        memory = limits.memory_bytes
        if limits.ms is None:
            question = self._question(present, scored, self.bench.predictor, limits)
            return question, solve(question, self.solver), ()

        trial = solve_measured(
            self.solver,
            self.bench,
            self._posing(present, scored, limits),
            budget_ms=limits.ms,
            unpruned_ms=unpruned_ms,
            progress=self.progress,
            gone=present.names_gone,
        )
        # its latency was measured, whatever was predicted of it
        answer = replace(trial.answer, met=memory is None or trial.answer.costs[-1] <= memory)
        return self._question(present, scored, self.bench.predictor, limits), answer, trial.ratios

    def _posing(self, present: Present, scored: Scored, limits: Limits) -> Callable[[Predictor, float], Question]:
        """The question of these limits at any latency, for any predictor."""
        return lambda predictor, most_ms: self._question(present, scored, predictor, replace(limits, ms=most_ms))

    def _question(self, present: Present, scored: Scored, predictor: Predictor | None, limits: Limits) -> Question:
        stood = standing(self.network, present.gone)
        if predictor is not None:  # what has no price of its own costs what it did
            stood = stood.priced(predictor.prices)[0]
        memory = limits.memory_bytes

        def without(blocks: Sequence[str]) -> Memory:
            gone = [*present.gone, *(self.bench.blocks[name] for name in blocks)]
            return Memory(self.liveness(without_blocks(self.network, gone)))

        return ask(
            self.network,
            self.bench.table,
            scored.rankings,
            widths=present.widths,
            predictor=predictor,
            most_ms=limits.ms,
            memory=None if memory is None else Budgeted(Memory(present.liveness), memory, without),
            config=self.config,
            blocks=scored.blocks,
            gone=stood.gone,
            left=stood.left,
        )
