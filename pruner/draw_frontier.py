"""Draw a frontier: importance kept against predicted latency with its interval, one dot a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.picture import COLOURS, FAINT, INK, LINE, check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pruner.frontier import Frontier

OPTION = "--plot"
SIZE = (7.2, 4.6)
"""In inches."""
ROOM = 1.1
"""Width of the picture over the slowest plan's latency."""
LABELS = 8
"""Dots that are labelled with their budget, about."""


def save_frontier(found: "Frontier", device: str, path: Path) -> None:
    """Draw a frontier into a file; the same frontier gives the same file.

    Args:
        found: the curve.
        device: what the table was measured on, in words.
        path: of the picture.

    Raises:
        DrawError: see `check_picture`; or the file cannot be written.
    """
    check_picture(path, OPTION)
    save_picture(draw_frontier(found, device), path, OPTION)


def draw_frontier(found: "Frontier", device: str) -> "Figure":
    """The curve, with the latency as a share of the unpruned network's along the upper edge."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{found.task}: importance kept against predicted latency", fontsize=10, color=INK, parse_math=False)
    _draw_curve(axes, found)
    axes.set_ylabel(f"importance kept, % ({found.importance})", fontsize=8, color=INK)
    said = f"latency, ms, predicted by {Path(found.table).name} alone, with 90 % interval\n{device}"
    if found.missing:
        said += f"\nNOT in it: {len(found.missing)} units that the table has no latency of"
    axes.set_xlabel(said, fontsize=8, color=INK, parse_math=False)
    # an interval that the table leaves very wide runs out of the picture, not the curve into its corner
    axes.set_xlim(0, ROOM * max(point.predicted_ms for point in (*found.points, found.unpruned)))
    axes.margins(y=0.08)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(color=LINE, lw=0.4)
    unpruned_ms = found.unpruned_ms
    there_and_back: Any = (lambda ms: 100 * ms / unpruned_ms, lambda percent: percent * unpruned_ms / 100)
    shares = axes.secondary_xaxis("top", functions=there_and_back)
    shares.set_xlabel("% of the unpruned network's predicted latency", fontsize=8, color=INK)
    for each in (axes, shares):
        each.tick_params(labelsize=7, colors=INK)
    return figure


def _draw_curve(axes: "Axes", found: "Frontier") -> None:
    points = found.points
    kept = [100 * point.importance_kept for point in points]
    ms = [point.predicted_ms for point in points]
    spread = [[p.predicted_ms - p.low_ms for p in points], [p.high_ms - p.predicted_ms for p in points]]
    order = range(len(points) - 1, -1, -1)
    # steps: between two plans that were found, the faster one is what there is
    axes.step([ms[n] for n in order], [kept[n] for n in order], where="post", color=COLOURS[0], lw=1.0, zorder=2)
    axes.errorbar(ms, kept, xerr=spread, fmt="o", ms=3.6, color=COLOURS[0], ecolor=FAINT, elinewidth=0.8, zorder=3)
    # several budgets may have one plan: the tightest that it keeps names it
    tightest = {(point.predicted_ms, 100 * point.importance_kept): point.budget_ms for point in points}
    every = max(1, round(len(tightest) / LABELS))
    for place, budget_ms in list(tightest.items())[::every]:
        text = f"{100 * budget_ms / found.unpruned_ms:.0f} %"
        axes.annotate(text, place, xytext=(4, -10), textcoords="offset points", fontsize=6.5, color=FAINT)
