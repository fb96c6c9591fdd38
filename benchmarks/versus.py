"""`make versus`: networks pruned by latprune and by others, at equal measured latency and equal fine-tuning.

A cell is (network, runtime, method, budget, seed); each of its stages runs in a process of its own. What is finished is
kept in `runs/versus`, failures too, and only `--again` makes it anew: an interrupted sweep goes on where it was.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity import say
from benchmarks.versus_data import DEBIAN, DOWNLOADED, DataMissingError, download, has_all
from benchmarks.versus_methods import METHODS, OURS, SCRATCH, cannot_run
from benchmarks.versus_networks import NETWORKS, QUICK, comes_trained
from benchmarks.versus_report import write_report
from benchmarks.versus_store import ROOT, STORE, Base, Key, Places, Plan, Record, Table, Timed, Tuned, read_record
from benchmarks.versus_sweep import SECONDS, Job, Sweep
from benchmarks.versus_task import check_data

RUNTIMES = ("onnxruntime", "openvino")
BUDGETS = (75, 50, 30)
REPORT = ROOT / "docs" / "versus.md"
TRIAL_METHODS = (OURS, "seed_step")
"""The methods of `--quick`."""


def wanted_cells(options: argparse.Namespace) -> list[Key]:
    """The cells that the command line asks for.

    The core form prunes for the first runtime by all of its methods, and for the second by ours alone, so that plans
    can be exchanged; three budgets, two seeds. The full form has all methods on all runtimes, and three seeds. A
    network that comes with its weights is not trained from scratch, as its own training cannot be repeated here.
    """
    names = options.only or (
        [QUICK] if options.quick else [n for n, s in NETWORKS.items() if n != QUICK and (s.core or options.full)]
    )
    budgets = options.budgets or ([50] if options.quick else list(BUDGETS))
    seeds = options.seeds or ([0] if options.quick else list(range(3 if options.full else 2)))
    runtimes = options.runtimes or list(RUNTIMES)
    cells = []
    for name in names:
        for seed in seeds:
            for runtime in runtimes:
                for method in methods_on(runtime, options, first=runtime == runtimes[0]):
                    if method == SCRATCH and comes_trained(name):
                        continue
                    cells += [Key(name, runtime, method, budget, seed) for budget in budgets]
    return cells


def methods_on(runtime: str, options: argparse.Namespace, *, first: bool) -> list[str]:
    """The methods that prune for a runtime."""
    if options.methods:
        return list(options.methods)
    if options.quick:
        return list(TRIAL_METHODS) if first else [OURS]
    if options.full:
        return list(METHODS)
    return [name for name, method in METHODS.items() if method.core] if first else [OURS]


def estimate(sweep: Sweep, cells: Sequence[Key]) -> tuple[Counter[str], float]:
    """How many files of each stage are missing, and about how many seconds they take in all."""
    kinds: dict[str, type[Record]] = {"base": Base, "table": Table, "plan": Plan, "tuned": Tuned, "timed": Timed}
    jobs = [*sweep.bases(cells), *sweep.tables(cells)]
    for key in cells:
        others = sweep.runtimes if key.method == OURS else ()
        planned = [Job("plan", (key,))] if METHODS[key.method].like is None else []
        timed = [Job("timed", (key,), on) for on in dict.fromkeys([key.runtime, *others])]
        jobs += [job for job in [*planned, Job("tuned", (key,)), *timed] if not sweep.path(job).exists()]
    counts, seconds = Counter(job.stage for job in jobs), 0.0
    for job in jobs:
        stored = [read_record(path, kinds[job.stage]) for path in alike(sweep.places, job)]
        told = [found[1].seconds for found in stored if found and found[1].failure is None]
        one = sum(told) / len(told) if told else SECONDS[job.key.network][job.stage]
        seconds += one / (min(sweep.jobs, counts[job.stage]) if job.stage in ("base", "tuned") else 1)
    return counts, seconds


def alike(places: Places, job: Job) -> list[Path]:
    """Files of the same stage of the same network."""
    folder = places.store / job.key.network
    pattern = {"base": "unpruned.s*.json", "table": "table.*.json"}.get(job.stage, f"*/*.{job.stage}*.json")
    return sorted(folder.glob(pattern))


def forget(places: Places, cells: Sequence[Key], again: Sequence[str]) -> None:
    """Remove what is to be made anew: cells by network or method, all of them, "unpruned" networks, "tables"."""
    for key in cells:
        if {"all", key.network, key.method} & set(again):
            for path in places.store.glob(f"{key.network}/{key.runtime}/{key.method}.b{key.budget}.s{key.seed}.*.json"):
                path.unlink()
        if "unpruned" in again:
            base = places.base(key.network, key.seed)
            for path in base.parent.glob(f"{base.stem}.*"):
                path.unlink()
        if "tables" in again:
            places.table(key.network, key.runtime).unlink(missing_ok=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus", description=(__doc__ or "").splitlines()[0])
    names = [name for name in NETWORKS if name != QUICK]
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NETWORK", choices=list(NETWORKS), help=", ".join(names)
    )
    parser.add_argument(
        "--methods", nargs="+", default=[], choices=list(METHODS), metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--runtimes", nargs="+", default=[], choices=RUNTIMES)
    parser.add_argument("--budgets", nargs="+", type=int, default=[], metavar="PERCENT", help="75 50 30")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="0 1, in the full form 0 1 2")
    parser.add_argument("--full", action="store_true", help="more networks, all methods on both runtimes, three seeds")
    parser.add_argument(
        "--again",
        nargs="+",
        default=[],
        metavar="NAME",
        help="make cells anew: networks, methods, `all` (of those asked for), `unpruned`, `tables`",
    )
    parser.add_argument("--plan", action="store_true", help="run nothing, tell what is missing and how long it takes")
    parser.add_argument("--report", action="store_true", help="run nothing, write the report")
    parser.add_argument("--quick", action="store_true", help="a tiny network on digits, to try the sweep itself")
    parser.add_argument("--download", action="store_true", help="have torchvision fetch Fashion-MNIST first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once (the cores)")
    parser.add_argument("--timeout", type=float, default=3600.0, help="most seconds of a stage (3600)")
    parser.add_argument("--store", type=Path, default=STORE, help="folder of the cells")
    parser.add_argument("--out", type=Path, default=REPORT, help="the report's file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing and write the report.

    Returns:
        0; 1 where a cell failed, 2 for pictures that are missing or a name that is not known, 130 when stopped.
    """
    options = parse(arguments)
    known = {"all", "unpruned", "tables", *NETWORKS, *METHODS}
    unknown = sorted(set(options.again) - known)
    if unknown:
        say(f"There is nothing called {unknown[0]!r} to make again; there are {', '.join(sorted(known))}.")
        return 2
    cells = wanted_cells(options)
    for method in dict.fromkeys(key.method for key in cells):
        reason = cannot_run(method)
        if reason:
            say(f"Not run: {method}, for {reason}.")
    cells = [key for key in cells if cannot_run(key.method) is None]
    places = Places(options.store)
    sweep = Sweep(places, options.runtimes or list(RUNTIMES), options.jobs, options.timeout, say)
    if not options.report:
        try:
            if options.download and not (has_all(DEBIAN) or has_all(options.store / DOWNLOADED)):
                download(options.store)
            check_data({key.network for key in cells}, options.store)
        except DataMissingError as error:
            say(str(error))
            return 2
        forget(places, cells, [] if options.plan else options.again)
        counts, seconds = estimate(sweep, cells)
        missing = ", ".join(f"{count} × {stage}" for stage, count in counts.items()) or "nothing"
        say(f"{len(cells)} cells; missing: {missing}.")
        say(f"About {seconds / 60:.0f} minutes with {sweep.jobs} trainings at once.")
        if options.plan:
            return 0
        try:
            sweep.run(cells)
        except KeyboardInterrupt:
            say("Stopped; the same command goes on where it was.")
            return 130
    failed = write_report([QUICK] if options.quick else [n for n in NETWORKS if n != QUICK], options.store, options.out)
    say(str(options.out))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
