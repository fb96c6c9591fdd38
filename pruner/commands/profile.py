"""`latprune profile`: build or extend the table of this device."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lut import BackendError
from profiler.backends import get_backend
from pruner.commands.ahead import AheadLimits, compiled_for, profile_memory
from pruner.commands.options import (
    BackendName,
    Batch,
    Capability,
    Device,
    Input,
    Json,
    Precision,
    Selection,
    TablePath,
    TaskSpec,
    Threads,
    analyze_task,
    find_task,
)
from pruner.commands.output import make_table, print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.progress import duration, working
from pruner.show import format_ms, format_percent


def profile(
    task: TaskSpec,
    table: TablePath,
    backend: BackendName = "onnxruntime",
    device: Device = None,
    compute_capability: Capability = None,
    precision: Precision = "fp32",
    threads: Threads = 1,
    input: Input = None,
    batch: Batch = None,
    networks: Annotated[int, typer.Option("--networks", min=1, help="Measure at most so many variants.")] = 60,
    target_error: Annotated[
        float, typer.Option("--target-error", min=0.0, help="Stop at this held-out error (a fraction).")
    ] = 0.015,
    max_seconds: Annotated[float | None, typer.Option("--max-seconds", min=0.0, help="Stop after this time.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the widths that are measured.")] = 0,
    json: Json = False,
) -> None:
    """Measure what the network's pieces cost on this device, at the widths that pruning could leave.

    A runtime that compiles with no device at hand, such as tensorrt-rtx, tells memory instead, for the
    --compute-capability and --precision named: rows under a fingerprint of their own, without latencies.
    """
    wanted = compiled_for(backend, device, compute_capability)
    if wanted is not None:
        limits = AheadLimits(networks, target_error, max_seconds, seed)
        profile_memory(find_task(task, input, batch), table, backend, wanted, precision, limits, json=json)
        return
    if precision != "fp32":
        raise OptionError(
            f"--precision {precision}: only fp32 networks are measured so far.\nLeave it out, or say fp32"
        )
    with working() as progress:
        _check_device(backend, threads, Selection(device=device, compute_capability=compute_capability))
        from profiler.profile import ProfileConfig
        from profiler.profile import profile as run

        network = analyze_task(find_task(task, input, batch))
        least = min(ProfileConfig().networks_min, networks)
        config = ProfileConfig(
            threads=threads,
            networks_min=least,
            networks_max=networks,
            target_error=target_error,
            max_time_s=max_seconds,
            seed=seed,
        )
        report = run(network, table, backend=backend, config=config, progress=progress)
    if json:
        print_json(asdict(report) | {"table": str(table)})
    else:
        _show(report, table)


def _check_device(backend: str, threads: int, selection: Selection) -> None:
    """Refuse a runtime that measures nothing here, and another device: a table holds what was measured."""
    status = get_backend(backend).status()
    if not {"times nodes", "measures"} & set(status.abilities):
        raise BackendError(status.why_not or f"The backend {backend} measures nothing on this machine.")
    wanted = selection.one_capability()
    if selection.device is None and wanted is None:
        return
    from profiler.worker_client import WorkerClient

    with WorkerClient(backend, threads=threads) as worker:
        here = worker.fingerprint()
    fits = selection.device is None or selection.device.lower() in here.device.lower()
    if not fits or wanted not in (None, here.compute_capability):
        asked = selection.device or f"compute capability {wanted}"
        raise BackendError(f"profile measures on this machine, which is {here}, not {asked}.\nRun it on that device")


def _show(report: Any, path: Path) -> None:
    console = results()
    table = make_table("", "", "", right=(1,))
    table.show_header = False
    table.add_row("variants measured now", str(report.measured))
    table.add_row("from before", str(report.reused))
    table.add_row("failed", str(report.failed))
    table.add_row("rows in the table", str(report.rows))
    table.add_row("held-out error at stepped widths", format_percent(report.error))
    table.add_row("held-out error at free widths", format_percent(report.error_free))
    table.add_row("unpruned network, predicted", format_ms(report.predicted_ms))
    table.add_row("unpruned network, measured", format_ms(report.measured_ms, report.noise))
    table.add_row("time taken", duration(report.seconds))
    console.print(table)
    console.print(f"stopped: {report.stopped_because}")
    if report.cut:
        console.print(str(report.cut))
    if report.packed:
        console.print(str(report.packed), markup=False)
    if report.anew_because:
        console.print(f"each variant was exported anew, which is slow: {report.anew_because}")
    console.print(f"{path}: {report.fingerprint}")
