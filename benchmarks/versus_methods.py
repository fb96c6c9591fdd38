"""The methods of the versus sweep, one line each; `METHODS` is the visible list, in the report's order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lut.errors import LatpruneError
from pruner.request import PruneConfig
from pruner.solvers import get_solver

OURS, SCRATCH = "ours", "scratch"


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        title: in the report.
        what: in a sentence.
        solver: of latprune that does the work, or None for a peer that is built in `versus_cell`.
        options: of `PruneConfig`, where latprune does the work.
        core: whether it is in the core form.
        like: the method whose pruned networks it takes, or None for its own.
    """

    title: str
    what: str
    solver: str | None = None
    options: Mapping[str, str | bool] = field(default_factory=dict)
    core: bool = True
    like: str | None = None


METHODS = {
    OURS: Method(
        "ours",
        "`pruner.prune`: Fisher scores, the measured table, widths chosen together, the measured loop",
        solver="milp",
    ),
    "ours_set": Method(
        "ours, scored as sets",
        "ours with `--importance fisher-set`",
        solver="milp",
        options={"importance": "fisher-set"},
        core=False,
    ),
    "ours_blocks": Method(
        "ours, with blocks",
        "ours with `--blocks`: residual blocks may go wholly",
        solver="milp",
        options={"blocks": True},
        core=False,
    ),
    "knapsack": Method(
        "HALP's knapsack",
        "the same scores, table and loop, with the multiple-choice knapsack whose other sides are frozen",
        solver="knapsack",
    ),
    "seed": Method(
        "Group Fisher (memory)",
        "the seed's rule: one channel at a time, Fisher score over the bytes of its activations",
    ),
    "seed_step": Method("Group Fisher, on steps", "the same, each width rounded up to the device's step"),
    "flops": Method(
        "Fisher over FLOPs", "one channel at a time, Fisher score over multiply-adds, priced anew", core=False
    ),
    "flops_step": Method("Fisher over FLOPs, on steps", "the same, each width rounded up to the device's step"),
    "fisher": Method("raw Fisher", "one channel at a time by its Fisher score alone", core=False),
    "uniform": Method(
        "uniform width", "every group keeps the same share of its channels, those of the highest Fisher score"
    ),
    "tp_taylor": Method(
        "Torch-Pruning, Taylor", "its groups, GroupTaylorImportance, a global ratio reached in ten steps"
    ),
    "tp_magnitude": Method("Torch-Pruning, magnitude", "the same with GroupMagnitudeImportance", core=False),
    SCRATCH: Method(
        "from scratch",
        "a network of our final shape from random weights, trained as long as the unpruned one and then fine-tuning",
        core=False,
        like=OURS,
    ),
}
"""By the name that `--methods` and files use."""

PEERS = tuple(name for name, method in METHODS.items() if not name.startswith(OURS) and method.like is None)
"""The methods that ours is to be better than; its own variants and what takes its networks are none."""


def solver_of(name: str) -> str | None:
    """The solver that a method has latprune use; ours falls back to the default, others that lack theirs have none."""
    wanted = METHODS[name].solver
    if wanted is None or has_solver(wanted):
        return wanted
    return PruneConfig().solver if name == OURS else None


def has_solver(name: str) -> bool:
    """Whether this latprune has a solver."""
    try:
        get_solver(name)
    except LatpruneError:
        return False
    return True


def cannot_run(name: str) -> str | None:
    """Why a method cannot run with this latprune, or None."""
    if METHODS[name].solver is not None and solver_of(name) is None:
        return f"this latprune has no solver {METHODS[name].solver!r}"
    return None
