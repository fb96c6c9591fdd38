"""Close the loop between prediction and measurement: solve, measure the network at those widths, correct, solve again.

What is promised is the measured latency. The network that is measured is the exported graph with its weights sliced,
timed by turns with the unpruned one, so that their ratio does not depend on the machine's drift; its units' times go
into the table that the next turn solves with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lut import Predictor
from lut.errors import BudgetError
from profiler.progress import Event, Progress
from pruner.bench import Bench
from pruner.cost import Latency
from pruner.posing import Answer, Question
from pruner.solvers import Solver
from pruner.solving import solve

STAGE = "solve and measure"
AIM = 0.973
"""Of the budget: two processes measure one network one or two percent apart, and what was taken tends to be lucky."""
WITHIN = (0.961, 0.984)
"""Of the budget: a trial that was measured in here is taken, once other processes have confirmed it."""
TRIES = 16
CONFIRMED_BY = 2
"""Processes that confirm a trial: each starts the runtime anew."""
CONFIRMATIONS = 6
"""Trials that are tried so, at most."""
TAKEN_OFF = 0.6
"""Which power of a trial's error corrects the next aim."""
LEAST_CHANGE = 0.75
OVERSHOOT = 0.01
"""By how much more a trial over the aim tightens the next."""

WAYS_OUT = "Allow more, or let more go: a smaller --step or --min-width, less under --freeze, whole --blocks."


@dataclass(frozen=True)
class Trial:
    """One turn of the loop.

    Attributes:
        answer: widths and the importance they lose.
        predicted: latency over the unpruned network's, by the table before this trial.
        ratios: the same, measured by turns, each in a process of its own.
    """

    answer: Answer
    predicted: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The geometric mean of what was measured."""
        return math.exp(sum(math.log(ratio) for ratio in self.ratios) / len(self.ratios))

    def used(self, share: float) -> float:
        """Measured latency over the budget, which is `share` of the unpruned latency."""
        return self.ratio / share


def solve_measured(
    solver: Solver,
    bench: Bench,
    pose: Callable[[Predictor, float], Question],
    *,
    budget_ms: float,
    unpruned_ms: float,
    progress: Progress,
    gone: Sequence[str] = (),
) -> Trial:
    """Find widths whose *measured* latency is within the budget, and that use it.

    Args:
        solver: any.
        bench: measures the network at given widths and learns from it.
        pose: asks the question, given a predictor and a latency limit in the table's scale, which is its first budget.
        budget_ms: of one inference.
        unpruned_ms: the unpruned network's latency as measured now, the scale of the budget.
        progress: told after each turn.
        gone: names of blocks that went before.

    Returns:
        A trial within the budget that was measured in three processes: the first that also uses it, or else of all
        trials the one that loses least importance.

    Raises:
        BudgetError: no plan reaches the budget; the message says what the least is.
    """
    share = budget_ms / unpruned_ms
    aimed = AIM * share
    trials: list[Trial] = []
    question: Question | None = None
    confirmed = 0
    for turn in range(TRIES):
        predictor = bench.predictor
        assert predictor is not None
        full = bench.unpruned_ms()
        question = pose(predictor, aimed * full)
        answer = solve(question, solver)
        again = any((trial.answer.widths, trial.answer.blocks) == (answer.widths, answer.blocks) for trial in trials)
        if not answer.met and (again or any(trial.used(share) <= WITHIN[1] for trial in trials)):
            break
        predicted = answer.costs[0] / full
        if again:
            if trials[-1].used(share) <= WITHIN[1]:
                break
            aimed = min(aimed, predicted) * (1 - OVERSHOOT)
            continue
        without = (*gone, *answer.blocks)
        trial = Trial(answer, predicted, (bench.ratio_at(answer.widths, without),))
        note = f"predicted {predicted:.1%} of the unpruned latency, measured {trial.ratio:.1%}, budget {share:.1%}"
        progress(Event(STAGE, turn + 1, TRIES, note))
        if _within(trial, share) and confirmed < CONFIRMATIONS:
            trial = _confirmed(bench, trial, without)
            confirmed += 1
            anew = " and ".join(f"{ratio:.1%}" for ratio in trial.ratios[1:])
            progress(Event(STAGE, turn + 1, TRIES, f"in other processes {anew}"))
        trials.append(trial)
        if len(trial.ratios) > 1 and _within(trial, share):
            progress(Event(STAGE, TRIES, TRIES))
            return trial
        aimed = _next_aim(aimed, trial.ratio, AIM * share)
        if trial.used(share) > WITHIN[1]:
            aimed = min(aimed, predicted * (1 - OVERSHOOT))
    found = _best_confirmed(bench, trials, share, gone)
    if found is None:
        assert question is not None
        least = min([bench.ratio_at(question.narrowest(), gone), *(trial.ratio for trial in trials)])
        raise BudgetError(_refusal(question, least, budget_ms, unpruned_ms))
    progress(Event(STAGE, TRIES, TRIES))
    return found


def refuse_impossible(
    solver: Solver,
    bench: Bench,
    pose: Callable[[Predictor, float], Question],
    *,
    budget_ms: float,
    unpruned_ms: float,
    gone: Sequence[str] = (),
) -> None:
    """Make sure that a budget can be reached at all; nothing is measured where the table says that it can.

    Args:
        solver: any.
        bench: measures what is least.
        pose: as of `solve_measured`.
        budget_ms: the same.
        unpruned_ms: the same.
        gone: the same.

    Raises:
        BudgetError: it cannot; the message says what the least is.
    """
    assert bench.predictor is not None
    question = pose(bench.predictor, budget_ms / unpruned_ms * bench.unpruned_ms())
    answer = solve(question, solver)
    if answer.met:
        return
    closest = bench.ratio_at(answer.widths, (*gone, *answer.blocks))
    if closest * unpruned_ms > budget_ms:
        least = min(closest, bench.ratio_at(question.narrowest(), gone))
        if least * unpruned_ms > budget_ms:
            raise BudgetError(_refusal(question, least, budget_ms, unpruned_ms))


def _confirmed(bench: Bench, trial: Trial, without: Sequence[str]) -> Trial:
    """The trial with what other processes measure of it."""
    anew = [bench.ratio_anew(trial.answer.widths, without) for _ in range(CONFIRMED_BY)]
    return replace(trial, ratios=(*trial.ratios, *anew))


def _within(trial: Trial, share: float) -> bool:
    return WITHIN[0] <= trial.used(share) <= WITHIN[1]


def _best_confirmed(bench: Bench, trials: Sequence[Trial], share: float, gone: Sequence[str]) -> Trial | None:
    """Of the trials within the budget the one that loses least and stays within when another process measures it."""
    for trial in sorted(trials, key=lambda trial: (trial.answer.lost, trial.ratio)):
        if trial.used(share) > WITHIN[1]:
            continue
        checked = trial
        if len(trial.ratios) == 1:
            checked = _confirmed(bench, trial, (*gone, *trial.answer.blocks))
        if checked.used(share) <= WITHIN[1]:
            return checked
    return None


def _next_aim(aimed: float, ratio: float, aim: float) -> float:
    """Where to aim the next prediction so that the measurement comes out just under the aim.

    The table has learned from the last trial, so that only a part of its error is to be expected again; but solvers
    like plans that are predicted too fast, so that aiming at the same figure again would end over it for long.
    """
    change = math.pow(aim / ratio, TAKEN_OFF)
    if ratio > aim:
        return aimed * max(change, LEAST_CHANGE) * (1 - OVERSHOOT)
    return aimed * min(change, 1 / LEAST_CHANGE)


def _refusal(question: Question, least: float, budget_ms: float, unpruned_ms: float) -> str:
    """Say what the least is that any plan reaches: another budget's, or the ratio that was measured."""
    narrowest = question.narrowest()
    for budget in question.budgets:
        cost = budget.cost
        if not isinstance(cost, Latency) and cost.at(narrowest) > budget.most:
            return (
                f"The budget of {budget.most:.4g} {cost.unit} ({cost.name}) cannot be met: "
                f"the least that any plan reaches is {cost.at(narrowest):.4g} {cost.unit}. {WAYS_OUT}"
            )
    return (
        f"The budget of {budget_ms:.4g} ms cannot be met: the least that was measured, with every group at its least "
        f"width, is {least * unpruned_ms:.4g} ms ({least:.0%} of the unpruned network's {unpruned_ms:.4g} ms). "
        f"{WAYS_OUT}"
    )
