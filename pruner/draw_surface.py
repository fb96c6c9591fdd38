"""Draw what a table knows of families: measured points, the fitted surface along each channel coordinate, its steps.

A row of the picture is a family, a panel one coordinate. A curve follows that coordinate while the others stay where
many points were measured. A full dot was measured on the curve; a hollow one beside it, and is moved along the fitted
surface: its height above the curve is what the fit leaves of it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lut import BASES, EstimateArrays, LatencyTable, Points, UnitFamily
from lut.trend import Floats, Ints
from pruner.picture import COLOURS, FAINT, INK, LINE, check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OPTION = "table plot --out"
SLICES = 3
"""Curves in a panel, where another coordinate can be held at several values."""
MOST_LINES = 40
"""Steps drawn as lines; finer ones are named only."""
BEYOND = 1.25
"""A curve goes on by this factor beyond the measured counts, dashed."""
PANEL_WIDTH, PANEL_HEIGHT, HEAD = 5.6, 3.5, 0.5


@dataclass(frozen=True)
class Slice:
    """One curve: a coordinate varies, the others stay.

    Attributes:
        channels: `[m, k]`, the curve's channel counts, ascending in the coordinate.
        estimates: at these.
        on: indices of points measured on the curve.
        beside: indices of points that are nearer to this curve than to the others.
        label: the other coordinates' counts.
    """

    channels: Ints
    estimates: EstimateArrays
    on: Ints
    beside: Ints
    label: str


def save_surfaces(table: LatencyTable, families: Sequence[tuple[UnitFamily, str]], path: Path) -> None:
    """Draw families (each with the text that names it) into a file; the same table gives the same file.

    Raises:
        DrawError: see `check_picture`; or the file cannot be written.
    """
    check_picture(path, OPTION)
    save_picture(draw_surfaces(table, families), path, OPTION)


def draw_surfaces(table: LatencyTable, families: Sequence[tuple[UnitFamily, str]]) -> "Figure":
    """A row of panels for each family, one a coordinate."""
    from matplotlib.figure import Figure

    columns = max(1, *(table.points(family).channels.shape[1] for family, _ in families))
    size = (PANEL_WIDTH * columns, PANEL_HEIGHT * len(families) + HEAD)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle(str(table.fingerprint), fontsize=9, color=INK)
    grid = figure.add_gridspec(len(families), columns)
    for number, (family, name) in enumerate(families):
        points = table.points(family)
        coordinates = range(points.channels.shape[1])
        width = 100 if columns > 1 else 70
        for coordinate in coordinates or range(1):
            axes = figure.add_subplot(grid[number, coordinate])
            if coordinates:
                _draw_panel(axes, table, family, points, coordinate)
            else:
                _draw_single(axes, table, family, points)
            if coordinate == 0:
                title = "\n".join(textwrap.wrap(f"{name}: {len(points.ms)} points", width))
                axes.set_title(title, fontsize=7.5, color=INK, loc="left", parse_math=False)
    return figure


def cut_slices(table: LatencyTable, family: UnitFamily, coordinate: int) -> list[Slice]:
    """Curves along a coordinate: at low, middle and high counts of the others, each at the counts measured most often.

    Raises:
        MissingFamilyError: the family has no measured point.
    """
    points = table.points(family)
    low, high = (int(value) for value in (points.channels[:, coordinate].min(), points.channels[:, coordinate].max()))
    counts: Ints = np.arange(max(1, int(low / BEYOND)), int(np.ceil(high * BEYOND)) + 1, dtype=np.int64)
    others = np.delete(points.channels, coordinate, axis=1)
    anchors = _anchors(others)
    distances = np.abs(_log2(others)[:, None, :] - _log2(anchors)[None, :, :]).sum(axis=2)
    nearest = distances.argmin(axis=1)
    found = []
    for number, anchor in enumerate(anchors):
        channels: Ints = np.insert(np.tile(anchor, (len(counts), 1)), coordinate, counts, axis=1)
        own = np.flatnonzero(nearest == number)
        exact = (others[own] == anchor).all(axis=1)
        names = [f"c{index}" for index in range(points.channels.shape[1]) if index != coordinate]
        label = ", ".join(f"{name} = {count}" for name, count in zip(names, anchor, strict=True))
        found.append(Slice(channels, table.estimate_many(family, channels), own[exact], own[~exact], label))
    return found


def _anchors(others: Ints) -> Ints:
    """Up to three rows among `[n, k - 1]`: from the low, middle and high third the one that is there most often."""
    if others.shape[1] == 0:
        return np.empty((1, 0), dtype=np.int64)
    order = np.argsort(_log2(others).sum(axis=1), kind="stable")
    chosen: list[tuple[int, ...]] = []
    for part in np.array_split(order, min(SLICES, len(others))):
        distinct, counts = np.unique(others[part], axis=0, return_counts=True)
        chosen.append(tuple(int(count) for count in distinct[int(counts.argmax())]))
    return np.array(list(dict.fromkeys(chosen)), dtype=np.int64)


def _log2(channels: Ints) -> Floats:
    found: Floats = np.log2(np.maximum(channels, 1))
    return found


def _draw_panel(axes: "Axes", table: LatencyTable, family: UnitFamily, points: Points, coordinate: int) -> None:
    slices = cut_slices(table, family, coordinate)
    step = table.step(family, coordinate)
    first, last = int(slices[0].channels[0, coordinate]), int(slices[0].channels[-1, coordinate])
    edges = range(-(-first // step) * step, last + 1, step)
    if step > 1 and len(edges) <= MOST_LINES:
        for edge in edges:
            axes.axvline(edge, color=LINE, lw=0.5, zorder=0)
    at_points = table.estimate_many(family, points.channels).ms
    extrapolated = BASES.index("extrapolated")
    for number, curve in enumerate(slices):
        colour = COLOURS[number]
        counts, found = curve.channels[:, coordinate], curve.estimates
        inside = found.basis < extrapolated
        axes.fill_between(counts, found.low_ms, found.high_ms, step="pre", color=colour, alpha=0.13, lw=0)
        known = np.where(inside, found.ms, np.nan)
        axes.plot(counts, known, drawstyle="steps-pre", color=colour, lw=1.3, label=curve.label or "fitted surface")
        axes.plot(counts, found.ms, drawstyle="steps-pre", color=colour, lw=0.9, ls=(0, (3, 2)), zorder=1)
        axes.plot(points.channels[curve.on, coordinate], points.ms[curve.on], "o", ms=3.6, color=colour, zorder=3)
        if len(curve.beside):
            moved = points.channels[curve.beside].copy()
            others = [index for index in range(moved.shape[1]) if index != coordinate]
            moved[:, others] = curve.channels[0, others]
            ms = points.ms[curve.beside] / at_points[curve.beside] * table.estimate_many(family, moved).ms
            axes.plot(moved[:, coordinate], ms, "o", ms=2.8, mfc="none", mec=colour, mew=0.6, alpha=0.7, zorder=2)
    _add_legend(axes, hollow=any(len(curve.beside) for curve in slices))
    told = f"steps of {step}" if step > 1 else "no steps found"
    axes.set_xlabel(f"c{coordinate}, channels ({told})", fontsize=7.5, color=INK)
    _dress(axes)
    axes.set_xlim(first, last)


def _draw_single(axes: "Axes", table: LatencyTable, family: UnitFamily, points: Points) -> None:
    """A family whose cost does not depend on pruning: one point with its interval."""
    found = table.estimate_many(family, points.channels[:1])[0]
    axes.errorbar([0], [found.ms], [[found.ms - found.low_ms], [found.high_ms - found.ms]], fmt="o", color=COLOURS[0])
    axes.set_xticks([])
    axes.set_xlabel("no channel count that pruning changes", fontsize=7.5, color=INK)
    _dress(axes)


def _add_legend(axes: "Axes", *, hollow: bool) -> None:
    grey: Any = {"color": FAINT}
    axes.plot([], [], "o", ms=3.6, label="measured", **grey)
    if hollow:
        axes.plot([], [], "o", ms=2.8, mfc="none", mew=0.6, label="measured beside it, moved", **grey)
    axes.plot([], [], lw=1.3, label="interpolated", **grey)
    axes.plot([], [], lw=0.9, ls=(0, (3, 2)), label="extrapolated", **grey)
    axes.fill_between([], [], [], alpha=0.2, lw=0, label="90 % interval", **grey)
    axes.legend(fontsize=6, frameon=False, loc="upper left")


def _dress(axes: "Axes") -> None:
    axes.set_ylabel("ms", fontsize=7.5, color=INK)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
