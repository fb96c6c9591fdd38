"""`latprune frontier`: importance kept against predicted latency at many budgets, before anything is pruned."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruner.commands.options import (
    Batch,
    Capability,
    ChosenBackend,
    ChosenFingerprint,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Freeze,
    Input,
    Json,
    MemoryOf,
    MemoryTarget,
    Selection,
    TablePath,
    TaskSpec,
    find_task,
)
from pruner.commands.output import complain, make_table, print_json, results
from pruner.commands.parsing import Bound, parse_memory
from pruner.commands.progress import working
from pruner.show import NOTHING, format_count, format_kept, format_mb, format_ms, format_percent, format_share

if TYPE_CHECKING:
    from pruner.frontier import Frontier, Point

UNSURE = 0.2
"""A prediction whose interval reaches higher than this is pointed out."""


def frontier(
    task: TaskSpec,
    table: TablePath,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curve: .png, .svg or .pdf.")
    ] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="About how many budgets.")] = 20,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="40MB|50%", help="What every plan keeps of memory, as for prune."),
    ] = None,
    importance: Annotated[str, typer.Option("--importance", help="How channels are scored.")] = "fisher",
    solver: Annotated[str, typer.Option("--solver", help="What chooses the widths.")] = "milp",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="For milp over all budgets together: more of them prove more.")
    ] = 50.0,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    freeze: Freeze = None,
    min_width: Annotated[int, typer.Option("--min-width", min=1, help="Channels that every group keeps at least.")] = 1,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Residual blocks may go wholly, where that is worth more than channels.")
    ] = False,
    step: Annotated[
        int | None,
        typer.Option("--step", min=1, help="Widths are multiples of this, else of the device's own steps."),
    ] = None,
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    precision: ChosenPrecision = None,
    threads: ChosenThreads = None,
    fingerprint: ChosenFingerprint = None,
    memory_of: MemoryOf = None,
    input: Input = None,
    batch: Batch = None,
    json: Json = False,
) -> None:
    """Show what each latency budget would cost, by the table alone; nothing is measured, and nothing is pruned.

    Channels are scored once. For each budget, from the unpruned latency down to the narrowest plan's, the plan is
    found that keeps most importance. A tighter budget never keeps more, and is never predicted slower.
    """
    size = Bound() if memory is None else parse_memory(memory)
    with working() as progress:
        if plot is not None:
            from pruner.draw_frontier import OPTION, save_frontier
            from pruner.picture import check_picture

            check_picture(plot, OPTION)
        from pruner.frontier import frontier as solve
        from pruner.request import PruneConfig

        rows = Selection(backend, device, compute_capability, precision, threads, fingerprint).open_timed(table)
        meant = MemoryTarget.read(memory_of, rows)
        found = solve(
            find_task(task, input, batch),
            rows,
            config=PruneConfig(
                importance=importance,
                solver=solver,
                seed=seed,
                freeze=tuple(freeze or ()),
                min_width=min_width,
                blocks=blocks,
                step=step,
                memory_of=meant.runtime,
                memory_precision=meant.precision,
            ),
            points=points,
            memory_bytes=size.value,
            memory_fraction=size.fraction,
            seconds=seconds,
            progress=progress,
        )
        if plot is not None:
            save_frontier(found, str(rows.fingerprint), plot)
    if json:
        print_json(found.to_json() | {"plot": plot})
    else:
        _show(found, str(rows.fingerprint), table)
        if plot is not None:
            results().print(f"{plot}: the curve", soft_wrap=True)
    if found.missing:
        complain(
            f"{len(found.missing)} units are NOT in these latencies: no latency of them in {table}.\n"
            f"Measure them: latprune profile {task} --table {table}"
        )
        raise typer.Exit(1)


def _show(found: "Frontier", device: str, table: Path) -> None:
    console = results()
    shown = make_table(
        f"{found.task}: what each latency budget would cost",
        *("budget", "predicted", "90 % interval", "speed-up", "importance kept", "parameters", "MACs", "memory"),
        *("gap",),
        *(() if found.blocks is None else ("blocks gone",)),
        right=tuple(range(10)),
    )
    for point in found.points:
        shown.add_row(*_row(found, point))
    console.print(shown)
    unpruned = found.unpruned
    console.print(
        f"unpruned: {format_ms(unpruned.predicted_ms)} predicted, {format_count(unpruned.parameters)} parameters, "
        f"{format_count(unpruned.macs)} MACs, {format_mb(unpruned.memory.total_bytes)}",
        soft_wrap=True,
    )
    if found.memory_budget_bytes is not None:
        console.print(f"every plan keeps the memory budget of {format_mb(found.memory_budget_bytes)}")
    for line in notes(found):
        console.print(line, soft_wrap=True)
    console.print(f"{found.importance} importance by {found.solver}, predicted by {table} alone ({device}): ", end="")
    console.print("nothing was measured", soft_wrap=True)


def _row(found: "Frontier", point: "Point") -> list[str]:
    unpruned = found.unpruned
    return [
        f"{format_ms(point.budget_ms)} = {format_share(point.budget_ms / unpruned.predicted_ms)}",
        format_ms(point.predicted_ms) + (" *" if point.taken_over else ""),
        f"{format_ms(point.low_ms)} – {format_ms(point.high_ms)}",
        f"{point.speedup:.2f}",
        format_kept(point.importance_kept),
        format_share(point.parameters / unpruned.parameters),
        format_share(point.macs / unpruned.macs) if unpruned.macs else NOTHING,
        format_mb(point.memory.total_bytes),
        format_percent(point.gap),
        *(() if found.blocks is None else (str(len(point.removed_blocks) or NOTHING),)),
    ]


def notes(found: "Frontier") -> list[str]:
    """What a reader of the table has to know, a line each."""
    lines = []
    if len(found.points) == 1:
        lines.append("no plan is predicted faster than the unpruned network: pruning gains no latency here")
    if found.taken_over:
        lines.append(
            f"*: at {found.taken_over} of {len(found.points)} budgets the solver found a worse plan than at a tighter "
            "one, whose plan is shown"
        )
    if found.blocks is not None:
        lines.append(f"blocks that may go: {', '.join(found.blocks) or 'none'}")
    left = sorted({name for point in found.points for name in point.missing})
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        lines.append(
            f"predicted without {shown}: left behind where blocks went, and the table has no latency of it; "
            "latprune prune --blocks measures that"
        )
    unsure = sum(point.high_ms > (1 + UNSURE) * point.predicted_ms for point in found.points)
    if unsure:
        lines.append(
            f"the table is unsure at {unsure} of {len(found.points)} budgets: the latency there may be more than "
            f"{format_percent(UNSURE)} higher than predicted; latprune profile --networks measures more"
        )
    open_points = [point for point in found.points if point.lost]
    proved = sum(point.gap is not None for point in open_points)
    if proved:
        all_of_them = proved == len(open_points)
        where = "at all budgets" if all_of_them else f"in time at {proved} of {len(open_points)} (--seconds gives more)"
        lines.append(f"gap: how much less importance any other plan within the budget could lose; proved {where}")
    elif open_points:
        lines.append(f"gap: {found.solver} proved nothing")
    return lines
