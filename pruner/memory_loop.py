"""Close the loop between the memory that is told and what a compiler announces: solve, compile, correct, solve again.

What is told from widths alone can be off: a compiler pads widths, splits kernels, lays tensors out in another order.
What is promised is its own figure for the network that is deployed, an ahead-of-time bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lut.errors import BudgetError
from lut.memory import Liveness, MemoryBound
from profiler.progress import Event, Progress
from pruner.posing import Answer, Question

STAGE = "solve and compile"
TRIES = 14
USED = 0.97
"""Of the budget: a plan that uses so much is taken at once."""
TIGHTENED = 0.002
"""By how much more than its error a plan over the budget tightens the next, twice as much each time."""
MOST_TIGHTENED = 0.5


class Compiles(Protocol):
    """What is asked for the compiler's figure."""

    def bound(self, widths: dict[str, int], gone: Sequence[str] = ()) -> MemoryBound:
        """The compiler's figure at these widths, without these blocks."""


@dataclass(frozen=True)
class Turn:
    """One turn of the loop.

    Attributes:
        answer: widths and the importance they lose.
        told: bytes, from the widths alone.
        bound: what the compiler announced.
    """

    answer: Answer
    told: float
    bound: MemoryBound


def solve_compiled(
    attempt: Callable[[float], tuple[Question, Answer]],
    bench: Compiles,
    liveness: Liveness,
    *,
    most: float,
    target: str,
    filling: bool,
    progress: Progress,
    gone: Sequence[str] = (),
) -> Turn:
    """Find widths for which the compiler's figure is within the budget, and that use it.

    Args:
        attempt: asks and solves with a limit of the memory that is told; that is the question's last budget.
        bench: compiles.
        liveness: tells the memory, and what of it is constant.
        most: the budget in bytes, of the compiler's figure.
        target: what is compiled for, in words.
        filling: go on to looser limits while a plan leaves much of the budget unused.
        progress: told after each turn.
        gone: names of blocks that went before.

    Returns:
        The first turn within the budget that also uses it, or else of those within the one that loses least.

    Raises:
        BudgetError: no plan is within the budget; the message says what part is constant.
        BackendError: a network cannot be compiled.
    """
    search = _Search(bench, liveness, most, gone)
    for number in range(TRIES):
        question, answer = attempt(search.aim)
        if not answer.met:
            if search.loosened(question, answer) or search.failed():
                continue
            break
        turn = search.compile(answer)
        if turn is None:
            break
        total = turn.bound.total_bytes
        note = f"told {turn.told / 1e6:.4g} MB, compiled {total / 1e6:.4g} MB, budget {most / 1e6:.4g} MB"
        progress(Event(STAGE, number + 1, TRIES, note))
        if (total <= search.most and (total >= USED * most or not filling)) or not search.aim_anew(turn):
            break
    if not search.held and search.narrowest is None:
        search.loosened(*attempt(search.aim))
    held = search.held
    if not held:
        assert search.narrowest is not None
        raise BudgetError(_refusal(search.narrowest, liveness, most, target))
    progress(Event(STAGE, TRIES, TRIES))
    return min(held, key=lambda turn: turn.answer.lost)


class _Search:
    """The limit that is aimed at, and what was compiled so far."""

    def __init__(self, bench: Compiles, liveness: Liveness, most: float, gone: Sequence[str]) -> None:
        self.bench, self.liveness, self.most, self.gone = bench, liveness, most, tuple(gone)
        self.aim = most
        self.turns: list[Turn] = []
        self.narrowest: Turn | None = None
        self._over = 0

    @property
    def held(self) -> list[Turn]:
        """The turns within the budget."""
        return [turn for turn in self.turns if turn.bound.total_bytes <= self.most]

    def compile(self, answer: Answer) -> Turn | None:
        """Compile an answer; one that came before is not compiled again, and None where it was within the budget."""
        for turn in self.turns:
            if (turn.answer.widths, turn.answer.blocks) == (answer.widths, answer.blocks):
                return None if turn in self.held else turn
        bound = self.bench.bound(dict(answer.widths), (*self.gone, *answer.blocks))
        self.turns.append(Turn(answer, answer.costs[-1], bound))
        return self.turns[-1]

    def aim_anew(self, turn: Turn) -> bool:
        """Move the limit by what was told wrongly; False where nothing is to be won by it."""
        moved = self.most - (turn.bound.total_bytes - turn.told)
        if turn.bound.total_bytes > self.most:
            self._aim_under(min(self.aim, turn.told, moved))
            return True
        looser = moved > self.aim and not self._over  # what was too loose once is not tried again
        self.aim = moved if looser else self.aim
        return looser

    def failed(self) -> bool:
        """Aim at less where the least is told to be within the limit: then it is the solver that found nothing."""
        narrowest = self.narrowest
        if narrowest is None or narrowest not in self.held or narrowest.told > self.aim:
            return False
        self._aim_under(self.aim)
        return True

    def _aim_under(self, limit: float) -> None:
        self.aim, self._over = limit * (1 - min(MOST_TIGHTENED, TIGHTENED * 2**self._over)), self._over + 1

    def loosened(self, question: Question, closest: Answer) -> bool:
        """Compile the least where no plan is told to be within the limit; whether the limit can be looser by it."""
        if self.narrowest is not None:
            return False
        self.narrowest = _narrowest(question, closest, self.bench, self.liveness, self.gone)
        self.turns.append(self.narrowest)
        if self.narrowest not in self.held:
            return False
        return self.aim_anew(self.narrowest)


def _narrowest(question: Question, closest: Answer, bench: Compiles, liveness: Liveness, gone: Sequence[str]) -> Turn:
    """The least that was compiled: every group at its least width, or where blocks may go what came closest."""
    widths = question.narrowest()
    lost = sum(float(question.lost[name][len(question.lost[name]) - 1 - widths[name]]) for name in question.options)
    told = float(liveness.at(widths).total_bytes)
    found = Turn(Answer(widths, lost, met=True), told, bench.bound(widths, gone))
    if not closest.blocks:
        return found
    other = Turn(closest, closest.costs[-1], bench.bound(dict(closest.widths), (*gone, *closest.blocks)))
    return min(found, other, key=lambda turn: turn.bound.total_bytes)


def _refusal(least: Turn, liveness: Liveness, most: float, target: str) -> str:
    bound, rules = least.bound, liveness.rules
    weights = sum(tensor.bytes_each for tensor in liveness.weights if not tensor.coordinates) * rules.weights_share
    tensors = bound.activation_bytes - bound.workspace_bytes
    return (
        f"The memory budget of {most / 1e6:.4g} MB cannot be met: the least that any plan reaches, with every group at "
        f"its least width, is {bound.total_bytes / 1e6:.4g} MB by the ahead-of-time bound of {target}.\n"
        f"Of that, {bound.workspace_bytes / 1e6:.4g} MB are the compiler's workspace, which no plan changes; "
        f"{bound.weights_bytes / 1e6:.4g} MB weights ({weights / 1e6:.4g} MB in layers that no group reaches) and "
        f"{tensors / 1e6:.4g} MB activations at these widths. Allow more, or let groups get narrower "
        "(--min-width, --step, --freeze)."
    )
