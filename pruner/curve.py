"""Solve one question at many latency budgets: a tighter one never keeps more, and is never predicted slower."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from profiler.progress import Event, Progress
from pruner.cost import Cost, Floats, Ints, Sum, Term
from pruner.posing import Budgeted, Posed, Question
from pruner.solvers import Problem, Solution, Solver
from pruner.solvers.greedy import Greedy
from pruner.solvers.milp import Milp
from pruner.solvers.problem import proved_gap
from pruner.solving import solve

STAGE = "solve"
LEAST_S = 0.3
"""With less time left for a budget than this the greedy solver answers alone."""
SLACK = 1e-6
"""By which fraction the last budget exceeds the narrowest plan: sums are not taken in one order everywhere."""
PERCENT = 0.01
WORSE = 1e-9
"""A plan that loses more than another by a smaller fraction is as good."""


@dataclass(frozen=True)
class Choice:
    """The best plan for a budget.

    Attributes:
        budget_ms: of latency.
        widths: of all groups.
        blocks: names of the blocks that go.
        ms: the plan's latency, within the budget.
        lost: importance lost.
        bound: importance that every plan within the budget loses at least; None where the solver proved nothing.
        taken_over: whether it is a tighter budget's plan, because what the solver found for this one was worse.
    """

    budget_ms: float
    widths: Mapping[str, int]
    ms: float
    lost: float
    bound: float | None
    taken_over: bool = False
    blocks: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """How much less any plan within the budget could lose, as a fraction of `lost`; None without a proof."""
        return proved_gap(self.lost, self.bound)


@dataclass(frozen=True)
class Plan:
    """Widths and the blocks that go, with what they cost by every budget's cost, the latency first."""

    widths: Mapping[str, int]
    costs: tuple[float, ...]
    lost: float
    blocks: tuple[str, ...] = ()

    @property
    def ms(self) -> float:
        """The latency."""
        return self.costs[0]

    def keeps(self, others: Sequence[Budgeted]) -> bool:
        """Whether it keeps all budgets but the latency's."""
        return all(cost <= budget.most for cost, budget in zip(self.costs[1:], others, strict=True))


class Paced:
    """The exact solver on one clock for a whole curve: what easy budgets leave, the others get."""

    name = Milp.name
    ranks_by_ratio = Milp.ranks_by_ratio

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the time for all budgets together; it runs from the first `begin` on."""
        self.seconds, self.clock = seconds, clock
        self._end: float | None = None
        self._until = clock() + seconds

    def begin(self, budgets_left: int) -> None:
        """Begin with a budget, and share out the time that is left."""
        now = self.clock()
        if self._end is None:
            self._end = now + self.seconds
        self._until = now + max(0.0, self._end - now) / budgets_left

    @property
    def left_s(self) -> float:
        """Seconds that are left for this budget."""
        return max(0.0, self._until - self.clock())

    def solve(self, problem: Problem) -> Solution:
        """Find the options that lose least; once this budget's time is used up, by the greedy solver."""
        left_s = self.left_s
        solver: Solver = Milp(time_limit_s=left_s) if left_s > LEAST_S else Greedy()
        return solver.solve(problem)


class _Remembered:
    """A cost whose terms remember what they cost: every budget asks at the same options."""

    def __init__(self, cost: Cost) -> None:
        self.name, self.unit, self.knows_blocks = cost.name, cost.unit, cost.knows_blocks
        self._cost = cost
        self._terms = [_remembering(term) for term in cost.terms()]

    def at(self, widths: Mapping[str, int]) -> float:
        """The network's cost at these widths."""
        return self._cost.at(widths)

    def terms(self) -> Sequence[Term]:
        """All summands."""
        return self._terms

    def sums(self) -> Sequence[Sum]:
        """Which terms add up."""
        return self._cost.sums()


def _remembering(term: Term) -> Term:
    known: dict[bytes, Floats] = {}

    def price(channels: Ints) -> Floats:
        key = channels.tobytes()
        if key not in known:
            known[key] = term.price(channels)
        return known[key]

    return replace(term, price=price)


def remembered(question: Question) -> Question:
    """The same question, whose costs are worked out once for all its budgets."""
    costs = {id(cost): cost for cost in (question.rank, *(budget.cost for budget in question.budgets))}
    kept = {key: _Remembered(cost) for key, cost in costs.items()}
    budgets = [replace(budget, cost=kept[id(budget.cost)]) for budget in question.budgets]
    return replace(question, budgets=budgets, rank=kept[id(question.rank)])


def spread_budgets(unpruned_ms: float, narrowest_ms: float, points: int) -> list[float]:
    """Budgets from the unpruned latency down to the narrowest plan's, evenly apart.

    They are whole percents of the unpruned latency, unless that many lie closer; the last is the narrowest plan's own.
    Where that plan is not faster, pruning gains nothing, and there is one budget that both keep.

    Args:
        unpruned_ms: latency of the unpruned network.
        narrowest_ms: latency of the narrowest plan.
        points: about how many, at least two.
    """
    least = narrowest_ms / unpruned_ms
    if least >= 1:
        return [narrowest_ms * (1 + SLACK)]
    apart = (1 - least) / (points - 1)
    if apart >= PERCENT:
        apart = round(apart / PERCENT) * PERCENT
    last = least * (1 + SLACK)
    count = math.ceil((1 - last) / apart - SLACK)
    return [*((1 - number * apart) * unpruned_ms for number in range(count)), last * unpruned_ms]


def trace_curve(question: Question, budgets_ms: Sequence[float], solver: Solver, progress: Progress) -> list[Choice]:
    """Solve a question at every budget, and give each the best plan that was found for it or for a tighter one.

    Args:
        question: its first budget is the latency's, whose limit is replaced; the narrowest plan keeps all others.
        budgets_ms: descending; one of the `ends` keeps the last.
        solver: any.
        progress: told after each budget.

    Returns:
        A choice for each budget; along them `lost` never falls and `ms` never rises.
    """
    question = remembered(question)
    latency, *others = question.budgets
    answers: list[tuple[Plan, float | None]] = []
    for number, budget_ms in enumerate(budgets_ms):
        progress(Event(STAGE, number, len(budgets_ms)))
        if isinstance(solver, Paced):
            solver.begin(len(budgets_ms) - number)
        answer = solve(replace(question, budgets=[replace(latency, most=budget_ms), *others]), solver)
        own = _plan(question, answer.widths)
        if answer.blocks:
            own = Plan(answer.widths, answer.costs, answer.lost, answer.blocks)
        answers.append((own, answer.bound))
    progress(Event(STAGE, len(budgets_ms), len(budgets_ms)))
    plans = [*(own for own, _ in answers), _plan(question, question.full), *ends(question)]
    plans = [each for each in plans if each.keeps(others)]
    choices = []
    bound = 0.0
    for budget_ms, (own, proved) in zip(budgets_ms, answers, strict=True):
        # what every plan within a looser budget loses at least, every plan within a tighter one does too
        bound = max(bound, proved or 0.0)
        within = [each for each in plans if each.ms <= budget_ms]
        best = min(within, key=lambda each: (each.lost, each.ms))
        worse = own not in within or own.lost > best.lost * (1 + WORSE)
        choices.append(
            Choice(budget_ms, best.widths, best.ms, best.lost, bound if proved else None, worse, best.blocks)
        )
    return choices


def least_ms(question: Question) -> float:
    """The least latency that the curve reaches: that of the faster of its ends that keep all other budgets.

    Raises:
        ValueError: neither does.
    """
    return min(plan.ms for plan in ends(question) if plan.keeps(question.budgets[1:]))


def ends(question: Question) -> tuple[Plan, ...]:
    """Every group at its least width, and where blocks may go the same without them."""
    narrowest = _plan(question, question.narrowest())
    return (narrowest, _without_blocks(question)) if question.blocks else (narrowest,)


def _plan(question: Question, widths: Mapping[str, int]) -> Plan:
    """What widths cost and lose, all blocks there."""
    return Plan(widths, tuple(budget.cost.at(widths) for budget in question.budgets), lost_at(question, widths))


def _without_blocks(question: Question) -> Plan:
    """Every group at its least width and all blocks gone."""
    posed = Posed(question, question.narrowest())
    choice = np.zeros(len(posed.problem.losses), dtype=np.int64)  # the first option of a block, and of its groups: gone
    widths, blocks = posed.answer(posed.problem.solution(choice, 0))
    tabled = [limit.cost.at(choice) for limit in posed.problem.limits]
    costs = [budget.at(widths, blocks, said) for budget, said in zip(question.budgets, tabled, strict=True)]
    return Plan(widths, tuple(costs), posed.problem.lost(choice), blocks)


def lost_at(question: Question, widths: Mapping[str, int]) -> float:
    """Importance lost at these widths."""
    return float(sum(lost[len(lost) - 1 - widths[name]] for name, lost in question.lost.items()))
