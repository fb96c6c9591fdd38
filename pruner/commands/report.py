"""`latprune report`: a finished run as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from pruner.commands.options import Json
from pruner.commands.output import print_json, results
from pruner.commands.progress import working


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN/", help="A run's directory.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file [default: report.html in RUN/].")
    ] = None,
    json: Json = False,
) -> None:
    """Write what a finished run was asked for and what came of it into one HTML file; it fetches nothing."""
    with working():
        from pruner.report import write_report

        path = write_report(run, out)
    if json:
        print_json({"file": path})
    else:
        results().print(f"{path}: the report", soft_wrap=True)
