"""`latprune export`: write the engine for deployment."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pruner.commands.options import Capability, Device, Json, Precision, capabilities
from pruner.commands.output import complain, make_table, print_json, results
from pruner.commands.progress import working
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
    failed = [check["name"] for check in found.get("checks", ()) if not check["passed"]]
    if failed:
        complain(f"the goal was missed: {', '.join(failed)}")
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    console = results()
    table = make_table("", "", "", right=())
    table.show_header = False
    for name, value in found.items():
        if isinstance(value, int) and name.endswith("_bytes"):
            table.add_row(_words(name.removesuffix("_bytes")), format_mb(value))
        elif isinstance(value, list | tuple):
            if all(isinstance(item, str) for item in value):
                table.add_row(_words(name), "\n".join(value) if name == "warnings" else ", ".join(value))
            else:
                table.add_row(_words(name), str(len(value)))
        elif isinstance(value, float):
            table.add_row(_words(name), f"{value:.3g}")
        elif value is not None and not isinstance(value, dict):
            table.add_row(_words(name), str(value))
    console.print(table)


def _words(name: str) -> str:
    return name.replace("_", " ")
