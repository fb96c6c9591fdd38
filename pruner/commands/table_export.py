"""`latprune table export`: a table's rows as CSV or Parquet, for other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pruner.commands.options import (
    Capability,
    ChosenBackend,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Json,
    Selection,
)
from pruner.commands.output import print_json, results
from pruner.commands.progress import working
from pruner.commands.table_show import choose
from pruner.flat import check_target, network_columns, unit_columns, write_columns


def export_table(
    path: Annotated[Path, typer.Argument(metavar="T.db", help="The table's file.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Rows of units: .csv or .parquet.", show_default=False)
    ],
    networks: Annotated[
        Path | None, typer.Option("--networks", metavar="FILE", help="Rows of whole networks too: .csv or .parquet.")
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="With raw samples, as a list in JSON.")] = False,
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    precision: ChosenPrecision = None,
    threads: ChosenThreads = None,
    json: Json = False,
) -> None:
    """Write one line a measurement, failures too, with all that the table holds in plain columns.

    The fingerprint (`fingerprint` is its key), the family (text, key and parts), the channel counts `c0`, `c1` …,
    median in ms, noise (a fraction), place, memory in bytes, failure, and how it was measured (`config_…`). What has
    parts (shapes, settings, widths) is JSON. An existing FILE is replaced, whole or not at all.
    """
    chosen = Selection(backend, device, compute_capability, precision, threads)
    for target in (out, networks):
        if target is not None:
            check_target(target)
    with working():
        contents = choose(path, chosen)
        written = {"units": (out, unit_columns(contents, samples=samples))}
        if networks is not None:
            written["networks"] = networks, network_columns(contents, samples=samples)
        for file, columns in written.values():
            write_columns(columns, file)
    counts: dict[str, dict[str, Any]] = {
        what: {"file": str(file), "rows": len(columns[0].values), "columns": [each.name for each in columns]}
        for what, (file, columns) in written.items()
    }
    if json:
        print_json({"table": str(path)} | counts)
        return
    for what, count in counts.items():
        extent = f"{count['rows']} rows of {what}, {len(count['columns'])} columns"
        results().print(f"{count['file']}: {extent}", soft_wrap=True)
