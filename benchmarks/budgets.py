"""`make budgets`: is what `prune` promises kept when somebody else measures it? `docs/budgets.md`.

Each network is profiled on each runtime, and pruned to budgets of 75, 50 and 30 % of its own measured latency. Then a
process that has just begun measures the exported network by turns with the unpruned one: their ratio over the budget is
the share of the budget that is used, and 100 % is the most that is allowed. Pairs are named here, before any run.

`python -m benchmarks.budgets` runs what is missing, each pair in a child; `--again`, `--only`, `--report` as elsewhere.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.budgets_task import made_up_task
from benchmarks.fidelity_networks import NAMES
from benchmarks.fidelity_store import ROOT
from benchmarks.settings import Setting, hash_files, setting_here
from lut.errors import BudgetError
from profiler.export import to_onnx, write_onnx
from profiler.network import analyze
from profiler.profile import ProfileConfig, profile
from profiler.worker_client import WorkerClient
from pruner.atomic import write_text
from pruner.deploy import CAREFULLY
from pruner.prune import prune
from pruner.request import PruneConfig

PAIRS = tuple(
    (network, runtime)
    for network in ("mobilenet_v2", "efficientnet_b0", "edsr", "vit", "resnet50")
    for runtime in ("onnxruntime", "openvino")
)
SHARES = (0.75, 0.50, 0.30)
STORE = ROOT / "runs" / "budgets"
REPORT = ROOT / "docs" / "budgets.md"
JUDGES = 3
"""Processes that measure each network; the first is the judge, the others say how far such judgements differ."""


SOURCES = ("lut/**/*.py", "profiler/**/*.py", "pruner/**/*.py", "benchmarks/budgets*.py")
"""The files of this repository that a pair depends on."""


def read_setting() -> Setting:
    """What a pair run now on this machine is run with."""
    return setting_here(hash_files(SOURCES))


@dataclass
class Kept:
    """One budget.

    Attributes:
        share: of the unpruned latency.
        used: measured over the budget, by each of the processes that judged.
        loop: the same as the loop had it, in three processes.
        promised: the same as `prune` had it.
        seconds: that pruning took.
        refused: why there is no plan, or None.
    """

    share: float
    used: list[float] = field(default_factory=list)
    promised: float | None = None
    loop: list[float] = field(default_factory=list)
    seconds: float = 0.0
    refused: str | None = None


@dataclass
class Pair:
    """A network on a runtime."""

    network: str
    runtime: str
    setting: dict[str, Any] = field(default_factory=dict)
    unpruned_ms: float | None = None
    profile_s: float = 0.0
    budgets: list[Kept] = field(default_factory=list)
    failure: str | None = None


def run_pair(name: str, runtime: str, shares: Sequence[float], config: ProfileConfig, store: Path) -> Pair:
    """Profile, prune to each budget, and have each plan judged."""
    pair = Pair(name, runtime, asdict(read_setting()))
    task = made_up_task(name)
    table = store / f"{name}.{runtime}.db"
    for old in store.glob(f"{table.name}*"):
        old.unlink()
    start = time.perf_counter()
    model = task.build()
    report = profile(analyze(model, task.inputs()), table, backend=runtime, config=config)
    pair.profile_s, pair.unpruned_ms = time.perf_counter() - start, report.measured_ms
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        unpruned = Path(folder) / "unpruned.onnx"
        write_onnx(to_onnx(model, task.inputs()), unpruned)
        for share in shares:
            kept = Kept(share)
            pair.budgets.append(kept)
            out = Path(folder) / f"{share:g}"
            start = time.perf_counter()
            try:
                run = prune(task, table, budget_fraction=share, out=out, config=PruneConfig(backend=runtime, epochs=0))
            except BudgetError as error:
                kept.refused = str(error)
                continue
            finally:
                kept.seconds = time.perf_counter() - start
            result = run.result
            kept.loop = [ratio / share for ratio in result["solver"]["rounds"][-1]["measured_of_unpruned"]]
            kept.promised = result["after"]["measured_ms"] / result["budget_ms"]
            kept.used = [judged(out / "model.onnx", unpruned, runtime) / share for _ in range(JUDGES)]
    return pair


def judged(pruned: Path, unpruned: Path, runtime: str) -> float:
    """The ratio of two networks' latencies, measured by turns in a process of its own."""
    with WorkerClient(runtime) as client:
        reply = client.time(pruned, CAREFULLY, reference=unpruned)
    if reply.ratio is None:
        raise RuntimeError(reply.failure or "too few samples were undisturbed")
    return reply.ratio


def path_of(store: Path, name: str, runtime: str) -> Path:
    """Where a pair is kept."""
    return store / f"{name}.{runtime}.json"


def read_pair(path: Path) -> Pair:
    """A stored pair."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return Pair(**{**values, "budgets": [Kept(**each) for each in values["budgets"]]})


def write_report(store: Path, out: Path) -> list[Pair]:
    """Write `docs/budgets.md` from what is stored; gives back the pairs that are there."""
    pairs = [read_pair(path) for name, runtime in PAIRS if (path := path_of(store, name, runtime)).exists()]
    write_text(out, make_report(pairs))
    return pairs


def make_report(pairs: Sequence[Pair]) -> str:
    """The report's text."""
    judged = [kept for pair in pairs for kept in pair.budgets if kept.used]
    refused = [(pair, kept) for pair in pairs for kept in pair.budgets if kept.refused]
    within = sum(kept.used[0] <= 1 for kept in judged)
    well_used = sum(kept.used[0] >= 0.95 for kept in judged)
    apart = [max(kept.used) / min(kept.used) - 1 for kept in judged]
    setting = pairs[0].setting if pairs else {}
    dates = sorted({pair.setting.get("date", "") for pair in pairs})
    lines = [
        "# Budgets",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
        "Weights, inputs and targets are random, nothing is fine-tuned, and all else is as with `latprune prune`. "
        f"The judge is one measurement; {JUDGES - 1} more processes say how far judgements differ.",
        "",
        f"`make budgets`, {' to '.join(dict.fromkeys([dates[0], dates[-1]])) if dates else 'not run'}, "
        f"on {setting.get('processor', 'no machine')}, one thread; {len(pairs)} of {len(PAIRS)} pairs were run.",
        "",
    ]
    if judged:
        lines += [
            f"* Within the budget: **{within} of {len(judged)}** ({within / len(judged):.0%}; goal 95 %).",
            f"* At least 95 % of it used: **{well_used} of {len(judged)}** ({well_used / len(judged):.0%}; goal 80 %).",
            f"* Refused: {len(refused)} (goal: at most 3 of 24)"
            + "".join(f"; {pair.network} on {pair.runtime} at {kept.share:.0%}" for pair, kept in refused)
            + ".",
            f"* {JUDGES} judgements of one network differ by {sorted(apart)[len(apart) // 2]:.1%} (median), "
            f"{max(apart):.1%} at most.",
            "",
        ]
    lines += [
        "| network | runtime | unpruned | budget | used | other judges | as promised | in the loop | seconds |",
        "| --- | --- | --: | --: | --: | --- | --: | --- | --: |",
    ]
    for pair in pairs:
        if pair.failure:
            lines.append(f"| {pair.network} | {pair.runtime} | | | failed: {pair.failure} | | | | |")
        for kept in pair.budgets:
            used = "refused"
            if kept.used:
                mark = "" if 0.95 <= kept.used[0] <= 1 else "**"
                used = f"{mark}{kept.used[0]:.1%}{mark}"
            others = ", ".join(f"{each:.1%}" for each in kept.used[1:])
            promised = "" if kept.promised is None else f"{kept.promised:.1%}"
            lines.append(
                f"| {pair.network} | {pair.runtime} | {pair.unpruned_ms or 0:.3g} ms | {kept.share:.0%} | {used} "
                f"| {others} | {promised} | {', '.join(f'{each:.1%}' for each in kept.loop)} | {kept.seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runtimes", nargs="+", default=[], metavar="RUNTIME")
    parser.add_argument("--again", action="store_true", help="measure these anew")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report")
    parser.add_argument("--pair", nargs=2, metavar=("NAME", "RUNTIME"), help="run one pair here, in no child")
    parser.add_argument("--timeout", type=float, default=1800.0, help="most seconds of a pair (1800)")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--out", type=Path, default=REPORT)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the report.

    Returns:
        0; 1 where a pair failed.
    """
    options = parse(arguments)
    options.store.mkdir(parents=True, exist_ok=True)
    if options.pair:
        name, runtime = options.pair
        done = run_pair(name, runtime, SHARES, ProfileConfig(), options.store)
        write_text(path_of(options.store, name, runtime), json.dumps(asdict(done), indent=1) + "\n")
        return 0
    for name, runtime in PAIRS:
        wanted = (not options.only or name in options.only) and (not options.runtimes or runtime in options.runtimes)
        path = path_of(options.store, name, runtime)
        if options.report or not wanted or (path.exists() and not options.again):
            continue
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.budgets", "--pair", name, runtime, "--store", str(options.store)]
        try:
            child = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=options.timeout, check=False
            )
            why = (child.stderr.strip().splitlines() or [f"it ended with status {child.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            why = f"timeout after {options.timeout:g} s"
        if not path.exists():
            failed = Pair(name, runtime, asdict(read_setting()), failure=why[:300])
            write_text(path, json.dumps(asdict(failed), indent=1) + "\n")
        pair = read_pair(path)
        used = ", ".join(f"{kept.used[0]:.1%}" if kept.used else "refused" for kept in pair.budgets)
        sys.stderr.write(f"{name} on {runtime}: {pair.failure or used}\n")
    pairs = write_report(options.store, options.out)
    sys.stderr.write(f"{options.out}\n")
    return 1 if any(pair.failure for pair in pairs) else 0


if __name__ == "__main__":
    sys.exit(main())
