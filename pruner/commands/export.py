"""`latprune export`: write the engine for deployment."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pruner.commands.options import Capability, Device, Json, Precision, capabilities
from pruner.commands.output import make_table, print_json, results
from pruner.commands.progress import duration, working
from pruner.show import format_mb


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN/", help="A run's directory.", show_default=False)],
    backend: Annotated[str, typer.Option("--backend", help="The runtime that compiles it.", show_default=False)],
    precision: Precision = "fp32",
    compute_capability: Capability = None,
    device: Device = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The engine [default: in RUN/].")] = None,
    json: Json = False,
) -> None:
    """Write the pruned network's engine for a device, which need not be here."""
    built_for = capabilities(device, compute_capability)
    with working() as progress:
        from pruner.deploy import export_run

        more: dict[str, Any] = {"compute_capabilities": built_for} if built_for else {}
        report = export_run(run, backend=backend, precision=precision, out=out, progress=progress, **more)
    found = report.to_json()
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    console = results()
    table = make_table("", "", "")
    table.show_header = False
    table.add_row("file", found["path"])
    table.add_row(
        "made for", " ".join([found["backend"], found["precision"], ", ".join(found["compute_capabilities"])])
    )
    table.add_row("size", format_mb(found["file_bytes"]))
    if found["kernels"]:
        table.add_row("kernels", str(found["kernels"]))
        table.add_row("built in", duration(found["seconds"]))
    for key, size in found["ahead_of_time_bound"].items():
        if size is not None:
            table.add_row(f"{key.removesuffix('_bytes')}, as the compiler bounds it ahead of time", format_mb(size))
    console.print(table)
    for warning in found["warnings"]:
        console.print(f"the compiler warns: {warning}", soft_wrap=True)
