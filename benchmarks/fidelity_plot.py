"""The fidelity sweep as a picture: predicted over measured latency of each held-out network, a panel a runtime."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.fidelity_figures import truths
from benchmarks.fidelity_store import Vector
from pruner.atomic import replacing

INCHES = (6.5, 4.0)
WITHIN = (0.85, 1.15)
"""Of the ratio's axis; what lies outside is drawn at the border."""


def draw_scatter(cells: Mapping[tuple[str, str], Sequence[Vector]], path: Path) -> Path | None:
    """Draw and write it; None where matplotlib is not installed.

    Args:
        cells: measured vectors, by network and runtime.
        path: of the file, an SVG.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    runtimes = list(dict.fromkeys(runtime for _, runtime in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    colours = matplotlib.colormaps["tab20"].colors
    figure = Figure(figsize=(INCHES[0] * len(runtimes), INCHES[1]), layout="constrained")
    panels = figure.subplots(1, len(runtimes), squeeze=False)[0]
    for axes, runtime in zip(panels, runtimes, strict=True):
        for (name, own), vectors in cells.items():
            if own == runtime:
                measured = truths(vectors)
                ratios = [v.ms / ms for v, ms in zip(vectors, measured, strict=True)]
                shown = [min(max(ratio, WITHIN[0]), WITHIN[1]) for ratio in ratios]
                axes.scatter(measured, shown, s=10, color=colours[names.index(name) % len(colours)], label=name)
        axes.axhspan(0.97, 1.03, color="0.93", zorder=0)
        axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
        axes.set(xscale="log", ylim=WITHIN, title=runtime, xlabel="measured, ms", ylabel="predicted / measured")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "latprune"}), replacing(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    return path
