"""`docs/fidelity.md` from the stored cells: no figure in it is written by hand, and what was not run stays empty."""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.fidelity_figures import (
    GOALS,
    KINDS,
    Figures,
    by_kind,
    judge,
    judge_guessed,
    judge_ours,
    judge_peer,
    judge_twice,
    ratio_figures,
)
from benchmarks.fidelity_networks import RUNTIMES
from benchmarks.fidelity_peers import PEERS
from benchmarks.fidelity_plot import draw_scatter
from benchmarks.fidelity_store import Cell, Profiled, Reuse, Transfer, hash_sources, path_of, read_cell
from benchmarks.fidelity_summary import Line, number, percent, summarize, summarize_unseen
from profiler.profile import RECENT, ProfileConfig
from pruner.atomic import write_text

WIDTH = 150
"""Characters a line of prose, as in the other documents."""

INTRODUCTION = f"""\
Each network is profiled on each runtime from an empty table. Then 30 width vectors are drawn that were used neither
for measuring nor for calibration, their latency is predicted and the predictions are written down; only then is each
measured, twice, in two passes over all vectors, by turns with a reference (the half-width network) that divides the
machine's drift out, as profiling does. One thread, pinned. The truth is the geometric mean of the two passes; *twice*
is how far they are apart, the noise that no prediction can beat; *again* is the mean difference of what profiling
measured from the same networks measured again beside the held-out ones, which no prediction can know.

Of the vectors a third are free (each group its own random share of a random level, in steps of 1), a third stand on
step edges (multiples of the found step or, at every second group on average, one channel more), and a third are what
the greedy solver leaves at budgets spread evenly over 30 to 95 % of the unpruned latency, with made-up importances
(log-normal among channels and among groups, seeded).

Goals: mean error at most {GOALS["mae"]:.0%}, 95th percentile at most {GOALS["p95"]:.0%}, Kendall's tau within the
network at least {GOALS["tau"]:.2f}, and at least {GOALS["coverage"]:.0%} of the measured values inside the stated 90
% intervals. What misses its goal is **bold**. Errors are relative to the measured latency.
"""

UNSEEN_INTRODUCTION = """\
The rules by which units are cut, measured and predicted were worked out on the networks above. These came after: a
U-Net, a GhostNet and a MobileViT written for this page (`benchmarks/unseen_networks.py`), and two networks of
torchvision. They are judged in the same way. No rule was changed after seeing them, but how runs are counted was:
beside a reference the first run of each block counts no more. convnext_tiny on openvino, which had shown it, was
measured anew.
"""

PEERS_INTRODUCTION = """\
The same vectors predicted in other ways from the same measurements, as mean error / 95th percentile / tau. The linear
fits and the interpolation (as ModelOpt does it) see the whole networks that profiling measured, fitted by least
squares on relative errors. For isolated units every unit is cut out of the ONNX graph and timed alone, at the widths
of some of these networks, each distinct unit once; what is between is read off the same surfaces as ours, and their
sum is taken as it is or, in the last column, with scale and overhead fitted to whole networks as for ours.
"""

COST_INTRODUCTION = f"""\
Seconds from the module to the finished table (trace and export included), whole networks measured, and why measuring
ended: from an empty table, and with the rows of all other networks on the same runtime in it. *Known* are the families
of the network's units that the others' tables priced already. At least {ProfileConfig().networks_min} networks of each
structure are measured in any case, time permitting, and measuring ends when the last {RECENT}, each predicted before it
was measured and chosen for being the least certain of several, were off by at most
{ProfileConfig().target_error:.1%} on average.
"""

REUSE_INTRODUCTION = """\
Mean error over the same held-out vectors after only so many whole networks of this structure were measured: from their
rows alone / with the rows of all other networks on the same runtime beside them. A dash stands where a family of its
units has no row yet. Predicted from the stored tables; what the runtime makes of the units is guessed.
"""

ISOLATED_INTRODUCTION = """\
Sum of the units' times over the time of the whole network, mean ± standard deviation over networks at different
widths: as taken in place from the runtime's own profile, and of the same units cut out and timed alone. A ratio off 1
can be calibrated; one that changes with the widths cannot.
"""

Row = list[str]


def read_lines(names: Sequence[str], store: Path) -> list[Line]:
    """Every network on every runtime, whether it was run or not."""
    lines = []
    for runtime in RUNTIMES:
        for name in names:
            stored = read_cell(path_of(store, name, runtime), Cell)
            moved = read_cell(path_of(store, name, runtime, Transfer), Transfer)
            reused = read_cell(path_of(store, name, runtime, Reuse), Reuse)
            setting, cell = stored or (None, None)
            lines.append(Line(name, runtime, setting, cell, moved[1] if moved else None, reused[1] if reused else None))
    return lines


def write_report(names: Sequence[str], unseen: Sequence[str], store: Path, out: Path) -> int:
    """Write the report, and the plot beside it.

    Returns:
        How many cells failed.
    """
    lines, lines_unseen = read_lines(names, store), read_lines(unseen, store)
    finished = {(line.name, line.runtime): line.finished.vectors for line in lines if line.finished}
    plot = draw_scatter(finished, out.with_suffix(".svg")) if finished else None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, make_report(lines, lines_unseen, plot.name if plot else None))
    return len(_failures([*lines, *lines_unseen]))


def make_report(lines: Sequence[Line], unseen: Sequence[Line] = (), plot: str | None = None) -> str:
    """The report as Markdown; `unseen` are networks by which nothing was chosen."""
    every = [*lines, *unseen]
    parts = [
        "# Fidelity",
        wrapped(INTRODUCTION),
        wrapped(_measured_with(every)),
        "## In short",
        wrapped("\n".join([summarize(lines), *summarize_unseen(unseen)])),
    ]
    if plot:
        parts.append(f"![predicted over measured latency of each held-out network]({plot})")
    for title, text, table, shown in (
        ("Predictions", "", _ours, lines),
        ("Networks by which nothing was chosen", UNSEEN_INTRODUCTION, _ours, unseen),
        ("Beside what others do", PEERS_INTRODUCTION, _peers, lines),
        ("What it costs", COST_INTRODUCTION, _costs, lines),
        ("What the others' rows are worth", REUSE_INTRODUCTION, _reuse, lines),
        ("In place and isolated", ISOLATED_INTRODUCTION, _isolated, lines),
    ):
        if not shown:
            continue
        parts.append(f"## {title}")
        parts += [wrapped(text)] if text else []
        for runtime in dict.fromkeys(line.runtime for line in shown):
            parts += [f"### {runtime}", table([line for line in shown if line.runtime == runtime])]
    failures = _failures(every)
    parts += ["## What failed", wrapped("\n".join(f"* {words}" for words in failures)) if failures else "Nothing."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def wrapped(text: str) -> str:
    """Paragraphs and bullets in lines of `WIDTH`."""
    found = ""
    for block in re.split(r"\n\n|\n(?=\* )", text.strip()):
        bullet = block.startswith("* ")
        wrapper = textwrap.TextWrapper(WIDTH, break_on_hyphens=False, break_long_words=False)
        wrapper.subsequent_indent = "  " if bullet else ""
        found += ("\n" if bullet else "\n\n" if found else "") + wrapper.fill(" ".join(block.split()))
    return found.strip()


def _measured_with(lines: Sequence[Line]) -> str:
    """The command, the machine, the day and the versions, as stored with the cells."""
    settings = [line.setting for line in lines if line.setting]
    if not settings:
        return "Nothing was run yet: `make fidelity`."
    days = sorted({setting.date for setting in settings})
    day = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = sorted({f"{name} {version}" for setting in settings for name, version in setting.versions.items()})
    machines = sorted({setting.processor for setting in settings})
    text = f"`make fidelity`, {day}, on {', '.join(machines)}, 1 thread; {', '.join(versions)}."
    old = sum(setting.sources != hash_sources() for setting in settings)
    if old:
        text += f" {old} of {len(settings)} cells were measured with other sources than those of this report."
    again = sum(line.cell is not None and line.cell.predicted_with != "" for line in lines)
    if again:
        text += (
            f" {again} of these were predicted again by later sources, from the tables as they had been measured "
            "(`--predict`)."
        )
    return text


def _ours(lines: Sequence[Line]) -> str:
    heads = ["network", "units", "unpruned", "twice", "again", "mean error", "p95", "bias", "tau", "covered"]
    heads += [*KINDS.values(), "forms guessed"]

    def row(line: Line) -> Row:
        cell = line.finished
        if cell is None:
            return [line.name]
        ours, misses = judge_ours(cell.vectors), set(judge_ours(cell.vectors).misses())
        figures = {
            "mae": percent(ours.mae),
            "p95": percent(ours.p95),
            "bias": f"{ours.bias:+.1%}",
            "tau": number(ours.tau),
            "coverage": f"{ours.coverage:.0%}",
        }
        return [
            line.name,
            str(cell.units),
            "" if cell.unpruned_ms is None else f"{cell.unpruned_ms:.3g} ms",
            percent(judge_twice(cell.vectors).mae),
            _again(cell),
            *(f"**{text}**" if name in misses else text for name, text in figures.items()),
            *(percent(mae) for mae in by_kind(cell.vectors).values()),
            percent(judge_guessed(cell.vectors).mae),
        ]

    return table(heads, lines, row)


def _again(cell: Cell) -> str:
    """By how much networks that profiling measured differ from it when they are measured again."""
    if not cell.again_ms:
        return ""
    first, second = (np.array([pair[place] for pair in cell.again_ms]) for place in (0, 1))
    return f"{judge(list(first), second).bias:+.1%}"


def _peers(lines: Sequence[Line]) -> str:
    def row(line: Line) -> Row:
        cell = line.finished
        if cell is None:
            return [line.name]
        return [
            line.name,
            _three(judge_twice(cell.vectors)),
            _three(judge_ours(cell.vectors)),
            *(_three(judge_peer(cell.vectors, peer)) for peer in PEERS),
        ]

    return table(["network", "measuring twice", "ours", *PEERS], lines, row)


def _costs(lines: Sequence[Line]) -> str:
    def row(line: Line) -> Row:
        first, moved = line.finished, line.transfer
        cells = [line.name, *_cost(first.profiled if first else None)]
        if moved is None or moved.profiled is None:
            return cells
        return [*cells, *_cost(moved.profiled), f"{moved.known} of {moved.families}", str(len(moved.others))]

    first = ["from nothing: seconds", "networks", "unit rows", "ended because"]
    moved = ["with the others: seconds", "networks", "unit rows", "ended because", "families known", "other networks"]
    return table(["network", *first, *moved], lines, row)


def _cost(profiled: Profiled | None) -> Row:
    if profiled is None:
        return ["", "", "", ""]
    why = profiled.stopped_because.partition(",")[0]
    return [f"{profiled.seconds:.0f}", str(profiled.measured), str(profiled.rows), why]


def _reuse(lines: Sequence[Line]) -> str:
    counts = list(dict.fromkeys(count for line in lines if line.reuse for count in line.reuse.after))

    def row(line: Line) -> Row:
        if line.reuse is None:
            return [line.name]
        both = zip(line.reuse.after, line.reuse.alone, line.reuse.beside, strict=True)
        found = {count: " / ".join(percent(error) or "–" for error in errors) for count, *errors in both}
        return [line.name, *(found.get(count, "") for count in counts)]

    return table(["network", *(f"after {count}" for count in counts)], lines, row)


def _isolated(lines: Sequence[Line]) -> str:
    def row(line: Line) -> Row:
        found = line.finished.isolated if line.finished else None
        if found is None:
            return [line.name]
        ratios = [ratio_figures(found.sums, number) for number in (1, 0)]
        texts = ["" if ratio is None else f"{ratio[0]:.3f} ± {ratio[1]:.3f}" for ratio in ratios]
        counts = [str(found.units), str(found.failed), str(found.missing), str(found.networks)]
        return [line.name, *texts, *counts, f"{found.seconds:.0f}"]

    heads = ["network", "in place / whole", "isolated / whole", "isolated units timed", "failed", "without a time"]
    return table([*heads, "networks", "seconds"], lines, row)


def table(heads: Sequence[str], lines: Iterable[Line], row: Callable[[Line], Row]) -> str:
    """A Markdown table, a row a line; what a row leaves out is empty."""
    rows = [row(line) for line in lines]
    texts = [heads, ["---", *["--:"] * (len(heads) - 1)], *([*own, *[""] * (len(heads) - len(own))] for own in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in texts)


def _failures(lines: Sequence[Line]) -> list[str]:
    found = []
    for line in lines:
        if line.cell is not None and line.finished is None:
            found.append(f"{line.name} on {line.runtime}: {line.cell.failure}")
        if line.transfer is not None and line.transfer.failure is not None:
            found.append(f"{line.name} on {line.runtime}, with the others' tables: {line.transfer.failure}")
        if line.reuse is not None and line.reuse.failure is not None:
            found.append(f"{line.name} on {line.runtime}, with the others' rows: {line.reuse.failure}")
    return found


def _three(figures: Figures | None) -> str:
    if figures is None:
        return ""
    return f"{figures.mae:.1%} / {figures.p95:.1%} / {number(figures.tau)}"
