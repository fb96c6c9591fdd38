"""Accuracy against measured latency: a panel a network and runtime, a line a method, a mark a cell."""

import importlib.util
import statistics
from pathlib import Path
from typing import Any

from benchmarks.versus_figures import Results
from benchmarks.versus_methods import METHODS, OURS
from benchmarks.versus_networks import NETWORKS
from pruner.atomic import replacing

INCHES = (5.2, 3.8)
MARKS = "osv^D<>PX*h"


def draw_curves(results: Results, path: Path) -> Path | None:
    """Draw and write it; None where matplotlib is not installed or nothing was run.

    Args:
        results: stored cells.
        path: of the file, an SVG.
    """
    pairs = results.pairs()
    if importlib.util.find_spec("matplotlib") is None or not pairs:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(network for network, _ in pairs))
    runtimes = list(dict.fromkeys(runtime for _, runtime in pairs))
    figure = Figure(figsize=(INCHES[0] * len(runtimes) + 2, INCHES[1] * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), len(runtimes), squeeze=False)
    colours = matplotlib.colormaps["tab20"].colors
    named: dict[str, Any] = {}
    for network, runtime in pairs:
        axes = grid[networks.index(network)][runtimes.index(runtime)]
        for number, method in enumerate(METHODS):
            line = _draw_method(axes, results, (network, runtime, method), colours[number], MARKS[number % len(MARKS)])
            if line is not None:
                named.setdefault(METHODS[method].title, line)
        _draw_unpruned(axes, results, network)
        axes.set(title=f"{NETWORKS[network].title}, {runtime}", xlabel="latency over the unpruned", ylabel="accuracy")
        axes.grid(color="0.9", linewidth=0.6)
    for row, network in enumerate(networks):
        for column, runtime in enumerate(runtimes):
            if (network, runtime) not in pairs:
                grid[row][column].set_axis_off()
    figure.legend(list(named.values()), list(named), loc="outside right upper", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "latprune"}), replacing(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    return path


def _draw_method(axes: Any, results: Results, which: tuple[str, str, str], colour: Any, mark: str) -> Any:
    """The means over seeds as a line, with each seed's networks as small marks; the line, or None without any."""
    means = []
    for budget in results.budgets():
        points = results.at(*which, budget)
        if points:
            means.append((statistics.fmean(p.ratio for p in points), statistics.fmean(p.accuracy for p in points)))
            axes.scatter(
                [p.ratio for p in points], [p.accuracy for p in points], s=9, color=colour, marker=mark, alpha=0.5
            )
    if not means:
        return None
    heavy = which[2] == OURS
    (line,) = axes.plot(
        *zip(*sorted(means), strict=True),
        color=colour,
        marker=mark,
        markersize=6 if heavy else 4.5,
        linewidth=2.2 if heavy else 1.0,
        zorder=3 if heavy else 2,
    )
    return line


def _draw_unpruned(axes: Any, results: Results, network: str) -> None:
    """The unpruned network's accuracy, after as much fine-tuning as the others had."""
    known = [base.tuned for (name, _), base in results.bases.items() if name == network and base.tuned is not None]
    if known:
        axes.axhline(statistics.fmean(known), color="0.6", linewidth=0.8, linestyle="--", zorder=1)
