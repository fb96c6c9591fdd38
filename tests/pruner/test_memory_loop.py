"""The loop of memory meets its budget whatever a compiler says beside what is told: compilers here are simulations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from lut import BudgetError
from lut.memory import Liveness, MemoryBound, MemoryRules, TensorBytes
from lut.records import Coordinate
from profiler.progress import silent
from pruner.cost import Channels, Memory
from pruner.memory_loop import Turn, solve_compiled
from pruner.posing import Answer, Budgeted, Question
from pruner.solvers import get_solver
from pruner.solving import solve

FULL = {"a": 64, "b": 128}
WORKSPACE = 8_000
A, B = Coordinate((("a", 1),)), Coordinate((("b", 1),))
NETWORK = Liveness(
    weights=(TensorBytes("w", 9, (A, B)), TensorBytes("fixed", 5_000, ())),
    activations=(TensorBytes("x", 256, (A,), 0, 1), TensorBytes("y", 256, (B,), 1, 2)),
    steps=3,
    rules=MemoryRules(workspace_bytes=WORKSPACE),
)


class Simulated:
    """A compiler that says something else than what is told, by a rule of its own."""

    def __init__(self, says: Callable[[int, Mapping[str, int]], float]) -> None:
        self.says = says
        self.asked: list[dict[str, int]] = []

    def bound(self, widths: dict[str, int], gone: Sequence[str] = ()) -> MemoryBound:
        self.asked.append(widths)
        said = NETWORK.at(widths)
        activations = round(self.says(said.peak_activation_bytes, widths))
        return MemoryBound(said.weights_bytes, WORKSPACE + activations, WORKSPACE, 0)


def attempt(aim: float) -> tuple[Question, Answer]:
    question = Question(
        full=FULL,
        options={name: tuple(range(4, size + 1, 4)) for name, size in FULL.items()},
        lost={name: np.linspace(0.0, 1.0, size + 1) ** 2 for name, size in FULL.items()},
        budgets=[Budgeted(Memory(NETWORK), aim)],
        rank=Channels(FULL),
    )
    return question, solve(question, get_solver("milp"))


def run(compiler: Simulated, share: float, *, filling: bool = True) -> tuple[Turn, float]:
    most = share * compiler.bound(FULL).total_bytes
    compiler.asked.clear()
    turn = solve_compiled(
        attempt, compiler, NETWORK, most=most, target="a simulation", filling=filling, progress=silent
    )
    return turn, most


@pytest.mark.parametrize("share", [0.9, 0.75, 0.6, 0.5])
@pytest.mark.parametrize(
    "says",
    [
        lambda told, widths: told,
        lambda told, widths: 1.3 * told,
        lambda told, widths: 0.7 * told,
        lambda told, widths: told + 6_000 * (widths["a"] % 8 != 0),
        lambda told, widths: told * (1.0 + 0.4 * (widths["b"] > 64)),
        lambda told, widths: told + 97 * (7 * widths["a"] + 11 * widths["b"]) % 5_000,
    ],
    ids=["agrees", "more", "less", "pads", "jumps", "erratic"],
)
def test_what_comes_out_is_within_the_budget_by_the_compilers_own_figure(
    says: Callable[[int, Mapping[str, int]], float], share: float
) -> None:
    compiler = Simulated(says)
    turn, most = run(compiler, share)
    assert turn.bound.total_bytes <= most
    assert turn.bound == compiler.bound(dict(turn.answer.widths))


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_a_compiler_that_errs_alike_everywhere_leaves_little_of_the_budget_unused(factor: float) -> None:
    turn, most = run(Simulated(lambda told, widths: factor * told), 0.6)
    assert turn.bound.total_bytes >= 0.95 * most


def test_one_network_is_not_compiled_twice() -> None:
    compiler = Simulated(lambda told, widths: 1.3 * told)
    run(compiler, 0.6)
    assert len(compiler.asked) == len({tuple(widths.items()) for widths in compiler.asked})


def test_a_budget_below_the_constant_part_is_refused_and_the_part_named() -> None:
    compiler = Simulated(lambda told, widths: told)
    with pytest.raises(
        BudgetError, match=r"ahead-of-time bound of a simulation.*\n.*0.008 MB .*workspace.*0.005 MB in"
    ):
        run(compiler, 0.1)


def test_a_budget_that_is_told_to_be_impossible_is_met_where_the_compiler_needs_less() -> None:
    compiler = Simulated(lambda told, widths: 0.0)
    least = NETWORK.at({"a": 4, "b": 4}).total_bytes
    assert not attempt(least - 100.0)[1].met
    turn = solve_compiled(
        attempt, compiler, NETWORK, most=least - 100.0, target="a simulation", filling=True, progress=silent
    )
    assert turn.bound.total_bytes <= least - 100


def test_a_solver_that_finds_nothing_at_one_limit_is_asked_for_less() -> None:
    compiler = Simulated(lambda told, widths: told)
    most = 0.6 * compiler.bound(FULL).total_bytes

    def failing(aim: float) -> tuple[Question, Answer]:
        question, answer = attempt(aim)
        return question, replace(answer, met=answer.met and aim < 0.98 * most)

    turn = solve_compiled(failing, compiler, NETWORK, most=most, target="a simulation", filling=True, progress=silent)
    assert 0.9 * most <= turn.bound.total_bytes <= most
