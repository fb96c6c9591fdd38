"""`latprune table show`: what a table file holds: fingerprints, families, coverage, noise, failures."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lut import DeviceFingerprint, Measurement, NetworkMeasurement, TableError, TableFile, UnitFamily
from lut.recheck import is_adopted
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
from pruner.flat import Content
from pruner.show import NOTHING, format_mb, format_percent

SHOWN = 25
"""Families shown without `--all`."""


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
    """Fingerprints with their settings, families with rows, coverage and noise, and what failed.

    A family is what pruning leaves alone of a unit; `points` are the distinct channel counts at which it was measured,
    and `in place` is the share of times taken inside a whole network's run (the others were measured alone).
    """
    chosen = Selection(backend, device, compute_capability, precision, threads)
    with working():
        contents = [describe(*content) for content in choose(path, chosen)]
    if json:
        print_json({"table": str(path), "fingerprints": contents})
    else:
        _show(contents, every=every)


def choose(path: Path, chosen: Selection) -> list[Content]:
    """Each fingerprint that was chosen with its rows of units (of the precision, if one was) and of whole networks.

    Raises:
        TableError: the file cannot be read, or none of its fingerprints fits.
    """
    with TableFile(path) as file:
        held = file.fingerprints()
        found: list[Content] = [
            (fingerprint, _of_precision(file.measurements(fingerprint), chosen), file.networks(fingerprint))
            for fingerprint in held
            if fits(fingerprint, chosen)
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
    names = tell_apart(by_family)
    families = [_describe_family(family, own) | {"family": names[family]} for family, own in by_family.items()]
    families.sort(key=lambda family: (-family["rows"], family["family"]))
    return {
        "fingerprint": fingerprint.to_json(),
        "name": str(fingerprint),
        "key": fingerprint.key,
        "rows": len(rows),
        "points": sum(family["points"] for family in families),
        "in_place": sum(family["in_place"] for family in families),
        "adopted": sum(is_adopted(row) for row in rows),
        "failures": sum(family["failures"] for family in families),
        "failed_because": dict(Counter(_reason(row) for row in rows if _failed(row)).most_common()),
        "discarded": sum(row.discarded for row in rows),
        "noise": _median([row.noise for row in rows if not _failed(row)]),
        "networks": len(networks),
        "network_failures": sum(row.failure is not None for row in networks),
        "networks_noise": _median([row.noise for row in networks if row.failure is None]),
        "ahead_of_time_bounds": _bounds(networks),
        "families": families,
    }


def _bounds(networks: Sequence[NetworkMeasurement]) -> list[dict[str, Any]]:
    """For each network of which a compiler told the memory: how often, and the largest and the least total."""
    totals: dict[str, list[int]] = defaultdict(list)
    for row in networks:
        if row.weights_bytes is not None and row.activation_bytes is not None:
            totals[row.network].append(row.weights_bytes + row.activation_bytes)
    return [
        {"network": network, "compiled": len(found), "largest_bytes": max(found), "least_bytes": min(found)}
        for network, found in totals.items()
    ]


def tell_apart(families: Iterable[UnitFamily]) -> dict[UnitFamily, str]:
    """A text for each family: where several read alike, with their outputs, and if need be with their keys."""
    known = list(families)
    forms: tuple[Callable[[UnitFamily], str], ...] = (
        str,
        lambda family: f"{family} → {' '.join('×'.join(map(str, shape)) for shape in family.outputs)}",
        lambda family: f"{family} [{family.key}]",
    )
    found: dict[UnitFamily, str] = {}
    for form in forms:
        left = [family for family in known if family not in found]
        texts = Counter(form(family) for family in left)
        found |= {family: form(family) for family in left if texts[form(family)] == 1}
    return found


def _describe_family(family: UnitFamily, rows: Sequence[Measurement]) -> dict[str, Any]:
    good = [row for row in rows if not _failed(row)]
    columns = list(zip(*(row.spec.channels for row in good), strict=True))
    return {
        "key": family.key,
        "rows": len(rows),
        "points": len({row.spec.channels for row in good}),
        "channels": [[min(column), max(column)] for column in columns],
        "noise": _median([row.noise for row in good]),
        "failures": len(rows) - len(good),
        "in_place": sum(row.place == "in place" for row in good),
    }


def fits(fingerprint: DeviceFingerprint, chosen: Selection) -> bool:
    """Whether the options of a command mean this fingerprint."""
    return (
        chosen.backend in (None, fingerprint.runtime)
        and (chosen.device is None or chosen.device.lower() in fingerprint.device.lower())
        and chosen.one_capability() in (None, fingerprint.compute_capability)
        and chosen.threads in (None, fingerprint.threads)
    )


def _of_precision(rows: Sequence[Measurement], chosen: Selection) -> list[Measurement]:
    return [row for row in rows if chosen.precision in (None, row.spec.family.precision)]


def _failed(row: Measurement) -> bool:
    return row.failure is not None or (row.median_ms is None and not row.memory_alone)


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
            content["name"],
            *("family", "rows", "points", "channels measured", "in place", "noise", "failed"),
            right=(1, 2, 4, 5, 6),
        )
        for family in shown:
            ranges = " → ".join(f"{low}–{high}" if low < high else f"{low}" for low, high in family["channels"])
            table.add_row(
                family["family"],
                str(family["rows"]),
                str(family["points"]),
                ranges or NOTHING,
                _share(family),
                format_percent(family["noise"]),
                str(family["failures"] or ""),
            )
        if families:
            console.print(table)
        else:
            console.print(content["name"], style="bold", markup=False)
        if rest:
            console.print(f"and {rest} families more (--all shows them)")
        console.print(
            f"{content['rows']} rows of {len(families)} families at {content['points']} points, {_share(content)} in "
            f"place, {content['failures']} failed, noise {format_percent(content['noise'])}, {content['discarded']} "
            f"samples discarded; {content['networks']} whole networks, {content['network_failures']} failed, noise "
            f"{format_percent(content['networks_noise'])}"
        )
        for bound in content["ahead_of_time_bounds"]:
            console.print(
                f"network {bound['network']}: compiled at {bound['compiled']} widths, ahead-of-time bound "
                f"{format_mb(bound['least_bytes'])} to {format_mb(bound['largest_bytes'])}"
            )
        if content["adopted"]:
            console.print(f"{content['adopted']} rows were adopted from another fingerprint (latprune table recheck)")
        for reason, count in content["failed_because"].items():
            console.print(f"  failed {count} times: {reason}")
        console.print(f"fingerprint {content['key']}: {fingerprint_line(content['fingerprint'])}")


def fingerprint_line(fingerprint: Mapping[str, Any]) -> str:
    """All of a fingerprint (as plain JSON) in one line, settings too; what is not known is left out."""
    plain = {name: value for name, value in fingerprint.items() if name != "settings" and value is not None}
    settings = dict(fingerprint["settings"])
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (plain | settings).items())


def _share(counts: Mapping[str, Any]) -> str:
    """Share of the rows with a time that were measured in place."""
    good = counts["rows"] - counts["failures"]
    return format_percent(counts["in_place"] / good if good else None)
