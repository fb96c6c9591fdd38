"""How results look: a time with its spread, sizes in MB, and the before / after / ratio table of a pruned network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

NOTHING = "–"
"""Stands where a figure is not known; never a zero."""

FILES = {
    "model.onnx": "the pruned network",
    "model.safetensors": "its weights",
    "plan.json": "what was kept (pruner.load gives the network back)",
    "result.json": "these figures, and what they were made with",
}
"""What lies in a run's directory."""

ENGINES = (".engine", ".plan", ".trt")


class Check(Protocol):
    """One promise, and whether it was kept."""

    @property
    def name(self) -> str:
        """What was promised."""

    @property
    def passed(self) -> bool:
        """Whether it was kept."""

    @property
    def detail(self) -> str:
        """What was found."""


def format_ms(ms: float | None, noise: float | None = None) -> str:
    """A time in three digits with its spread: "1.84 ms ± 0.6 %".

    Args:
        ms: the time, or None.
        noise: its relative spread (a fraction), or None where it is not known.
    """
    if ms is None:
        return NOTHING
    return f"{_three_digits(ms)} ms" + ("" if noise is None else f" ± {format_percent(noise)}")


def format_percent(fraction: float | None) -> str:
    """A fraction in percent, with two digits that count: "0.6 %", "12 %"."""
    if fraction is None:
        return NOTHING
    percent = 100 * fraction
    return f"{percent:.0f} %" if abs(percent) >= 9.95 else f"{percent:.1f} %"


def format_share(share: float | None, digits: int = 1) -> str:
    """A share of a whole in percent, with so many digits after the point whatever its size: "97.3 %"."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def format_kept(share: float | None) -> str:
    """Importance kept, a share of all: "99.97 %"; where little is lost, the second digit tells plans apart."""
    return format_share(share, 2)


def format_mb(size_bytes: float | None) -> str:
    """A size in MB (10^6 bytes)."""
    return NOTHING if size_bytes is None else f"{_three_digits(size_bytes / 1e6)} MB"


def format_count(count: float | None) -> str:
    """A count with its thousands apart."""
    return NOTHING if count is None else f"{count:,.0f}"


def memory_line(memory: Mapping[str, Any]) -> str:
    """The five memory figures in one line."""
    total, weights, peak, workspace, traffic = (
        format_mb(memory.get(key))
        for key in ("total_bytes", "weights_bytes", "peak_activation_bytes", "workspace_bytes", "traffic_bytes")
    )
    return f"memory {total} = weights {weights} + peak activations {peak} + workspace {workspace}; traffic {traffic}"


def show_result(
    result: Mapping[str, Any], checks: Iterable[Check], console: Console, *, out: Path | None = None
) -> None:
    """Print a pruned network's table, then the checks, then where the files lie.

    Args:
        result: what `result.json` holds; figures in it may be null.
        checks: each said with ✓ or ✗.
        console: of stdout.
        out: the run's directory; its files are listed.
    """
    console.print(result_table(result))
    budgets = _budgets(result)
    if budgets:
        console.print(budgets, markup=False)
    for line in [*solver_lines(result), *leftover_lines(result.get("left_by_blocks") or {})]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for check in checks:
        mark, style = ("✓", "green") if check.passed else ("✗", "bold red")
        console.print(mark, style=style, end=" ")
        console.print(f"{check.name}: {check.detail}" if check.detail else check.name, markup=False, soft_wrap=True)
    if out is not None:
        for path, what in run_files(out):
            console.print(f"{path}  {what}", markup=False, highlight=False, soft_wrap=True)


def solver_lines(result: Mapping[str, Any]) -> list[str]:
    """How good the solver's choice is, a line a round: "importance kept 97.31 %, by milp, proved gap 0.1 %"."""
    solver = result.get("solver") or {}
    rounds = solver.get("rounds") or []
    lines = []
    for number, each in enumerate(rounds, 1):
        gap = each.get("gap")
        proof = "no gap proved: another plan may keep more" if gap is None else f"proved gap {format_percent(gap)}"
        where = f"round {number}: " if len(rounds) > 1 else ""
        kept = format_kept(each.get("importance_kept"))
        lines.append(f"{where}importance kept {kept}, by {solver.get('name')}, {proof}")
    return lines


def leftover_lines(left: Mapping[str, Sequence[str]]) -> list[str]:
    """What blocks that went left behind and how it is priced, a line each kind; nothing where all is known."""
    lines = []
    if missing := left.get("missing"):
        lines.append(
            f"predicted without {_named(missing)}: left behind where blocks went, and the table has no latency of it"
        )
    if before := left.get("priced_as_before"):
        lines.append(f"priced as before blocks went, though it took up what was left: {_named(before)}")
    return lines


def _named(names: Sequence[str]) -> str:
    """The first names of a list."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def result_table(result: Mapping[str, Any]) -> Table:
    """The table of `show_result`: a line a figure."""
    before, after = result.get("before") or {}, result.get("after") or {}
    table = Table(title_justify="left")
    for heading in ("", "before", "after", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    metric = result.get("metric")
    if metric is not None:
        values = [before.get("metric"), after.get("metric")]
        table.add_row(str(metric), *(NOTHING if value is None else f"{value:.4g}" for value in values), _ratio(*values))
    table.add_row("predicted", *_row(before, after, "predicted_ms", format_ms))
    times = [format_ms(side.get("measured_ms"), side.get("noise")) for side in (before, after)]
    table.add_row("measured", *times, _ratio(before.get("measured_ms"), after.get("measured_ms")))
    table.add_row("parameters", *_row(before, after, "parameters", format_count))
    table.add_row("weights", *_row(before, after, "weights_bytes", format_mb))
    table.add_row("activation memory", *_row(before, after, "peak_activation_bytes", format_mb))
    if result.get("memory_budget_bytes") is not None:
        table.add_row("workspace", *_row(before, after, "workspace_bytes", format_mb))
        table.add_row(f"total memory{bound_note(after)}", *_row(before, after, "total_bytes", format_mb))
        table.add_row("inputs and outputs, apart", *_row(before, after, "io_bytes", format_mb))
    return table


def bound_note(side: Mapping[str, Any]) -> str:
    """What to say of a memory figure that a compiler announces: it is not what the device will allocate."""
    is_what = side.get("memory_is")
    return "" if is_what in (None, "counted") else f" ({is_what})"


def run_files(out: Path) -> list[tuple[Path, str]]:
    """The files in a run's directory that a user may want, and what each is."""
    found = [(out / name, what) for name, what in FILES.items() if (out / name).is_file()]
    engines = sorted(path for path in out.glob("*") if path.suffix in ENGINES) if out.is_dir() else []
    return found + [(path, "an engine") for path in engines]


def _budgets(result: Mapping[str, Any]) -> str:
    latency, memory = result.get("budget_ms"), result.get("memory_budget_bytes")
    parts = [f"budget {format_ms(latency)}"] if latency is not None else []
    parts += [f"memory budget {format_mb(memory)}"] if memory is not None else []
    return ", ".join(parts)


def _row(before: Mapping[str, Any], after: Mapping[str, Any], key: str, form: Any) -> tuple[str, str, str]:
    return form(before.get(key)), form(after.get(key)), _ratio(before.get(key), after.get(key))


def _ratio(before: float | None, after: float | None) -> str:
    if before is None or after is None or not before:
        return NOTHING
    return f"{after / before:.3f}"


def _three_digits(value: float) -> str:
    if not value:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
