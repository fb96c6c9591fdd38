"""`latprune table`: what a table file holds. Runs without torch."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lut import DeviceFingerprint, Measurement, NetworkMeasurement, TableError, TableFile, UnitFamily
from pruner.commands.options import (
    Capability,
    ChosenBackend,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Json,
    Selection,
)
from pruner.commands.output import make_table, print_json, results
from pruner.commands.progress import working
from pruner.show import NOTHING, format_percent

SHOWN = 25
"""Families shown without `--all`."""

table = typer.Typer(help="What a table file holds.", no_args_is_help=True)


@table.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="T.db", help="The table's file.", show_default=False)],
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    precision: ChosenPrecision = None,
    threads: ChosenThreads = None,
    every: Annotated[bool, typer.Option("--all", help="Show every family, not those with most rows alone.")] = False,
    json: Json = False,
) -> None:
    """Fingerprints, families with their rows, coverage and noise, and what failed."""
    chosen = Selection(backend, device, compute_capability, precision, threads)
    with working():
        contents = read(path, chosen)
    if json:
        print_json({"table": str(path), "fingerprints": contents})
    else:
        _show(contents, every=every)


def read(path: Path, chosen: Selection) -> list[dict[str, Any]]:
    """What a file holds under each fingerprint that was chosen, as plain JSON.

    Raises:
        TableError: the file cannot be read, or none of its fingerprints fits.
    """
    with TableFile(path) as file:
        held = file.fingerprints()
        found = [
            describe(fingerprint, _of_precision(file.measurements(fingerprint), chosen), file.networks(fingerprint))
            for fingerprint in held
            if _fits(fingerprint, chosen)
        ]
    if held and not found:
        raise TableError(f"no fingerprint in {path} fits; it holds: {'; '.join(map(str, held))}.\nChoose one of them")
    return found


def describe(
    fingerprint: DeviceFingerprint, rows: Sequence[Measurement], networks: Sequence[NetworkMeasurement]
) -> dict[str, Any]:
    """One fingerprint's rows in figures."""
    by_family: dict[UnitFamily, list[Measurement]] = defaultdict(list)
    for row in rows:
        by_family[row.spec.family].append(row)
    families = [_describe_family(family, own) for family, own in by_family.items()]
    families.sort(key=lambda family: (-family["rows"], family["family"]))
    return {
        "fingerprint": fingerprint.to_json(),
        "name": str(fingerprint),
        "rows": len(rows),
        "failures": sum(family["failures"] for family in families),
        "failed_because": dict(Counter(_reason(row) for row in rows if _failed(row)).most_common()),
        "discarded": sum(row.discarded for row in rows),
        "noise": _median([row.noise for row in rows if not _failed(row)]),
        "networks": len(networks),
        "network_failures": sum(row.failure is not None for row in networks),
        "networks_noise": _median([row.noise for row in networks if row.failure is None]),
        "families": families,
    }


def _describe_family(family: UnitFamily, rows: Sequence[Measurement]) -> dict[str, Any]:
    good = [row for row in rows if not _failed(row)]
    columns = list(zip(*(row.spec.channels for row in good), strict=True))
    return {
        "family": str(family),
        "key": family.key,
        "rows": len(rows),
        "points": len({row.spec.channels for row in good}),
        "channels": [[min(column), max(column)] for column in columns],
        "noise": _median([row.noise for row in good]),
        "failures": len(rows) - len(good),
        "in_place": sum(row.place == "in place" for row in good),
    }


def _fits(fingerprint: DeviceFingerprint, chosen: Selection) -> bool:
    return (
        chosen.backend in (None, fingerprint.runtime)
        and (chosen.device is None or chosen.device.lower() in fingerprint.device.lower())
        and chosen.one_capability() in (None, fingerprint.compute_capability)
        and chosen.threads in (None, fingerprint.threads)
    )


def _of_precision(rows: Sequence[Measurement], chosen: Selection) -> list[Measurement]:
    return [row for row in rows if chosen.precision in (None, row.spec.family.precision)]


def _failed(row: Measurement) -> bool:
    return row.failure is not None or row.median_ms is None


def _reason(row: Measurement) -> str:
    return (row.failure or "no time").splitlines()[0]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _show(contents: Sequence[dict[str, Any]], *, every: bool) -> None:
    console = results()
    if not contents:
        console.print("The table holds no measurement yet.")
    for content in contents:
        families = content["families"]
        shown = families if every else families[:SHOWN]
        rest = len(families) - len(shown)
        table = make_table(
            f"{content['name']}",
            *("family", "rows", "points", "channels measured", "noise", "failed"),
            right=(1, 2, 4, 5),
        )
        for family in shown:
            ranges = " → ".join(f"{low}–{high}" if low < high else f"{low}" for low, high in family["channels"])
            noise = format_percent(family["noise"])
            failures = str(family["failures"] or "")
            table.add_row(
                family["family"], str(family["rows"]), str(family["points"]), ranges or NOTHING, noise, failures
            )
        console.print(table)
        if rest:
            console.print(f"and {rest} families more (--all shows them)")
        console.print(
            f"{content['rows']} rows of {len(families)} families, {content['failures']} failed, noise "
            f"{format_percent(content['noise'])}, {content['discarded']} samples discarded; "
            f"{content['networks']} whole networks, {content['network_failures']} failed, noise "
            f"{format_percent(content['networks_noise'])}"
        )
        for reason, count in content["failed_because"].items():
            console.print(f"  failed {count} times: {reason}")
