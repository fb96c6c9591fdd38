"""`latprune table merge`: join tables, rows of one device with rows of the same device only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lut.merge import Conflict, MergeReport, merge
from profiler.progress import Event
from pruner.commands.options import Json
from pruner.commands.output import complain, make_table, print_json, results
from pruner.commands.progress import working


def merge_tables(
    paths: Annotated[list[Path], typer.Argument(metavar="A.db B.db …", help="Table files.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="C.db", help="A new file, or one of the tables to extend.", show_default=False),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="KEY", help="Take this fingerprint alone (its key's beginning); repeatable."),
    ] = None,
    allow_conflicts: Annotated[
        bool, typer.Option("--allow-conflicts", help="Join rows of one fingerprint that contradict each other.")
    ] = False,
    json: Json = False,
) -> None:
    """Write one table with the rows of all.

    `--out` is a new file, and the tables are left as they are. Or it is one of the tables: that one gets the others'
    rows (profilers may go on writing to it). Another file that is there is never overwritten.

    Rows join only under equal fingerprints; different fingerprints stay side by side in the file, never mixed.
    Identical rows are taken once. Where two tables of equal fingerprints contradict each other (over the specs that
    both hold, times differ by a factor of more than 5 %, or singly by more than noise explains) nothing is written,
    and the command ends with 2. All is written, or nothing.
    """
    with working() as progress:
        report = merge(
            paths,
            out,
            only=only or (),
            allow_conflicts=allow_conflicts,
            progress=lambda done, path: progress(Event("merge tables", done, note=str(path))),
        )
    for conflict in report.conflicts:
        complain(f"conflict allowed: {conflict}")
    if json:
        print_json(describe(report))
    else:
        _show(report)


def describe(report: MergeReport) -> Mapping[str, Any]:
    """What was merged, as plain JSON."""
    return {
        "out": str(report.out),
        "extended": report.extended,
        "files": report.files,
        "fingerprints": [{"key": found.key, "name": str(found)} for found in report.fingerprints],
        "conflicts": [_describe(conflict) for conflict in report.conflicts],
    }


def _describe(conflict: Conflict) -> dict[str, Any]:
    found = conflict.comparison
    return {
        "fingerprint": conflict.fingerprint.key,
        "path": str(conflict.path),
        "what": conflict.what,
        "count": found.count,
        "ratio": found.ratio,
        "spread": found.spread,
        "beyond_noise": len(found.beyond),
        "examples": [{"what": what, "before_ms": old, "here_ms": new} for what, old, new in conflict.examples],
    }


def _show(report: MergeReport) -> None:
    console = results()
    table = make_table(
        "", "table", "rows of units added", "whole networks added", "there already", "fingerprints", right=(1, 2, 3)
    )
    for file in report.files:
        counts = (file.rows, file.networks, file.identical)
        table.add_row(str(file.path), *map(str, counts), ", ".join(file.fingerprints))
    console.print(table)
    what = "extended" if report.extended else "written"
    count = len(report.fingerprints)
    held = f"{count} fingerprints, side by side" if count != 1 else "one fingerprint"
    console.print(f"{report.out} {what}: {held}", soft_wrap=True)
    for found in report.fingerprints:
        console.print(f"  {found.key}  {found}", soft_wrap=True)
