"""Write the pruning of a network down as a solver's problem, and price what comes back by the table itself.

Solvers see tables over options. What these leave out (a join of many tensors is only approximated about given widths,
a compiler's layout has gaps) shows when the widths found are priced: then the tables are written again about these
widths, and a limit that was exceeded is tightened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lut.records import Unit
from pruner.beyond import with_what_is_beyond
from pruner.cost import Cost
from pruner.solvers import Limit, Problem, Solution, Solver
from pruner.solvers.problem import Floats, Ints, TabledCost, proved_gap, within
from pruner.tabulate import BLOCK, Options, Tabulator

ROUNDS = 8
"""How often a problem is posed anew, at most."""
AGREES = 0.002
"""A table that says a cost to this fraction is as good as the cost itself."""
TIGHTENED = 1.001
MORE = 4
"""How often what the tables lack is told about a plan, at most."""
USED = 0.99
"""Of a budget: where a plan uses so much, what the tables do not know is not looked into any further."""


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


def solve(question: Question, solver: Solver) -> Answer:
    """Solve, price what was found by the costs themselves, and pose the question anew until both agree.

    Returns:
        The answer that loses least among those within all budgets; where none is, the one that was closest.
    """
    search = _Search(question, solver)
    search.ask_for_less()
    search.look_beyond()
    return search.best


class _Search:
    """What a solver answered so far."""

    def __init__(self, question: Question, solver: Solver) -> None:
        self.question, self.solver = question, solver
        self.answers: list[tuple[Answer, Ints]] = []
        self.bound: float | None = None

    @property
    def best(self) -> Answer:
        """The answer that loses least, or is closest."""
        budgets = self.question.budgets
        found = (answer for answer, _ in self.answers)
        return min(found, key=lambda one: (not one.met, one.lost if one.met else _over(one, budgets)))

    def ask_for_less(self) -> None:
        """Pose the question about what was found, and tighten what was exceeded, until it is kept."""
        about: Mapping[str, int] = self.question.full
        most = [budget.most for budget in self.question.budgets]
        for _ in range(ROUNDS):
            posed = Posed(self.question, about)
            answer, possible, agreed = self._turn(posed, [limit.cost for limit in posed.problem.limits], most)
            if (answer.met and (agreed or not posed.approximated)) or not possible:
                break
            about = answer.widths
            if agreed or not posed.approximated:  # tables about these widths would say the same again
                most = _tightened(most, answer, self.question.budgets)

    def look_beyond(self) -> None:
        """Where tables left much of a budget unused, tell what they lack about the plan found, and go on from there."""
        budgets = self.question.budgets
        most = [budget.most for budget in budgets]
        for _ in range(MORE):
            answer, choice = self.answers[-1]
            used = any(cost >= USED * budget.most for cost, budget in zip(answer.costs, budgets, strict=True))
            if (answer.met and used) or answer.blocks or answer.approximated:
                break
            posed = Posed(self.question, answer.widths)
            tabled = [limit.cost for limit in posed.problem.limits]
            told = [_beyond(posed, said, budget, choice) for said, budget in zip(tabled, budgets, strict=True)]
            if all(one is other for one, other in zip(told, tabled, strict=True)):
                break
            again = {tuple(one.widths.items()) for one, _ in self.answers}
            found, possible, _ = self._turn(posed, told, most)
            if not possible or tuple(found.widths.items()) in again:
                break
            most = _tightened(most, found, budgets)

    def _turn(self, posed: Posed, costs: Sequence[TabledCost], most: Sequence[float]) -> tuple[Answer, bool, bool]:
        """Solve once: the answer, whether the solver keeps the limits, and whether tables and costs agree."""
        budgets = self.question.budgets
        problem = within([Limit(cost, aim) for cost, aim in zip(costs, most, strict=True)], posed.problem)
        solution = self.solver.solve(problem)
        if not self.answers and _never_too_dear(posed):
            self.bound = solution.bound
        widths, blocks = posed.answer(solution)
        tabled = [cost.at(solution.choice) for cost in costs]
        priced = [budget.at(widths, blocks, said) for budget, said in zip(budgets, tabled, strict=True)]
        met = all(cost <= budget.most for cost, budget in zip(priced, budgets, strict=True))
        answer = Answer(widths, solution.lost, met, blocks, self.bound, posed.approximated, tuple(priced))
        self.answers.append((answer, solution.choice))
        agreed = all(abs(cost - said) <= AGREES * cost for cost, said in zip(priced, tabled, strict=True))
        return answer, solution.met, agreed


def _tightened(most: Sequence[float], answer: Answer, budgets: Sequence[Budgeted]) -> list[float]:
    """Limits lower by what an answer exceeds its budgets by."""
    return [
        aim - TIGHTENED * max(0.0, cost - budget.most)
        for aim, cost, budget in zip(most, answer.costs, budgets, strict=True)
    ]


def _beyond(posed: Posed, tabled: TabledCost, budget: Budgeted, choice: Ints) -> TabledCost:
    """A cost's tables with what the cost itself counts beyond them about a plan in which all blocks are there."""
    widths, _ = posed.answer_of(choice)
    here = budget.cost.at(widths)
    if abs(here - tabled.at(choice)) <= AGREES * here:
        return tabled

    def at(group: int, option: int) -> float | None:
        width = int(posed.options.widths[group][option])
        if group in posed.options.inside or not width:
            return None
        return budget.cost.at({**widths, posed.options.names[group]: width})

    return with_what_is_beyond(tabled, choice, at, here)


def _never_too_dear(posed: Posed) -> bool:
    """Whether the tables say no more than the costs do, so that what is proved of them holds.

    What is approximated may be off to either side; costs that do not know blocks count what is theirs as if it stayed.
    """
    return not posed.approximated and (
        not posed.question.blocks or all(budget.cost.knows_blocks for budget in posed.question.budgets)
    )


def _over(answer: Answer, budgets: Sequence[Budgeted]) -> float:
    return max(cost / budget.most for cost, budget in zip(answer.costs, budgets, strict=True))


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
