"""`make fidelity`: predicted and measured latencies of whole networks, cell by cell, and `docs/fidelity.md` from them.

A cell is one network on one runtime, in a process of its own. Finished cells are kept in `runs/fidelity`, failed ones
too, and only `--again` measures one anew: an interrupted sweep goes on where it was. When all cells of a runtime are
there, each network is profiled once more into a table with the rows of the others, and it is seen what these rows are
worth to a network of which little is measured yet. Networks by which nothing was chosen are predicted and measured.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fidelity_again import predict_again
from benchmarks.fidelity_figures import judge_ours, judge_twice
from benchmarks.fidelity_networks import NAMES, QUICK, RUNTIMES, UNSEEN
from benchmarks.fidelity_report import write_report
from benchmarks.fidelity_store import (
    ROOT,
    STORE,
    Cell,
    Kind,
    Reuse,
    Transfer,
    path_of,
    read_cell,
    read_setting,
    write_cell,
)
from benchmarks.fidelity_summary import percent

MODULES: dict[Kind, str] = {
    Cell: "benchmarks.fidelity_cell",
    Transfer: "benchmarks.fidelity_transfer",
    Reuse: "benchmarks.fidelity_reuse",
}
REPORT = ROOT / "docs" / "fidelity.md"
LAST_WORDS = 300
"""Characters of a child's standard error that a failure quotes."""


@dataclass(frozen=True)
class Sweep:
    """How cells are measured.

    Attributes:
        store: folder of the cells.
        timeout_s: most seconds that one may take.
        quick: the tiny form.
        seconds: most seconds of profiling, or None for the usual limit.
    """

    store: Path
    timeout_s: float
    quick: bool = False
    seconds: float | None = None

    def missing(
        self, names: Sequence[str], runtimes: Sequence[str], kind: Kind, again: set[str]
    ) -> list[tuple[str, str]]:
        """The cells that are not there, or are wanted anew, runtime by runtime."""
        return [
            (name, runtime)
            for runtime in runtimes
            for name in names
            if name in again or not path_of(self.store, name, runtime, kind).exists()
        ]

    def run(self, todo: Sequence[tuple[str, str]], kind: Kind) -> None:
        """Measure cells one after another; what fails is kept as a failure. Each is told on stderr in a line."""
        for number, (name, runtime) in enumerate(todo, 1):
            start = time.perf_counter()
            self.measure(name, runtime, kind)
            took_s = time.perf_counter() - start
            say(f"[{number}/{len(todo)}] {name} on {runtime}: {self.line(name, runtime, kind)}; {took_s:.0f} s")

    def measure(self, name: str, runtime: str, kind: Kind) -> None:
        """Measure one cell in a child; it leaves the file, or its failure is kept instead."""
        path, setting = path_of(self.store, name, runtime, kind), read_setting()
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", MODULES[kind], name, runtime, "--store", str(self.store.absolute())]
        command += ["--quick"] if self.quick else []
        command += [] if self.seconds is None else ["--seconds", f"{self.seconds:g}"]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            write_cell(path, kind(failure=f"timeout after {self.timeout_s:g} s"), setting)
            return
        if not path.exists():
            write_cell(path, kind(failure=last_words(done.returncode, done.stderr)), setting)

    def line(self, name: str, runtime: str, kind: Kind) -> str:
        """A cell's figures in a line."""
        if kind is Transfer:
            found = read_cell(path_of(self.store, name, runtime, Transfer), Transfer)
            if found is None or found[1].profiled is None:
                return f"failed: {found[1].failure if found else 'nothing was kept'}"
            profiled = found[1].profiled
            return (
                f"with {len(found[1].others)} other networks' rows {profiled.measured} more, {profiled.seconds:.0f} s"
            )
        if kind is Reuse:
            seen = read_cell(path_of(self.store, name, runtime, Reuse), Reuse)
            if seen is None or seen[1].failure:
                return f"failed: {seen[1].failure if seen else 'nothing was kept'}"
            return f"after {seen[1].after[-1]} networks off by {percent(seen[1].beside[-1])} with the others' rows"
        stored = read_cell(path_of(self.store, name, runtime), Cell)
        if stored is None or stored[1].failure or not stored[1].vectors:
            return f"failed: {stored[1].failure if stored else 'nothing was kept'}"
        ours, twice = judge_ours(stored[1].vectors), judge_twice(stored[1].vectors)
        return (
            f"mean error {ours.mae:.1%} (measuring twice {twice.mae:.1%}), p95 {ours.p95:.1%}, bias {ours.bias:+.1%}, "
            f"tau {ours.tau or 0:.3f}, covered {ours.coverage:.0%}"
        )


def last_words(status: int, errors: str) -> str:
    """Why a child ended as it did, as far as one can tell."""
    if status < 0:
        return f"killed by signal {-status}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = max(
        (number for number, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)),
        default=-1,
    )
    return " ".join(lines[last:])[:LAST_WORDS] or f"it ended with status {status} and said nothing"


def say(text: str) -> None:
    """Tell on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def ready_for_transfer(sweep: Sweep, names: Sequence[str], runtime: str) -> bool:
    """Whether every network's cell on a runtime was run."""
    return all(path_of(sweep.store, name, runtime).exists() for name in names)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join((*NAMES, *UNSEEN))}")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="measure these anew, or `all`")
    parser.add_argument("--transfer", action="store_true", help="with the others' tables, though not all are there")
    parser.add_argument(
        "--predict", action="store_true", help="measure nothing, predict stored vectors with the present code"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report")
    parser.add_argument("--seconds", type=float, help="most seconds of profiling (120)")
    parser.add_argument("--timeout", type=float, default=900.0, help="most seconds of a cell in all (900)")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny network and three vectors, to try the sweep itself"
    )
    parser.add_argument("--store", type=Path, default=STORE, help="folder of the cells")
    parser.add_argument("--out", type=Path, default=REPORT, help="the report's file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the report.

    Returns:
        0; 1 where a cell failed, 2 for an unknown name, 130 when stopped.
    """
    options = parse(arguments)
    every, unseen = ([QUICK], []) if options.quick else (list(NAMES), list(UNSEEN))
    unknown = ({*options.only, *options.again} - {"all"}) - {*every, *unseen}
    if unknown:
        say(f"There is no network {sorted(unknown)[0]!r}; there are {', '.join((*every, *unseen))}.")
        return 2
    names = [name for name in (*every, *unseen) if not options.only or name in options.only]
    others_too = [name for name in names if name in every]
    again = set(names) if "all" in options.again else set(options.again)
    sweep = Sweep(options.store, options.timeout, options.quick, options.seconds)
    if options.predict:
        predict_again(names, options.runtimes, options.store, say)
    if not (options.report or options.predict):
        try:
            sweep.run(sweep.missing(names, options.runtimes, Cell, again), Cell)
            ready = [
                runtime
                for runtime in options.runtimes
                if options.transfer or (len(every) > 1 and ready_for_transfer(sweep, every, runtime))
            ]
            sweep.run(sweep.missing(others_too, ready, Transfer, again), Transfer)
            sweep.run(sweep.missing(others_too, ready, Reuse, again), Reuse)
        except KeyboardInterrupt:
            say("Stopped; the same command goes on where it was.")
            return 130
    failed = write_report(every, unseen, options.store, options.out)
    say(str(options.out))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
