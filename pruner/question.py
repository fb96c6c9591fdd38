"""Ask which channels to keep: read a task's network, score its channels once, and say what solvers may choose from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from lut import LatencyTable, Predictor
from lut.errors import LatpruneError
from lut.records import ChannelGroup, Unit
from profiler.ahead import Target
from profiler.blocks import Block, find_blocks
from profiler.network import Network, analyze
from profiler.progress import Event, Progress
from pruner.cost import ActivationBytes, Channels, Cost, Latency, Macs, name_left
from pruner.importance import RANKINGS, Ranking
from pruner.importance.branches import branch_scores
from pruner.narrow import asked_to_stay, names_in, out_of_place, renamed, without_programs_of
from pruner.options import Offered
from pruner.placement import batches_on, choose_device, placed
from pruner.posing import Budgeted, Question, Removable
from pruner.removal import blocks_in_place
from pruner.request import PruneConfig
from pruner.seeds import seeded
from pruner.solvers import get_solver
from pruner.task import Task

BLIND = frozenset({"magnitude"})
"""Importances that look at no data: a task without batches and loss will do."""


@dataclass(frozen=True)
class Subject:
    """A task's network, ready to be scored.

    Attributes:
        task: where it comes from.
        model: the whole model, in eval mode.
        network: the analysis of its deployed part.
        groups: of that part, named as in the whole model.
        fixed: names of the prunable groups that stay at full width all the same.
    """

    task: Task
    model: nn.Module
    network: Network
    groups: tuple[ChannelGroup, ...]
    fixed: frozenset[str]


def read_subject(task: Task, config: PruneConfig, progress: Progress) -> Subject:
    """Build a task's model and find what can be pruned of it.

    Raises:
        LatpruneError: the model does not run, a pattern of `freeze` names nothing, or nothing can be pruned.
    """
    progress(Event("read the network", 0, 1))
    with seeded(config.seed):
        model = task.build()
    network = analyze(task.deployed(model), task.inputs())
    asked, wrapped = asked_to_stay(model, network, config.freeze), out_of_place(model, network)
    fixed = asked | wrapped
    free = len(network.widths) - len(fixed)
    told = f"{free} groups can be pruned, {len(asked)} stay as asked"
    if wrapped:
        told += f", {len(wrapped)} because the code of network(model) itself would have to be rewritten"
    progress(Event("read the network", 1, 1, told))
    if not free:
        reasons = sorted({str(group.frozen_because) for group in network.groups if group.frozen_because})[:3]
        raise LatpruneError(f"Nothing in this network can be pruned: {'; '.join(reasons + list(config.freeze))}.")
    network = without_programs_of(fixed, network)
    return Subject(task, model, network, tuple(renamed(network.groups, names_in(model, network.model))), fixed)


def removable_blocks(subject: Subject) -> list[Block]:
    """The residual blocks that may go: the innermost, with no layer that has to stay.

    Where a block's branch holds other blocks, these are offered and not the block: what is nested is a choice twice.
    """
    network = subject.network
    found = blocks_in_place(subject.model, network, find_blocks(network))
    around = {name for block in found for name in block.within}
    return [block for block in found if block.name not in around and subject.fixed.isdisjoint(block.groups)]


def check_importance(task: Task, importance: str) -> None:
    """Make sure that an importance exists and that the task gives what it looks at, before the work for it.

    Raises:
        LatpruneError: there is no such importance.
        TaskError: the task lacks batches or a loss.
    """
    if importance not in RANKINGS:
        raise LatpruneError(f"There is no importance {importance!r}; there are {', '.join(RANKINGS)}.")
    if importance not in BLIND:
        task.require("train_batches", "loss")


def score(
    task: Task,
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    *,
    fixed: frozenset[str],
    config: PruneConfig,
    progress: Progress,
) -> dict[str, Ranking]:
    """Rank the choices of every group that may change.

    Args:
        task: gives batches and loss.
        model: the whole model, as it is now.
        groups: of it as it is now.
        fixed: names of groups that stay.
        config: says which importance, the seed, and the device: scores are taken where the network trains.
        progress: told after every batch.
    """
    prunable = [group for group in groups if group.size > 0 and group.name not in fixed]
    if config.importance in BLIND or not task.train_batches:
        return RANKINGS[config.importance](model, prunable, (), task.loss, progress=progress)
    place = choose_device(model, config.train_device)
    with placed([model], place), seeded(config.seed):
        batches = batches_on(task.train_batches(), place)
        return RANKINGS[config.importance](model, prunable, batches, task.loss, progress=progress)


def score_blocks(
    task: Task,
    model: nn.Module,
    blocks: Sequence[Block],
    original: Sequence[Block],
    rankings: Mapping[str, Ranking],
    *,
    config: PruneConfig,
    progress: Progress,
) -> list[Removable]:
    """The blocks that may go now, with what is lost without them.

    Args:
        task: gives batches and loss.
        model: the whole model, as it is now.
        blocks: that are left, as they stand in it.
        original: all blocks, as they stand in the unpruned network.
        rankings: of the groups that may change; a block that holds another group stays.
        config: says the seed of the batches, and the device.
        progress: told after every batch.
    """
    if not blocks:
        return []
    assert task.train_batches is not None
    assert task.loss is not None
    part = task.deployed(model)
    place = choose_device(model, config.train_device)
    with placed([model], place), seeded(config.seed):
        batches = batches_on(task.train_batches(), place)
        lost = branch_scores(model, blocks, batches, task.loss, part=part, progress=progress)
    own = {block.name: block for block in original}
    return [
        Removable(
            name,
            each,
            own[name].owns,
            own[name].groups,
            own[name].left,
            own[name].changed,
            frozenset({own[name].step, *own[name].steps, *own[name].idle}),
        )
        for name, each in lost.items()
        if all(group in rankings for group in own[name].groups)
    ]


def ask(
    network: Network,
    table: LatencyTable,
    rankings: Mapping[str, Ranking],
    *,
    widths: Mapping[str, int],
    predictor: Predictor | None,
    most_ms: float | None,
    memory: Budgeted | None,
    config: PruneConfig,
    blocks: Sequence[Removable] = (),
    gone: Collection[str] = (),
    left: Sequence[Unit] = (),
) -> Question:
    """What a solver may choose from, and which limits it has to keep.

    Args:
        network: the unpruned one.
        table: says on which steps widths are worth having.
        rankings: of the groups that may change, at their present widths.
        widths: present ones of all groups.
        predictor: of the network by the table; without one there is no latency, and every width is on a step.
        most_ms: of latency, or None; the first budget.
        memory: the budget of memory, or None.
        config: says how narrow groups may get, and by what importance is divided.
        blocks: that may go wholly.
        gone: names of units that went with blocks before; `memory` knows of that by itself.
        left: units that stand in their place.

    Raises:
        ValueError: latency is limited and there is no predictor.
    """
    if most_ms is not None and predictor is None:
        raise ValueError("A limit of latency needs a predictor.")
    units = network.units if predictor is None else predictor.units
    offered = Offered(
        table,
        units,
        network.widths,
        predictor,
        step=_step(config),
        min_width=config.min_width,
        blind_step=Target.of(table.fingerprint).step if table.fingerprint.ahead_of_time else 1,
    )
    latency: Latency | None = None
    if predictor is not None:
        blocks, instead_of = standing_for(blocks, predictor)
        latency = Latency(predictor, gone, left, instead_of)
    budgets = [Budgeted(latency, most_ms)] if latency is not None and most_ms is not None else []
    return Question(
        full=widths,
        options={name: offered.options(name, widths) for name in widths if name in rankings},
        lost={name: ranking.lost for name, ranking in rankings.items()},
        budgets=[*budgets, *([memory] if memory is not None else [])],
        rank=_rank(network, latency, config.normalize),
        blocks=blocks,
    )


def standing_for(
    blocks: Sequence[Removable], predictor: Predictor
) -> tuple[list[Removable], dict[str, tuple[Unit, ...]]]:
    """What would stand in place of what goes with each block, as far as the table knows it, and what goes with which.

    A unit that only loses something counts as before, unless the table has a latency of what it becomes. What one block
    leaves, or leaves changed, goes with another whose branch it lies in.

    Returns:
        The blocks with what they own by this, and for each what stands in its place.
    """
    known = {block.name: [unit for unit in block.changed if predictor.prices(unit)] for block in blocks}
    instead_of = {block.name: (*block.left, *known[block.name]) for block in blocks}
    found = []
    for block in blocks:
        owned = [unit.name for unit in known[block.name]]
        for other, units in instead_of.items():
            if other != block.name:
                owned += [name_left(other, unit) for unit in units if block.steps.issuperset(unit.steps)]
        found.append(replace(block, owns=(*block.owns, *owned)))
    return found, instead_of


def _step(config: PruneConfig) -> int | None:
    """As asked for; else what ranks by something other than latency knows no steps, as published."""
    by_latency = config.normalize == "latency" or not get_solver(config.solver).ranks_by_ratio
    return config.step or (None if by_latency else 1)


def _rank(network: Network, latency: Latency | None, normalize: str) -> Cost:
    """The cost that importance is divided by, where a solver ranks by a ratio; without latencies that is memory."""
    if normalize == "latency" and latency is not None:
        return latency
    if normalize == "flops":
        return Macs(network.units)
    if normalize == "none":
        return Channels(network.widths)
    return ActivationBytes(network.cut.liveness, network.units)
