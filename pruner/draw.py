"""Draw which layers share which channels: a row for each layer, and for each group a bar along the rows that it ties.

A bar stands in the leftmost lane that is free from its first row to its last, long ones first. So the picture is about
as wide as groups live at once, and a residual stream is one long line at the left.
"""

import string
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.picture import COLOURS, FAINT, INK, LINE, check_picture, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INPUT = "it is the network's input"
"""Groups that are frozen for this reason are not drawn."""
ROLES = ("gives", "takes", "keeps")
"""What a layer may do with a group's channels."""

FROZEN, STRIPE = "#868c94", "#f2f4f7"
OPTION = "--draw"
POINTS = 7.0
MOST_PIXELS = 30_000
"""Of a PNG's longer side: a higher picture gets fewer dots an inch."""
ROW, LANE, SIZE, BAR, MARGIN, HEAD, NOTE, LEAST_WIDTH = 0.2, 0.47, 0.34, 0.11, 0.2, 0.95, 0.16, 6.8
"""In inches: a row's height, widths of a lane, a size's box and a bar, the margin, heights of the head and a note."""


@dataclass(frozen=True)
class Row:
    """A layer: groups by name, and beside it the norms and scales that keep the same channels."""

    name: str
    kind: str
    gives: tuple[str, ...]
    takes: tuple[str, ...]
    keeps: tuple[str, ...]
    beside: str


@dataclass(frozen=True)
class Bar:
    """A group: rows from `first` to `last` in a lane, how many channels it has, and the letter of a reason below."""

    name: str
    size: int
    first: int
    last: int
    lane: int = 0
    colour: str = COLOURS[0]
    approximate: bool = False
    note: str = ""


def save_drawing(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report of `latprune groups` into a file; the same report gives the same file.

    Raises:
        DrawError: see `check_picture`; or the file cannot be written.
    """
    check_picture(path, OPTION)
    figure = draw_groups(report)
    save_picture(figure, path, OPTION, dots=min(160, MOST_PIXELS / max(figure.get_size_inches())))


def plan_bars(report: Mapping[str, Any], rows: Sequence[Row]) -> tuple[list[Bar], list[str]]:
    """Give each group a place along the rows, and say below what the picture cannot show.

    Args:
        report: its "groups" are read, as `pruner.commands.groups.describe` gives them.
        rows: of its "layers".
    """
    groups = {group["name"]: group for group in report["groups"]}
    inputs = [name for name, group in groups.items() if group["frozen_because"] == INPUT]
    spans: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        for name in (*row.gives, *row.takes, *row.keeps):
            if name not in inputs:
                spans[name] = (spans.get(name, (number, number))[0], number)
    lanes = assign_lanes(spans)
    letters: dict[str, str] = {}
    bars: list[Bar] = []
    for name, span in spans.items():
        frozen, approximate = groups[name]["frozen_because"], groups[name]["approximate_because"]
        reason = f"frozen: {frozen}" if frozen else f"approximate: {approximate}" if approximate else ""
        more, letter = divmod(len(letters), 26)
        note = letters.setdefault(reason, f"{string.ascii_lowercase[letter]}{more or ''}") if reason else ""
        size = groups[name]["size"] or max((len(member["indices"]) for member in groups[name]["members"]), default=0)
        colour = FROZEN if frozen else COLOURS[len(bars) % len(COLOURS)]
        bars.append(Bar(name, size, *span, lanes[name], colour, bool(approximate and not frozen), note))
    made = {name for row in rows for name in row.gives}
    notes = [f"{letter}  {reason}" for reason, letter in letters.items()]
    notes.append("A group is called after the layer where its bar begins, unless another name stands at the right.")
    if any(row.beside for row in rows):
        notes.append("“with” names norms and scales that keep the channels of their row.")
    if any(bar.name not in made for bar in bars):
        notes.append("A white size: no layer makes these channels.")
    lost = [name for name in groups if name not in spans and name not in inputs]
    hidden = ((inputs, "the network's input"), (lost, "in no layer's parameters"))
    notes += [f"Not drawn: {', '.join(names)} ({why})." for names, why in hidden if names]
    return bars, notes


def fold_norms(layers: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Make rows of layers; what only scales channels joins the row before or after it, whichever is nearer by name."""

    def only_scales(layer: Mapping[str, Any]) -> bool:
        long = (sum(length > 1 for length in shape) for shape in layer["parameters"].values())
        return bool(layer["keeps"]) and not layer["takes"] and not layer["gives"] and max(long, default=0) < 2

    beside: dict[int, list[str]] = {number: [] for number, layer in enumerate(layers) if not only_scales(layer)}
    hosts = sorted(beside)
    for number, layer in enumerate(layers):
        if number in beside:
            continue
        parts = layer["name"].split(".")
        best, depth = None, -1
        for host in (*[n for n in hosts if n < number][-1:], *[n for n in hosts if n > number][:1]):
            pairs = zip(parts, layers[host]["name"].split("."), strict=False)
            shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            if shared > depth and set(layer["keeps"]) <= {name for role in ROLES for name in layers[host][role]}:
                best, depth = host, shared
        if best is None:
            beside[number] = []
        else:  # a number alone says nothing
            alone = depth == len(parts) - 1 and parts[-1].isdecimal()
            beside[best].append(".".join(parts[max(0, depth - alone) :]))
    rows = []
    for number, names in sorted(beside.items()):
        layer = layers[number]
        kind = layer["kind"] if layer["runs"] else f"{layer['kind']}, does not run"
        gives, takes, keeps = (tuple(layer[role]) for role in ROLES)
        rows.append(Row(layer["name"], kind, gives, takes, keeps, f"with {', '.join(names)}" if names else ""))
    return rows


def assign_lanes(spans: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """For each bar the leftmost lane in which it meets no other, the longest bars first."""
    taken: list[list[tuple[int, int]]] = []
    lanes = {}
    for name in sorted(spans, key=lambda name: (spans[name][0] - spans[name][1], spans[name])):
        first, last = spans[name]
        free = (n for n, lane in enumerate(taken) if all(last < start or end < first for start, end in lane))
        lanes[name] = next(free, len(taken))
        if lanes[name] == len(taken):
            taken.append([])
        taken[lanes[name]].append((first, last))
    return lanes


def draw_groups(report: Mapping[str, Any]) -> "Figure":
    """Draw a report of `latprune groups`: the more layers the higher, the more groups at once the wider."""
    from matplotlib.figure import Figure

    rows = fold_norms(report["layers"])
    bars, notes = plan_bars(report, rows)
    asides = [_aside(number, row, bars) for number, row in enumerate(rows)]
    names = max((_width(f"{row.name}  {row.beside}") for row in rows), default=0.0)
    left = MARGIN + names + max((_width(row.kind) for row in rows), default=0.0) + 0.4
    right = left + LANE * (1 + max((bar.lane for bar in bars), default=0)) + 0.1
    width = max(LEAST_WIDTH, right + max(map(_width, asides), default=0.0) + MARGIN)
    columns = int((width - 2 * MARGIN) / 0.06)
    lines = [line for note in notes for line in textwrap.wrap(note, columns, subsequent_indent="    ")]
    foot = HEAD + len(rows) * ROW + 0.2
    height = foot + len(lines) * NOTE + MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))  # inches from the upper left corner
    axes.set_axis_off()
    _draw_head(axes, report, bars)
    places = {bar.name: (left + (bar.lane + 0.5) * LANE, bar) for bar in bars}
    for number, (row, aside) in enumerate(zip(rows, asides, strict=True)):
        y = HEAD + (number + 0.5) * ROW
        if number % 2 == 0:
            axes.bar(width / 2, ROW, width - MARGIN, y - ROW / 2, color=STRIPE, zorder=0)
        _text(axes, MARGIN, y, row.name)
        _text(axes, MARGIN + _width(f"{row.name}  "), y, row.beside, color=FAINT)
        _text(axes, left - 0.1, y, row.kind, color=FAINT, ha="right")
        _text(axes, right, y, aside, color=FAINT)
        _draw_row(axes, row, y, places)
    made = {name for row in rows for name in row.gives}
    for x, bar in places.values():
        top = HEAD + (bar.first + 0.5) * ROW
        _draw_bar(axes, x, top, (bar.last - bar.first) * ROW, bar)
        _text(axes, x + SIZE / 2 + 0.02, top - 0.045, bar.note, fontsize=5.5, color=FAINT)
        if bar.name not in made:
            _draw_mark(axes, x, top, bar, "")
    for number, line in enumerate(lines):
        _text(axes, MARGIN, foot + number * NOTE, line, color=FAINT)
    return figure


def _draw_head(axes: "Axes", report: Mapping[str, Any], bars: Sequence[Bar]) -> None:
    title = f"{report.get('task', 'Channel groups')}: which layers share which channels"
    _text(axes, MARGIN, 0.24, title, fontsize=10.5, weight="bold")
    sizes = [group["size"] for group in report["groups"] if not group["frozen_because"]]
    counts = f"{len(sizes)}, of {sum(sizes):,} channels; frozen: {len(report['groups']) - len(sizes)}"
    _text(axes, MARGIN, 0.46, f"Groups that can be pruned: {counts}. A bar ties what goes together; numbers are sizes.")
    sample = Bar("", 64, 0, 0)
    legend = [(sample, "gives", "makes channels"), (sample, "takes", "takes them in"), (sample, "keeps", "keeps them")]
    legend += [(bar, "gives", "frozen") for bar in bars if bar.colour == FROZEN][:1]
    legend += [(bar, "bar", "approximate") for bar in bars if bar.approximate][:1]
    x, y = MARGIN, 0.7
    for bar, role, meaning in legend:
        half = SIZE / 2 if role == "gives" else BAR / 2
        if role == "bar":
            _draw_bar(axes, x + half, y - 0.07, 0.14, bar)
        else:
            _draw_mark(axes, x + half, y, bar, role)
        _text(axes, x + 2 * half + 0.08, y, meaning)
        x += 2 * half + _width(meaning) + 0.3


def _draw_row(axes: "Axes", row: Row, y: float, places: Mapping[str, tuple[float, Bar]]) -> None:
    marks = [(*places[name], role) for role in ROLES for name in getattr(row, role) if name in places]
    crossed = [x for x, _, role in marks if role != "keeps"]
    if crossed:
        axes.plot([min(crossed), max(crossed)], [y, y], color=LINE, lw=1.0, zorder=1)
    for x, bar, role in marks:
        twice = role == "takes" and bar.name in row.gives  # the size stands in the middle
        _draw_mark(axes, x - SIZE / 2 if twice else x, y, bar, role)


def _draw_mark(axes: "Axes", x: float, y: float, bar: Bar, role: str) -> None:
    if role in ("takes", "keeps"):
        face, size = ("white", 5.2) if role == "takes" else (bar.colour, 4.0)
        axes.plot(x, y, "o", ms=size, mfc=face, mec=bar.colour, mew=1.3, zorder=5)
        return
    face, ink, over = (bar.colour, "white", 3) if role == "gives" else ("white", bar.colour, 6)
    axes.bar(x, 0.14, SIZE, y - 0.07, facecolor=face, edgecolor=bar.colour, linewidth=0.8, zorder=over)
    _text(axes, x, y, str(bar.size), fontsize=6.3, color=ink, ha="center", zorder=over + 1)


def _draw_bar(axes: "Axes", x: float, top: float, length: float, bar: Bar) -> None:
    from matplotlib.colors import to_rgb

    pale = tuple(0.45 * part + 0.55 for part in to_rgb(bar.colour))
    style: Any = (
        {"color": pale} if not bar.approximate else {"fc": "white", "ec": bar.colour, "hatch": "/" * 7, "lw": 0}
    )
    axes.bar(x, length, BAR, top, zorder=2, gid=f"group {bar.name}", **style)


def _text(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:
    given: Any = {"fontsize": POINTS, "color": INK, "va": "center_baseline", "parse_math": False} | style
    if text:
        axes.text(x, y, text, **given)


def _width(text: str) -> float:
    """How wide a text is at most, in inches: where dots are few, letters are set up to 5 % wider."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    size: float = text_to_path.get_text_width_height_descent(text, FontProperties(size=POINTS), ismath=False)[0]
    return 1.05 * size / 72


def _aside(number: int, row: Row, bars: Sequence[Bar]) -> str:
    """The groups that begin in a row and are called otherwise than its layer."""
    own = {row.name, f"{row.name}_weight", f"{row.name}_bias"}
    return ", ".join(bar.name for bar in bars if bar.first == number and bar.name not in own)
