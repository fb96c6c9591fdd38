"""`latprune profile` with a runtime that compiles ahead of time: the memory of a network, with no device at hand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.commands.options import analyze_task, capabilities
from pruner.commands.output import make_table, print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.progress import duration, working
from pruner.show import format_mb, format_percent

if TYPE_CHECKING:
    from pruner.task import Task


@dataclass(frozen=True)
class AheadLimits:
    """How much to compile: see `latprune profile --help`."""

    networks: int
    target_error: float
    max_seconds: float | None
    seed: int


def compiled_for(backend: str, device: str | None, compute_capability: str | None) -> tuple[str, ...] | None:
    """What a runtime compiles for with no such device at hand; None where it is to measure this machine.

    Raises:
        OptionError: a capability is none, or is given twice over.
        BackendError: the device's name is not known.
    """
    from profiler.backends import BACKENDS
    from profiler.nvml import read_gpu

    abilities = next((each.status().abilities for each in BACKENDS if each.name == backend), ())
    if "builds" not in abilities:
        return None
    wanted = capabilities(device, compute_capability)
    gpu = read_gpu()
    here = gpu is not None and wanted in ((), (gpu.compute_capability,))
    return None if here and {"measures", "times nodes"} & set(abilities) else wanted


def profile_memory(
    task: "Task",
    table: Path,
    backend: str,
    wanted: Sequence[str],
    precision: str,
    limits: AheadLimits,
    *,
    json: bool,
) -> None:
    """Fill the table for each capability and print what came of it.

    Raises:
        OptionError: no compute capability is named.
        BackendError: the network cannot be compiled for one of them.
    """
    if not wanted:
        raise OptionError(
            f"{backend} compiles for a device that is not here.\nSay which: --compute-capability 8.6, or --device NAME"
        )
    with working() as progress:
        from pruner.deploy import TARGETS

        for capability in wanted if backend in TARGETS else ():
            TARGETS[backend](capability)
        from profiler.ahead import Compiler, Target, as_precision
        from profiler.ahead_profile import AheadConfig, profile_ahead
        from profiler.export import flat_arrays, lively

        network = analyze_task(task)
        inputs = flat_arrays(lively(network.inputs))
        config = AheadConfig(
            networks_min=min(AheadConfig().networks_min, limits.networks),
            networks_max=limits.networks,
            target_error=limits.target_error,
            max_time_s=limits.max_seconds,
            seed=limits.seed,
        )
        reports = []
        for capability in wanted:
            with Compiler(Target(backend, capability, as_precision(precision)), inputs) as compiler:
                reports.append(profile_ahead(network, table, compiler, config=config, progress=progress))
    if json:
        print_json({"table": str(table), "ahead_of_time_bounds": [_plain(report) for report in reports]})
        return
    for report in reports:
        _show(report, table)


def _plain(report: Any) -> dict[str, Any]:
    return asdict(report) | {"unpruned": report.unpruned.to_json()}


def _show(report: Any, path: Path) -> None:
    console = results()
    table = make_table("", "", "", right=(1,))
    table.show_header = False
    bound = report.unpruned
    table.add_row("variants compiled now", str(report.compiled))
    table.add_row("from before", str(report.reused))
    table.add_row("failed", str(report.failed))
    table.add_row("units compiled alone", str(report.units))
    table.add_row("off what was told before compiling", format_percent(report.error))
    table.add_row("unpruned network, ahead-of-time bound", format_mb(bound.total_bytes))
    table.add_row("  weights", format_mb(bound.weights_bytes))
    table.add_row("  activations", format_mb(bound.activation_bytes - bound.workspace_bytes))
    table.add_row("  workspace", format_mb(bound.workspace_bytes))
    table.add_row("inputs and outputs, apart", format_mb(bound.io_bytes))
    table.add_row("time taken", duration(report.seconds))
    console.print(table)
    console.print(f"stopped: {report.stopped_because}")
    for failure in report.failures:
        console.print(f"failed: {failure}", markup=False)
    console.print(f"{path}: {report.fingerprint} (memory alone; no latencies)")
