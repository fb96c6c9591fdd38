"""Solve a question, price what comes back by the costs themselves, and pose it anew until both agree.

What tables leave out (a join of many tensors is only approximated about given widths, a compiler's layout has gaps)
shows when the widths found are priced: then the tables are written again about these widths, and a limit that was
exceeded is tightened.
"""

from collections.abc import Mapping, Sequence

from pruner.beyond import with_what_is_beyond
from pruner.posing import Answer, Budgeted, Posed, Question
from pruner.solvers import Limit, Solver
from pruner.solvers.problem import Ints, TabledCost, within

ROUNDS = 8
"""How often a problem is posed anew, at most."""
AGREES = 0.002
"""A table that says a cost to this fraction is as good as the cost itself."""
TIGHTENED = 1.001
MORE = 4
"""How often what the tables lack is told about a plan, at most."""
USED = 0.99
"""Of a budget: where a plan uses so much, what the tables do not know is not looked into any further."""


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
