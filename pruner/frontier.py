"""The whole curve of importance kept against predicted latency, solved at many budgets before anything is pruned.

Nothing is measured or changed: scores are taken once, and the table alone says what widths cost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from lut import LatencyTable, Memory, Predictor, open_table
from lut.errors import BudgetError, LatpruneError
from profiler.ahead import as_precision
from profiler.blocks import Block, without_blocks
from profiler.leftovers import Standing, standing
from profiler.network import Network
from profiler.progress import Progress, silent
from pruner.budget import Budget
from pruner.cost import Latency
from pruner.cost import Memory as MemoryCost
from pruner.curve import Choice, Paced, ends, least_ms, spread_budgets, trace_curve
from pruner.importance import Ranking
from pruner.narrow import names_in
from pruner.posing import Budgeted, Removable
from pruner.question import ask, check_importance, read_subject, removable_blocks, score, score_blocks
from pruner.removal import renamed_blocks
from pruner.request import PruneConfig
from pruner.solvers import get_solver
from pruner.solvers.milp import Milp
from pruner.task import Task

POINTS = 20
SECONDS = 50.0
"""For the exact solver over the whole curve."""


@dataclass(frozen=True)
class Point:
    """The best plan that was found for one budget.

    Attributes:
        budget_ms: of latency as the table predicts it.
        predicted_ms, low_ms, high_ms: of the plan, with the 90 % interval.
        speedup: the unpruned network's predicted latency over the plan's.
        importance_kept: share of the importance of all channels that could go.
        lost: importance lost, in the scores' own unit.
        parameters, macs: counts of the pruned network.
        memory: of the pruned network.
        gap: how much less any plan within the budget could lose, as a fraction of `lost`; None without a proof.
        widths: of every group.
        removed_blocks: names of the residual blocks that go.
        missing: names of units that are left where blocks went and have no price: they are not in the latency.
        taken_over: whether it is a tighter budget's plan, because what the solver found for this one was worse.
    """

    budget_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    speedup: float
    importance_kept: float
    lost: float
    parameters: int
    macs: float
    memory: Memory
    gap: float | None
    widths: Mapping[str, int]
    taken_over: bool = False
    removed_blocks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the five keys of memory beside the others."""
        plain = {name: value for name, value in vars(self).items() if name not in ("memory", "widths")}
        return plain | self.memory.to_json() | {"widths": dict(self.widths)}


@dataclass(frozen=True)
class Frontier:
    """The curve: a tighter budget never keeps more, and is never predicted slower.

    Attributes:
        points: one a budget, the loosest first.
        unpruned: the network as it is.
        importance, solver: what scored and what solved.
        missing: names of units that the table cannot price; they are in no latency.
        task: its name.
        network: hash of the network.
        table: the table's name.
        fingerprint: of the device, as plain JSON.
        memory_budget_bytes: that every point keeps, or None.
        blocks: names of the residual blocks that might go; None where that was not asked.
    """

    points: tuple[Point, ...]
    unpruned: Point
    importance: str
    solver: str
    missing: tuple[str, ...]
    task: str
    network: str
    table: str
    fingerprint: Mapping[str, Any]
    memory_budget_bytes: float | None = None
    blocks: tuple[str, ...] | None = None

    @property
    def unpruned_ms(self) -> float:
        """The unpruned network's predicted latency."""
        return self.unpruned.predicted_ms

    @property
    def taken_over(self) -> int:
        """How many points show a tighter budget's plan, because what the solver found for their own was worse."""
        return sum(point.taken_over for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = {name: value for name, value in vars(self).items() if name not in ("points", "unpruned")}
        return {
            "points": [point.to_json() for point in self.points],
            "unpruned_ms": self.unpruned_ms,
            "unpruned": self.unpruned.to_json(),
            "taken_over": self.taken_over,
            **plain,
        }


def frontier(
    task: Task,
    table: LatencyTable | Path | str,
    *,
    config: PruneConfig | None = None,
    points: int = POINTS,
    memory_bytes: float | None = None,
    memory_fraction: float | None = None,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> Frontier:
    """Solve a task's pruning at many budgets by the table alone; nothing is measured, and no network is changed.

    Args:
        task: model, inputs, and the batches and loss that the importance looks at.
        table: of any device, or its file.
        config: importance, solver, what stays whole, how narrow groups may get, whether residual blocks may go, seed;
            the rest is not looked at.
        points: how many budgets, at least two, from the unpruned latency down to the narrowest plan's.
        memory_bytes: that every plan keeps.
        memory_fraction: the same as a fraction of the unpruned network's. It is counted as the runtime and precision of
            `config.memory_of` lay it out, or those of the table's own runtime.
        seconds: what the exact solver may take for all budgets together.
        progress: told of every step.

    Raises:
        BudgetError: no plan keeps the memory.
        TableError: the table knows nothing of the network.
        TaskError: the task lacks what the importance needs.
        ValueError: there are fewer than two points.
    """
    if points < 2:
        raise ValueError(f"A curve has at least two points, not {points}.")
    config = config or PruneConfig()
    check_importance(task, config.importance)
    chosen = get_solver(config.solver)
    solver = Paced(seconds) if chosen.name == Milp.name else chosen
    rows = table if isinstance(table, LatencyTable) else open_table(Path(table))
    subject = read_subject(task, config, progress)
    network = subject.network
    predictor = Predictor(network.units, rows, network=network.hash, allow_missing=True)
    if not predictor.units:
        raise rows.missing(unit.family for unit in network.units)
    rankings = score(task, subject.model, subject.groups, fixed=subject.fixed, config=config, progress=progress)
    removables: list[Removable] = []
    blocks = removable_blocks(subject) if config.blocks else []
    if blocks:
        named = renamed_blocks(blocks, names_in(subject.model, network.model))
        removables = score_blocks(task, subject.model, named, blocks, rankings, config=config, progress=progress)
    memory_of = config.memory_of or rows.fingerprint.runtime, as_precision(config.memory_precision)
    curve = _Curve(network, predictor, memory_of, rankings, blocks)
    memory = curve.memory_budget(Budget(memory_bytes=memory_bytes, memory_fraction=memory_fraction))
    full, unpruned_ms = network.widths, predictor.latency_ms(network.widths)
    question = ask(
        network,
        rows,
        rankings,
        widths=full,
        predictor=predictor,
        most_ms=unpruned_ms,
        memory=memory,
        config=config,
        blocks=removables,
    )
    latency, *others = question.budgets
    question = replace(question, budgets=[replace(latency, without=curve.latency_without), *others])
    if memory is not None and not any(plan.keeps(others) for plan in ends(question)):
        least = min(plan.costs[-1] for plan in ends(question))
        raise BudgetError(
            f"The memory budget of {memory.most / 1e6:.4g} MB cannot be met: "
            f"the least that any plan reaches is {least / 1e6:.4g} MB."
        )
    budgets = spread_budgets(unpruned_ms, least_ms(question), points)
    choices = trace_curve(question, budgets, solver, progress)
    return Frontier(
        points=tuple(map(curve.point, choices)),
        unpruned=curve.point(Choice(unpruned_ms, full, unpruned_ms, lost=0.0, bound=0.0)),
        importance=config.importance,
        solver=config.solver,
        missing=predictor.missing,
        task=task.name,
        network=network.hash,
        table=rows.name,
        fingerprint=rows.fingerprint.to_json(),
        memory_budget_bytes=memory.most if memory else None,
        blocks=tuple(block.name for block in removables) if config.blocks else None,
    )


class _Curve:
    """Says what a plan is worth beside the unpruned network."""

    def __init__(
        self,
        network: Network,
        predictor: Predictor,
        memory_of: tuple[str, str],
        rankings: Mapping[str, Ranking],
        blocks: Sequence[Block] = (),
    ) -> None:
        self.network, self.predictor, self.memory_of = network, predictor, memory_of
        self.blocks = {block.name: block for block in blocks}
        self.liveness = network.liveness(*memory_of)
        self._stood: dict[tuple[str, ...], Standing] = {}
        self._presents: dict[tuple[str, ...], Network] = {(): network}
        self.unpruned_ms = predictor.latency_ms(network.widths)
        self.importance = sum(float(ranking.lost[-1]) for ranking in rankings.values())
        if not self.importance > 0:
            raise LatpruneError(
                "Every channel's importance is 0: nothing tells which to keep.\n"
                "Take batches on which the loss has gradients, or another --importance"
            )

    def memory_budget(self, budget: Budget) -> Budgeted | None:
        """The memory that every plan keeps, or None."""
        most = budget.bytes(self.liveness.at(self.network.widths).total_bytes)
        return None if most is None else Budgeted(MemoryCost(self.liveness), most, self._memory_without)

    def latency_without(self, blocks: Sequence[str]) -> Latency:
        """The latency without blocks, with what stands in their place as far as it has a price."""
        stood = self._standing(blocks)
        return Latency(self.predictor, stood.gone, stood.left)

    def _standing(self, blocks: Sequence[str]) -> Standing:
        key = tuple(sorted(blocks))
        if key not in self._stood:
            stood = standing(self.network, [self.blocks[name] for name in key])
            self._stood[key] = stood.priced(self.predictor.prices)[0]
        return self._stood[key]

    def _memory_without(self, blocks: Sequence[str]) -> MemoryCost:
        return MemoryCost(self._present(blocks).liveness(*self.memory_of))

    def _present(self, blocks: Sequence[str]) -> Network:
        """The network without blocks."""
        key = tuple(sorted(blocks))
        if key not in self._presents:
            self._presents[key] = without_blocks(self.network, [self.blocks[name] for name in key])
        return self._presents[key]

    def point(self, choice: Choice) -> Point:
        """All figures of a plan."""
        gone = [self.blocks[name] for name in choice.blocks]
        present = self._present(choice.blocks)
        stood = self._standing(choice.blocks)
        total = self.predictor.predict(choice.widths, gone=stood.gone, left=stood.left).total
        return Point(
            budget_ms=choice.budget_ms,
            predicted_ms=total.ms,
            low_ms=total.low_ms,
            high_ms=total.high_ms,
            speedup=self.unpruned_ms / total.ms,
            importance_kept=1 - choice.lost / self.importance,
            lost=choice.lost,
            parameters=count_parameters(self.network, choice.widths, gone),
            macs=present.macs(choice.widths),
            memory=(present.liveness(*self.memory_of) if gone else self.liveness).at(choice.widths),
            gap=choice.gap,
            widths=dict(choice.widths),
            taken_over=choice.taken_over,
            removed_blocks=choice.blocks,
            missing=tuple(unit.name for unit in stood.left if not self.predictor.prices(unit)),
        )


def count_parameters(network: Network, widths: Mapping[str, int], gone: Iterable[Block] = ()) -> int:
    """How many parameters the network has at these widths, without blocks; a shared one counts once."""
    lengths = network.structure.parameter_coordinates()
    dropped = {name for block in gone for name in block.parameters}
    counts: dict[int, int] = {}
    for name, parameter in network.model.named_parameters(remove_duplicate=False):
        if name in dropped:
            continue
        if name in lengths:  # the name that groups use, where a parameter has several
            counts[id(parameter)] = prod(length.at(widths) for length in lengths[name])
        counts.setdefault(id(parameter), parameter.numel())
    return sum(counts.values())
