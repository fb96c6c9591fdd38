"""`latprune predict`: what a network costs by the table, as it is or as a plan leaves it."""

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lut import DeviceFingerprint, LatencyTable, Prediction, TableError, predict
from lut.predict import Forms
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

if TYPE_CHECKING:
    from profiler.blocks import Block
    from profiler.network import Network
    from profiler.progress import Progress
    from profiler.variants import Variants

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
            report |= _predicted(network, widths, rows, progress, gone, stay, compiled=not guess, check=check)
            left = _without(network, gone)
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


def _without(network: "Network", gone: Sequence["Block"]) -> "Network":
    from profiler.blocks import without_blocks

    return without_blocks(network, gone) if gone else network


def _predicted(
    network: "Network",
    widths: Mapping[str, int],
    rows: LatencyTable,
    progress: "Progress",
    gone: Sequence["Block"],
    stay: Collection[str],
    *,
    compiled: bool,
    check: bool,
) -> dict[str, Any]:
    """What the table says of the network, as plain JSON."""
    found, forms, measured = predict_at(
        network, widths, rows, progress, gone=gone, stay=stay, compiled=compiled, check=check
    )
    told = describe(_without(network, gone), widths, found, forms)
    return told | {"fingerprint": rows.fingerprint.to_json()} | measured


def describe(
    network: "Network", widths: Mapping[str, int], found: Prediction, forms: Forms | None = None
) -> dict[str, Any]:
    """What the command tells of a prediction, as plain JSON; `forms` where the network was compiled."""
    from profiler.inplace import CutCheck

    known = forms or {}
    by_name = {unit.name: unit for unit in network.units}
    units = [
        {
            "name": unit.unit,
            "family": str(unit.spec.family),
            "channels": unit.spec.channels,
            "ms": unit.estimate.ms,
            "low_ms": unit.estimate.low_ms,
            "high_ms": unit.estimate.high_ms,
            "basis": unit.estimate.basis,
            "kernels": known.get(unit.unit),
        }
        for unit in found.units
    ]
    missing = [
        {"name": name, "family": str(by_name[name].family), "channels": by_name[name].channels(widths)}
        for name in found.missing
    ]
    return {
        "predicted_ms": found.total.ms,
        "low_ms": found.total.low_ms,
        "high_ms": found.total.high_ms,
        "units": units,
        "missing": missing,
        "calibration": found.calibration,
        "guessed": found.guessed,
        "cut": str(CutCheck.of(known.values())) if known else None,
        "free": dict(Counter(network.cut.free.values())),
        "widths": dict(widths),
    }


def memory(network: "Network", widths: Mapping[str, int], runtime: str, precision: str) -> dict[str, Any]:
    """The network's memory as a runtime lays it out in a precision, as plain JSON.

    Raises:
        BackendError: there is no such runtime.
    """
    found = network.liveness(runtime, precision).at(widths).to_json()
    return found | {"memory_of": runtime, "memory_precision": precision}


def predict_at(
    network: "Network",
    widths: Mapping[str, int],
    rows: LatencyTable,
    progress: "Progress",
    *,
    gone: Sequence["Block"] = (),
    stay: Collection[str] = (),
    compiled: bool,
    check: bool,
) -> tuple[Prediction, Forms, dict[str, Any]]:
    """Predict the network at these widths, and with `check` measure it too.

    Args:
        network: the unpruned one.
        widths: channels kept.
        rows: the table.
        progress: told of each step.
        gone: blocks that are there no more.
        stay: names of groups that were kept whole, for which no module is run as a program.
        compiled: have the table's runtime compile the network, where it is here, to know its kernels.
        check: measure the whole network on the table's own device.

    Returns:
        The prediction, what the runtime makes of the units where it was compiled, what was measured, and what blocks
        that are gone left behind.

    Raises:
        TableError: it is to be measured, and this machine is not the table's device.
        BackendError: the runtime cannot measure it.
    """
    from profiler.forms import compile_forms, runs_here
    from profiler.leftovers import standing
    from profiler.progress import Event
    from profiler.variants import prepare
    from profiler.worker_client import WorkerClient

    forms: Forms = {}
    measured: dict[str, Any] = {}
    compiled = compiled and runs_here(rows.fingerprint)
    if compiled or check:
        with WorkerClient(rows.fingerprint.runtime, threads=rows.fingerprint.threads or 1) as worker:
            if check:
                _same_device(rows, worker.fingerprint())
            progress(Event("export the network", 0, 1))
            variants = prepare(network, stay=stay)
            progress(Event("export the network", 1, 1))
            forms = compile_forms(variants, widths, worker, blocks=gone) if compiled else {}
        if check:
            measured = _measure_whole(variants, widths, gone, rows, progress)
    stood, before = standing(network, gone).priced(lambda unit: unit.family in rows)
    forms = stood.forms(forms)
    found = predict(
        network.units,
        widths,
        rows,
        forms=forms,
        gone=stood.gone,
        left=stood.left,
        network=network.hash,
        allow_missing=True,
    )
    if gone:
        priced = [unit.name for unit in stood.left if unit.family in rows]
        measured["left_by_blocks"] = {
            "priced": priced,
            "priced_as_before": list(before),
            "missing": [unit.name for unit in stood.left if unit.name not in priced],
        }
    return found, forms, measured


def _measure_whole(
    variants: "Variants",
    widths: Mapping[str, int],
    gone: Sequence["Block"],
    rows: LatencyTable,
    progress: "Progress",
) -> dict[str, Any]:
    from profiler.export import write_onnx
    from pruner.deploy import measure

    backend, threads = rows.fingerprint.runtime, rows.fingerprint.threads or 1
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "network.onnx")
        write_onnx(variants.at(variants.widths_removal(widths), gone), path)
        found = measure(path, backend=backend, threads=threads, progress=progress)
    return {
        "measured_ms": found.measured_ms,
        "noise": found.noise,
        "samples": found.samples,
        "discarded": found.discarded,
    }


def _same_device(rows: LatencyTable, here: DeviceFingerprint) -> None:
    differences = rows.fingerprint.differences(here)
    if differences:
        told = "; ".join(f"{name} {mine} there, {other} here" for name, mine, other in differences)
        raise TableError(
            f"{rows.name} was measured on another device or runtime: {told}.\n"
            "Run --check there, or choose another fingerprint of the table"
        )


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
