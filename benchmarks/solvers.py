"""`make solvers`: what each solver loses on real tables, in what time, and what is proved: `docs/solvers.md`.

Tables are those that `make fidelity` left in `runs/fidelity`; importances are made up (log-normal among channels and
among groups, seeded), since only the solvers are compared. Nothing is measured but the time that solving takes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fidelity_networks import NAMES, RUNTIMES, make_network
from benchmarks.fidelity_store import ROOT, STORE, read_setting, table_of
from benchmarks.fidelity_vectors import made_up_importances
from lut import Predictor, open_table
from profiler.network import Network, analyze
from pruner.atomic import write_text
from pruner.cost import Latency
from pruner.importance.ranking import rank_singly
from pruner.options import Offered
from pruner.posing import Budgeted, Question
from pruner.solvers import SOLVERS
from pruner.solving import solve

SHARES = (0.75, 0.50, 0.30)
REPORT = ROOT / "docs" / "solvers.md"


@dataclass(frozen=True)
class Solved:
    """One solver on one budget.

    Attributes:
        lost: importance.
        met: whether the budget is kept, by the table itself.
        seconds: on one core.
        gap: proved, or None.
        approximated: terms of the cost that no table holds exactly.
    """

    lost: float
    met: bool
    seconds: float
    gap: float | None
    approximated: int


@dataclass(frozen=True)
class Row:
    """All solvers on one budget of one network and runtime."""

    network: str
    runtime: str
    share: float
    groups: int
    options: int
    solved: dict[str, Solved]


def run(name: str, network: Network, runtime: str, store: Path) -> list[Row]:
    """Solve at each budget with each solver."""
    table = open_table(table_of(store, name, runtime))
    predictor = Predictor(network.units, table, network=network.hash)
    full = network.widths
    offered = Offered(table, network.units, full, predictor)
    options = {group: offered.options(group, full) for group in full}
    importances = made_up_importances(full, np.random.default_rng(1))
    lost = {group: rank_singly(scores).lost for group, scores in importances.items()}
    cost = Latency(predictor)
    rows = []
    for share in SHARES:
        question = Question(full, options, lost, [Budgeted(cost, share * cost.at(full))], cost)
        solved = {}
        for solver in SOLVERS:
            start = time.perf_counter()
            found = solve(question, solver)
            seconds = time.perf_counter() - start
            solved[solver.name] = Solved(found.lost, found.met, seconds, found.gap, found.approximated)
        rows.append(Row(name, runtime, share, len(full), sum(map(len, options.values())), solved))
    return rows


def make_report(rows: Sequence[Row]) -> str:
    """The report's text."""
    setting = read_setting()
    names = [solver.name for solver in SOLVERS]
    lines = [
        "# Solvers",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "*lost* is importance lost over what `milp` loses, *gap* is how much less any choice could lose, proved by "
        "`milp`; where terms of the latency are *approximated* (joins of many tensors) nothing is proved of it.",
        "",
        "Budgets of memory are in docs/memory_budgets.md, with their gaps: their programs are too large for a "
        "relaxation in time, and prices on the limits give the proof (`pruner/solvers/dual.py`).",
        "",
        f"`make solvers`, {setting.date}, on {setting.processor}, one core.",
        "",
        "| network | runtime | groups | widths | budget | "
        + " | ".join(f"{name}: lost | s" for name in names)
        + " | gap | approximated |",
        "| --- | --- | --: | --: | --: |" + " --: | --: |" * len(names) + " --: | --: |",
    ]
    for row in rows:
        best = row.solved["milp"]
        cells = []
        for name in names:
            own = row.solved[name]
            said = f"{own.lost / best.lost:.3f}" if best.lost and own.met else ("1" if own.met else "not met")
            cells += [f"{own.lost:.4g}" if name == "milp" else said, f"{own.seconds:.1f}"]
        gap = "" if best.gap is None else f"{best.gap:.2%}"
        lines.append(
            f"| {row.network} | {row.runtime} | {row.groups} | {row.options} | {row.share:.0%} | "
            + " | ".join(cells)
            + f" | {gap} | {best.approximated or ''} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Solve and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(NAMES), metavar="NAME", choices=NAMES)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--store", type=Path, default=STORE, help="folder of the tables")
    parser.add_argument("--out", type=Path, default=REPORT, help="the report's file")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in options.only:
        here = [runtime for runtime in options.runtimes if table_of(options.store, name, runtime).exists()]
        if not here:
            sys.stderr.write(f"{name}: no table; `make fidelity` makes them\n")
            continue
        model, picture = make_network(name)
        network = analyze(model, (picture,))
        for runtime in here:
            rows += run(name, network, runtime, options.store)
            said = ", ".join(f"{own}: {each.seconds:.1f} s" for own, each in rows[-1].solved.items())
            sys.stderr.write(f"{name} on {runtime}: {said}\n")
    write_text(options.out, make_report(rows))
    sys.stderr.write(f"{options.out}\n")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
