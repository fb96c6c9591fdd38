"""The tables of `docs/versus.md`; what was not run is empty in all of them."""

import math
import statistics
from collections.abc import Callable, Sequence

from benchmarks.versus_figures import Point, Results, Verdict, speedup, spread, verdicts
from benchmarks.versus_methods import METHODS, OURS, PEERS
from benchmarks.versus_networks import NETWORKS
from benchmarks.versus_store import Base

Pair = tuple[str, str]


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what a row leaves out is empty."""
    texts = [
        list(heads),
        ["---", *["--:"] * (len(heads) - 1)],
        *([*row, *[""] * (len(heads) - len(row))] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in texts)


def with_spread(values: Sequence[float], form: Callable[[float], str] = lambda value: f"{value:.2%}") -> str:
    """Mean ± half of the range, where there are several."""
    found = spread(values)
    if found is None:
        return ""
    return form(found[0]) + (f" ± {100 * found[1]:.2f}" if len(values) > 1 else "")


def unpruned(results: Results, names: Sequence[str], runtimes: Sequence[str]) -> str:
    """What all methods start from."""
    rows = []
    for name in names:
        bases = [base for (network, _), base in sorted(results.bases.items()) if network == name]
        told = [results.tables.get((name, runtime)) for runtime in runtimes]
        rows.append(
            [
                NETWORKS[name].title,
                str(len(bases) or ""),
                f"{bases[0].parameters:,}" if bases else "",
                _training(bases[0]) if bases else "",
                with_spread([base.accuracy for base in bases if base.accuracy is not None]),
                with_spread([base.tuned for base in bases if base.tuned is not None]),
                *(f"{table.unpruned_ms:.3g} ms" if table and table.unpruned_ms else "" for table in told),
            ]
        )
    heads = ["network", "seeds", "parameters", "images × epochs", "accuracy", "trained on as much", *runtimes]
    return grid(heads, rows)


def _training(base: Base) -> str:
    return f"{base.images:,} × {base.epochs}" if base.epochs else "came with its weights"


def accuracies(results: Results, pair: Pair) -> str:
    """Accuracy and measured latency of each method at each budget."""
    budgets = results.budgets()
    rows = []
    for method, what in METHODS.items():
        cells = [what.title]
        for budget in budgets:
            points = results.at(*pair, method, budget)
            latency = statistics.fmean(point.ratio for point in points) if points else 0.0
            cells += [with_spread([point.accuracy for point in points]), f"{latency:.1%}" if points else ""]
        rows.append(cells)
    heads = ["method", *(text for budget in budgets for text in (f"at {budget} %", "latency"))]
    return grid(heads, rows)


def speedups(results: Results, pairs: Sequence[Pair]) -> str:
    """How many times longer each peer takes to be as accurate, as medians with ranges."""
    rows = []
    for method, what in METHODS.items():
        if method == OURS:
            continue
        found = [speedup(results, *pair, method) for pair in pairs]
        every = [value for one in found for value in one.values]
        cells = []
        for one in found:
            outside = f", {one.outside} outside" if one.outside else ""
            if one.values:
                cells.append(f"{one.median:.2f} ({min(one.values):.2f}–{max(one.values):.2f}{outside})")
            else:
                cells.append(f"{one.outside} outside" if one.outside else "")
        rows.append([what.title, f"**{statistics.median(every):.2f}**" if every else "", *cells])
    heads = ["ours over", "median of all", *(f"{NETWORKS[name].title}, {runtime}" for name, runtime in pairs)]
    return grid(heads, rows)


def budgets_met(results: Results) -> str:
    """Of each method: how many networks kept their budgets when measured afresh, and how many used them."""
    rows = []
    for method, what in METHODS.items():
        points = [point for key, point in results.points.items() if key.method == method]
        if not points:
            rows.append([what.title])
            continue
        under = sum(point.ratio <= point.key.budget / 100 for point in points)
        used = sum(point.ratio >= 0.95 * point.key.budget / 100 for point in points)
        off = statistics.fmean(
            abs(point.ratio / point.plan.ratio - 1) for point in points if point.plan.ratio is not None
        )
        rows.append(
            [what.title, str(len(points)), f"{under / len(points):.0%}", f"{used / len(points):.0%}", f"{off:.1%}"]
        )
    heads = ["method", "networks", "at or under the budget", "use at least 95 % of it", "fresh beside the search's own"]
    return grid(heads, rows)


def exchanged(results: Results, runtimes: Sequence[str]) -> str:
    """Our plans on both runtimes: latency where it was planned for, and where it was not."""
    rows = []
    for network in dict.fromkeys(key.network for key in results.points):
        for runtime in runtimes:
            for budget in results.budgets():
                points = results.at(network, runtime, OURS, budget)
                if points:
                    rows.append(_exchange(network, runtime, budget, points, runtimes))
    heads = ["network", "planned for", "budget", *(f"on {runtime}" for runtime in runtimes), "accuracy", "blocks gone"]
    return grid(heads, rows)


def _exchange(network: str, runtime: str, budget: int, points: Sequence[Point], runtimes: Sequence[str]) -> list[str]:
    cells = [NETWORKS[network].title, runtime, f"{budget} %"]
    for other in runtimes:
        measured = [point.on[other] for point in points if other in point.on]
        text = f"{statistics.fmean(measured):.1%}" if measured else ""
        cells.append(f"**{text}**" if text and other == runtime else text)
    blocks = sorted({len(point.plan.blocks) for point in points})
    gone = "–".join(map(str, dict.fromkeys([blocks[0], blocks[-1]])))
    return [*cells, with_spread([point.accuracy for point in points]), gone]


def counted(found: Sequence[Verdict]) -> str:
    """Wins, even ones and losses by peer."""
    rows = []
    for method, what in METHODS.items():
        own = [verdict for verdict in found if verdict.peer == method]
        if method != OURS:
            words = [verdict.word for verdict in own]
            rows.append([what.title, *(str(words.count(word)) if own else "" for word in ("win", "even", "loss"))])
    return grid(["ours beside", "wins", "even", "losses"], rows)


def in_words(verdict: Verdict) -> str:
    """A verdict in a line."""
    times = [value for value in verdict.speedups if not math.isinf(value)]
    never = len(verdict.speedups) - len(times)
    told = [f"{value:.2f}" for value in sorted(times)] + (["never reached"] * never)
    gains = ", ".join(f"{100 * gain:+.2f}" for gain in verdict.gains)
    ours, theirs = verdict.lost
    gone = "" if ours is None or theirs is None else f"; importance given up {ours:.2%} and {theirs:.2%}"
    return (
        f"{NETWORKS[verdict.network].title} on {verdict.runtime}, {METHODS[verdict.peer].title}, {verdict.budget} %: "
        f"speed-up at our accuracy by seed {', '.join(told)}; accuracy at the same budget {gains or 'unknown'} points"
        + gone
    )


def losses(results: Results) -> tuple[list[Verdict], list[str]]:
    """All verdicts, and the losses to peers in words."""
    found = verdicts(results)
    return found, [in_words(verdict) for verdict in found if verdict.word == "loss" and verdict.peer in PEERS]
