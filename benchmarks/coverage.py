"""`make coverage`: every network that torchvision lists, cell by cell, and `docs/coverage.md` from what is stored.

A cell is one network on one side (latprune, Torch-Pruning) in a process of its own. Finished cells are kept in
`runs/coverage`, failed ones too, and only `--again` measures one anew: an interrupted sweep goes on where it was.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.coverage_models import FAMILIES, Row, list_rows
from benchmarks.coverage_records import UNFINISHED, Ours, Peer, judge_ours, judge_peer
from benchmarks.coverage_report import write_report
from benchmarks.coverage_store import ROOT, SIDES, STORE, CellT, make_cell, path_of, read_cell, read_setting, write_cell

MODULES = {"ours": "benchmarks.coverage_cell", "peer": "benchmarks.coverage_peer"}
REPORT = ROOT / "docs" / "coverage.md"

Measure = Callable[[str, str], Ours | Peer]
"""Measures a network, by name, on a side."""


class Children:
    """Measures cells, each in a process of its own, and can stop those that run.

    Attributes:
        threads: of PyTorch in each, for what is timed.
        check_threads: for all that is not.
        timeout_s: seconds that one may take, from its start.
    """

    def __init__(self, *, threads: int, check_threads: int, timeout_s: float) -> None:
        self.threads, self.check_threads, self.timeout_s = threads, check_threads, timeout_s
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def measure(self, name: str, side: str) -> Ours | Peer:
        """Measure one cell; a child that takes too long, or dies, leaves what it had said.

        Raises:
            InterruptedError: `stop` was called.
        """
        threads = ["--threads", str(self.threads), "--check-threads", str(self.check_threads)]
        command = [sys.executable, "-m", MODULES[side], name, *threads]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # a session of its own: Ctrl-C must not end the child before we know of it, and store a failure
        child = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
        self._running.add(child)
        try:
            out, errors = child.communicate(timeout=self.timeout_s)
            stopped = None
        except subprocess.TimeoutExpired:
            child.kill()
            out, errors = child.communicate()
            stopped = f"timeout after {self.timeout_s:g} s"
        finally:
            self._running.discard(child)
        if self._stopped:
            raise InterruptedError("the sweep was stopped")
        reason = stopped or _last_words(child.returncode, errors)
        return read_cell_of_child(out, Ours, reason) if side == "ours" else read_cell_of_child(out, Peer, reason)

    def stop(self) -> None:
        """End all that run; what they measured is not kept."""
        self._stopped = True
        for child in list(self._running):
            child.kill()


def _last_words(status: int, errors: str) -> str:
    """Why a child ended as it did, as far as one can tell."""
    return f"killed by signal {-status}" if status < 0 else (errors.strip().splitlines() or ["no output"])[-1][:160]


def read_cell_of_child(output: str, kind: type[CellT], reason: str) -> CellT:
    """The cell that a child wrote last; libraries may have printed between.

    Args:
        output: all that it wrote.
        kind: of cell.
        reason: stands in the place of what did not end.
    """
    cell = next((found for line in reversed(output.splitlines()) if (found := _read_line(line, kind))), None)
    if cell is None:
        return kind(failure=reason)
    if cell.failure == UNFINISHED:
        cell.failure = reason
    if isinstance(cell, Ours):
        cell.failures = {stage: reason if why == UNFINISHED else why for stage, why in cell.failures.items()}
    elif cell.compare_failure == UNFINISHED:
        cell.compare_failure = reason
    return cell


def _read_line(line: str, kind: type[CellT]) -> CellT | None:
    try:
        values: Any = json.loads(line)
    except json.JSONDecodeError:
        return None
    return make_cell(kind, values) if isinstance(values, dict) and "failure" in values else None


def choose_rows(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows named, or of the families named; without names all but those left out.

    Raises:
        ValueError: a name that no row and no family has.
    """
    if not only:
        return [row for row in rows if row.left_out is None]
    unknown = set(only) - {row.name for row in rows} - {row.builder for row in rows} - set(FAMILIES)
    if unknown:
        raise ValueError(f"torchvision lists no network or family {sorted(unknown)[0]!r}.")
    return [row for row in rows if {row.name, row.builder} & set(only) or (row.family in only and not row.left_out)]


def missing_cells(rows: Iterable[Row], again: set[str], store: Path, sides: Sequence[str]) -> list[tuple[Row, str]]:
    """The cells that are not there, or are wanted anew; both sides of a network one after the other."""
    return [
        (row, side)
        for row in rows
        for side in sides
        if row.name in again or not path_of(store, row.name, side).exists()
    ]


def sweep(todo: Sequence[tuple[Row, str]], store: Path, measure: Measure, *, threads: int, jobs: int) -> None:
    """Measure and store cells, the sides of one network one right after the other, and say on stderr where it stands.

    Args:
        todo: cells, those of one network side by side.
        store: folder.
        measure: what measures one.
        threads: that PyTorch is given, for the record.
        jobs: how many networks are measured at the same time.
    """
    start, done = time.perf_counter(), itertools.count(1)

    def both(cells: Sequence[tuple[Row, str]]) -> None:
        for row, side in cells:
            cell = measure(row.name, side)
            write_cell(store, row.name, read_setting(side, threads=threads, jobs=jobs), cell)
            number, past_s = next(done), time.perf_counter() - start
            left_s = past_s / number * (len(todo) - number)
            sys.stderr.write(
                f"[{number}/{len(todo)}] {row.name}: {_line(cell)}; {past_s:.0f} s, about {left_s / 60:.0f} min left\n"
            )
            sys.stderr.flush()

    pool = ThreadPoolExecutor(jobs)
    try:
        networks = [list(cells) for _, cells in itertools.groupby(todo, key=lambda cell: cell[0])]
        for future in as_completed([pool.submit(both, cells) for cells in networks]):
            future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _line(cell: Ours | Peer) -> str:
    seconds = cell.find_s if isinstance(cell, Ours) else cell.seconds
    found = judge_ours(cell) if isinstance(cell, Ours) else judge_peer(cell)
    who = "latprune" if isinstance(cell, Ours) else "Torch-Pruning"
    return f"{who} {f'{seconds:.2f} s, ' if seconds is not None else ''}{found}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these networks or families only")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="measure these anew, or `all`")
    parser.add_argument("--side", nargs="+", default=list(SIDES), choices=SIDES, help="one side only")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on both sides (1)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at the same time (1)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds a cell may take in all (900)")
    parser.add_argument("--store", type=Path, default=STORE, help="folder of the cells")
    parser.add_argument("--out", type=Path, default=REPORT, help="the report's file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the report.

    Returns:
        0; 1 where a network of ours fails or is wrong, 2 for an unknown name, 130 when stopped.
    """
    options, rows = parse(arguments), list_rows()
    named = [name for name in options.again if name != "all"]
    try:
        chosen = choose_rows(rows, options.only or named)
        again = {row.name for row in (chosen if "all" in options.again else choose_rows(rows, named) if named else ())}
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not options.report:
        todo = missing_cells(chosen, again, options.store, options.side)
        check_threads = max(1, (os.cpu_count() or 1) // options.jobs)
        children = Children(threads=options.threads, check_threads=check_threads, timeout_s=options.timeout)
        try:
            sweep(todo, options.store, children.measure, threads=options.threads, jobs=options.jobs)
        except KeyboardInterrupt:
            children.stop()
            sys.stderr.write("Stopped; the same command goes on where it was.\n")
            return 130
    write_report(rows, options.store, options.out)
    sys.stderr.write(f"{options.out}\n")
    cells = [stored.cell for row in rows if (stored := read_cell(options.store, row.name, Ours))]
    return 0 if all(judge_ours(cell).good for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
