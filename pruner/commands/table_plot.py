"""`latprune table plot`: families' measured points and fitted surfaces with their steps, as a picture."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from lut import LatencyTable, TableError, UnitFamily
from pruner.commands.options import (
    Capability,
    ChosenBackend,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Json,
    Selection,
)
from pruner.commands.output import complain, print_json, results
from pruner.commands.progress import working
from pruner.commands.table_show import tell_apart

MOST = 8
"""Families in one picture."""


def plot(
    path: Annotated[Path, typer.Argument(metavar="T.db", help="The table's file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help=".png, .svg or .pdf.", show_default=False)],
    pattern: Annotated[
        str | None,
        typer.Option("--family", metavar="PATTERN", help="Part of a family's text ('*' for any) or key's beginning."),
    ] = None,
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    precision: ChosenPrecision = None,
    threads: ChosenThreads = None,
    json: Json = False,
) -> None:
    """Draw families: measured points and the fitted surface with its interval and steps.

    A row is a family, a panel one of its channel coordinates; with two or more, a curve follows one while the others
    stay at a few values. Full dots were measured on the curve, hollow ones beside it; solid lines are
    interpolated, dashed ones extrapolated; vertical lines mark the steps. At most 8 families, those with most points
    first. `latprune table show T.db` lists the families. Needs matplotlib (extra `plot`).
    """
    with working():
        from pruner.draw_surface import OPTION, save_surfaces
        from pruner.picture import check_picture

        check_picture(out, OPTION)
        table = Selection(backend, device, compute_capability, precision, threads).open(path)
        found = find_families(table, pattern)
        save_surfaces(table, found[:MOST], out)
    if len(found) > MOST:
        complain(f"{len(found) - MOST} of {len(found)} families are not drawn; choose with --family")
    drawn = [_describe(table, family, name) for family, name in found[:MOST]]
    if json:
        print_json({"file": str(out), "fingerprint": table.fingerprint.key, "families": drawn})
        return
    for one in drawn:
        steps = ", ".join(f"c{number} {step}" for number, step in enumerate(one["steps"])) or "none"
        results().print(f"{one['family']}: {one['points']} points, steps: {steps}", soft_wrap=True)
    results().print(f"{out}: {len(drawn)} families of {table.fingerprint}", soft_wrap=True)


def find_families(table: LatencyTable, pattern: str | None) -> list[tuple[UnitFamily, str]]:
    """Families whose text holds the pattern, or whose key begins with it, with their texts; most points first.

    Raises:
        TableError: there is none.
    """
    names = tell_apart(table.families)
    found = [
        (family, name)
        for family, name in names.items()
        if pattern is None or family.key.startswith(pattern) or fnmatchcase(name, f"*{pattern}*")
    ]
    if not found:
        some = "; ".join(list(names.values())[:3])
        raise TableError(
            f"no family of {table.name} fits --family {pattern!r}; there are {len(names)}, such as: {some}.\n"
            f"See them all: latprune table show {table.name} --all"
        )
    return sorted(found, key=lambda item: (-len(table.points(item[0]).ms), item[1]))


def _describe(table: LatencyTable, family: UnitFamily, name: str) -> Mapping[str, Any]:
    points = table.points(family)
    steps: Sequence[int] = [table.step(family, coordinate) for coordinate in range(points.channels.shape[1])]
    return {"family": name, "key": family.key, "points": len(points.ms), "steps": steps}
