"""Write the pruning of a network down as a solver's problem: solvers see tables over options, and know no network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lut.records import Unit
from pruner.cost import Cost
from pruner.solvers import Limit, Problem, Solution
from pruner.solvers.problem import Floats, Ints, proved_gap
from pruner.tabulate import BLOCK, Options, Tabulator


@dataclass(frozen=True)
class Budgeted:
    """A cost of the network and the most it may be.

    Attributes:
        cost: of the network with all its blocks.
        most: that it may be.
        without: gives the cost of the network without some blocks, by their names; None where its tables say all.
    """

    cost: Cost
    most: float
    without: Callable[[Sequence[str]], Cost] | None = None

    def at(self, widths: Mapping[str, int], blocks: Sequence[str], tabled: float) -> float:
        """The cost at these widths without these blocks; where only tables tell it, what they say."""
        if not blocks:
            return self.cost.at(widths)
        return tabled if self.without is None else self.without(blocks).at(widths)


@dataclass(frozen=True)
class Removable:
    """A residual block that may go wholly.

    Attributes:
        name: of the block.
        lost: importance lost without it.
        owns: names of the units, parameters and tensors that go with it.
        groups: names of the groups that vanish with it.
        left: units that stand in place of those that go.
        changed: units that stand in place of those of the same names, which stay otherwise.
        steps: of the network's trace, that go with it.
    """

    name: str
    lost: float
    owns: tuple[str, ...]
    groups: tuple[str, ...]
    left: tuple[Unit, ...] = ()
    changed: tuple[Unit, ...] = ()
    steps: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Question:
    """What is to be decided.

    Attributes:
        full: present widths of all groups.
        options: for each group that may change the widths that it may have, ascending; the last is the present one.
        lost: for each of these groups the importance lost when its first k choices are gone, `[present width + 1]`.
        budgets: which have to be kept.
        rank: the cost by which solvers that rank by a ratio divide.
        blocks: that may go wholly.
    """

    full: Mapping[str, int]
    options: Mapping[str, Sequence[int]]
    lost: Mapping[str, Floats]
    budgets: Sequence[Budgeted]
    rank: Cost
    blocks: Sequence[Removable] = ()

    def narrowest(self) -> dict[str, int]:
        """Every group at its least width, all blocks there."""
        return {**self.full, **{name: widths[0] for name, widths in self.options.items()}}


@dataclass(frozen=True)
class Answer:
    """What a solver said, in the network's words.

    Attributes:
        widths: of every group; those in a block that goes stay as they are.
        blocks: names of the blocks that go.
        lost: importance lost.
        met: whether all budgets are kept, by the costs themselves.
        bound: importance that is lost at least by any choice among the options, where that was proved of the costs
            themselves; None where they were only approximated.
        approximated: how many terms of the costs were only approximated.
        costs: of each budget, at these widths.
    """

    widths: Mapping[str, int]
    lost: float
    met: bool
    blocks: tuple[str, ...] = ()
    bound: float | None = None
    approximated: int = 0
    costs: tuple[float, ...] = ()

    @property
    def gap(self) -> float | None:
        """How much less another choice could lose, as a fraction of what this one loses; None without a proof."""
        return proved_gap(self.lost, self.bound)


@dataclass
class Posed:
    """A question as a solver's problem, with its tables about given widths."""

    question: Question
    about: Mapping[str, int]
    options: Options = field(init=False)
    problem: Problem = field(init=False)
    approximated: int = field(init=False)

    def __post_init__(self) -> None:
        question = self.question
        self.options = _options(question)
        tabulator = Tabulator(self.options, self.about)
        costs = {id(cost): cost for cost in (question.rank, *(budget.cost for budget in question.budgets))}
        tabled = {key: tabulator.cost(cost) for key, cost in costs.items()}
        self.approximated = tabulator.approximated
        self.problem = Problem(
            losses=tuple(_losses(question, self.options)),
            limits=tuple(Limit(tabled[id(budget.cost)], budget.most) for budget in question.budgets),
            rank=tabled[id(question.rank)],
            blocks=tuple((block, *sorted(inside)) for block, inside in self.options.inside.items()),
        )

    def answer(self, solution: Solution) -> tuple[dict[str, int], tuple[str, ...]]:
        """The widths and the blocks that go."""
        return self.answer_of(solution.choice)

    def answer_of(self, choices: Ints) -> tuple[dict[str, int], tuple[str, ...]]:
        """The same of options."""
        widths, gone = dict(self.question.full), []
        for number, (name, choice) in enumerate(zip(self.options.names, choices, strict=True)):
            if number in self.options.inside:
                gone += [] if choice else [name.removeprefix(BLOCK)]
            elif width := int(self.options.widths[number][choice]):
                widths[name] = width
        return widths, tuple(gone)


def _options(question: Question) -> Options:
    inside_any = {name for block in question.blocks for name in block.groups}
    names = [name for name in question.options if question.options[name]]
    widths: list[Ints] = [
        np.array([*([0] if name in inside_any else []), *question.options[name]], dtype=np.int64) for name in names
    ]
    place = {name: number for number, name in enumerate(names)}
    gone_with: dict[str, tuple[int, ...]] = {}
    inside: dict[int, frozenset[int]] = {}
    for block in question.blocks:
        number = len(names)
        names.append(BLOCK + block.name)
        widths.append(np.array([0, 1], dtype=np.int64))
        inside[number] = frozenset(place[name] for name in block.groups if name in place)
        for name in block.owns:
            gone_with[name] = (*gone_with.get(name, ()), number)
    fixed = {name: width for name, width in question.full.items() if name not in place}
    return Options(tuple(names), tuple(widths), fixed, gone_with, inside)


def _losses(question: Question, options: Options) -> list[Floats]:
    removable = {block.name: block for block in question.blocks}
    found = []
    for number, name in enumerate(options.names):
        if number in options.inside:
            found.append(np.array([removable[name.removeprefix(BLOCK)].lost, 0.0]))
            continue
        lost = question.lost[name]
        widths = options.widths[number]
        # a group that vanishes with its block loses nothing beside what the block does
        found.append(np.where(widths > 0, lost[len(lost) - 1 - widths], 0.0))
    return found
