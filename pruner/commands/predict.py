"""`latprune predict`: what a network costs by the table, as it is or as a plan leaves it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lut import LatencyTable
from pruner.commands.kernels import KernelTarget, describe_kernels, show_kernels
from pruner.commands.options import (
    Batch,
    Capability,
    ChosenBackend,
    ChosenFingerprint,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Input,
    Json,
    MaybeTable,
    MemoryOf,
    MemoryTarget,
    Selection,
    TaskSpec,
    find_task,
)
from pruner.commands.output import complain, make_table, print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.planned import analyze_planned, plan_blocks, plan_widths, read_plan
from pruner.commands.progress import working
from pruner.show import format_ms, format_percent, leftover_lines, memory_line

DEAREST = 15
"""Units shown without `--all`."""


def predict_command(
    task: TaskSpec,
    table: MaybeTable = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="plan.json", help="Predict what this plan (or RUN/) leaves.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Measure the whole network too.")] = False,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Show the kernels that TensorRT for RTX makes of it, compiled with no GPU; needs no table. "
            "--compute-capability, --device and --precision then say what for.",
        ),
    ] = False,
    guess: Annotated[
        bool,
        typer.Option("--guess", help="Do not compile the network; guess from the table what the runtime makes of it."),
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every unit, not the dearest alone.")] = False,
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
    """Predict a network's latency and memory from the table."""
    if table is None and (check or guess or not kernels):
        raise OptionError("Predicting needs --table T.db.\nWithout one there is only --kernels, the structure")
    with working() as progress:
        target = KernelTarget.of(device, compute_capability, precision) if kernels else None
        chosen = None if plan is None else read_plan(plan)
        if kernels:
            selection = Selection(backend, threads=threads, fingerprint=fingerprint)
        else:
            selection = Selection(backend, device, compute_capability, precision, threads, fingerprint)
        rows = None if table is None else selection.open_timed(table)
        network, stay = analyze_planned(find_task(task, input, batch), chosen)
        widths = network.widths if chosen is None else plan_widths(network, chosen)
        gone = [] if chosen is None else plan_blocks(network, chosen)
        report: dict[str, Any] = {}
        if target is not None:
            report["kernels"] = describe_kernels(network, widths, target, progress, gone, stay)
        if rows is not None:
            from profiler.blocks import without_blocks
            from pruner.prediction import memory, predicted

            report |= predicted(network, widths, rows, progress, gone, stay, compiled=not guess, check=check)
            left = without_blocks(network, gone) if gone else network
            meant = MemoryTarget.read(memory_of, rows)
            report |= memory(left, widths, meant.runtime, meant.precision)
    if json:
        print_json(report)
    else:
        if target is not None:
            show_kernels(report["kernels"], every=every)
        if rows is not None:
            _show(report, rows, every=every)
    if report.get("missing"):
        complain(
            f"{len(report['missing'])} of {len(left.units)} units are NOT in the total: no latency of them in "
            f"{table}.\n"
            f"Measure them: latprune profile {task} --table {table}"
        )
        raise typer.Exit(1)


def _show(report: Mapping[str, Any], rows: LatencyTable, *, every: bool) -> None:
    console = results()
    dearest = sorted(report["units"], key=lambda unit: -unit["ms"])
    shown = dearest if every else dearest[:DEAREST]
    total = sum(unit["ms"] for unit in dearest)
    title = f"{len(shown)} of {len(dearest)} units, the dearest first" + ("" if every else " (--all shows all)")
    table = make_table(title, "unit", "channels", "ms", "90 % interval", "share", "basis", right=(2, 3, 4))
    for unit in shown:
        interval = f"{unit['low_ms']:.4f} – {unit['high_ms']:.4f}"
        share = format_percent(unit["ms"] / total if total else None)
        table.add_row(
            unit["name"], " → ".join(map(str, unit["channels"])), f"{unit['ms']:.4f}", interval, share, unit["basis"]
        )
    console.print(table)
    if report["missing"]:
        lacking = make_table("units that the table has no latency of", "unit", "family")
        for unit in report["missing"]:
            lacking.add_row(unit["name"], unit["family"])
        console.print(lacking)
    counts = Counter(unit["basis"] for unit in report["units"])
    bases = ", ".join(f"{counts[basis]} {basis}" for basis in ("measured", "interpolated", "extrapolated"))
    console.print(f"units: {bases}, {len(report['missing'])} missing")
    free = ", ".join(f"{count} {why}" for why, count in report["free"].items())
    console.print(f"operations that cost nothing: {free or 'none'}")
    if report["cut"]:
        console.print(report["cut"])
    for line in leftover_lines(report.get("left_by_blocks", {})):
        console.print(line, markup=False, soft_wrap=True)
    if report["guessed"]:
        console.print(f"of {report['guessed']} units it is guessed which kernels the runtime makes of them")
    interval = f"{format_ms(report['low_ms'])} – {format_ms(report['high_ms'])}"
    console.print(f"predicted {format_ms(report['predicted_ms'])} (90 %: {interval}) on {rows.fingerprint}")
    if "measured_ms" in report:
        apart = report["predicted_ms"] / report["measured_ms"] - 1
        console.print(
            f"measured  {format_ms(report['measured_ms'], report['noise'])} ({report['samples']} samples, "
            f"{report['discarded']} discarded); the prediction is {abs(100 * apart):.1f} % "
            f"{'above' if apart >= 0 else 'below'}"
        )
    console.print(f"{memory_line(report)}, as {report['memory_of']} lays it out")
