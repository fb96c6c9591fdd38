"""`latprune table recheck`: whether a table's rows still hold after an update of the driver or the runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lut import DeviceFingerprint, TableFile
from pruner.commands.options import (
    Batch,
    Capability,
    ChosenBackend,
    ChosenThreads,
    Device,
    Input,
    Json,
    Selection,
    TaskSpec,
    analyze_task,
    find_task,
)
from pruner.commands.output import complain, make_table, print_json, results
from pruner.commands.progress import working
from pruner.commands.table_show import fits
from pruner.show import format_ms

if TYPE_CHECKING:
    from profiler.recheck import RecheckReport


def recheck(
    path: Annotated[Path, typer.Argument(metavar="T.db", help="The table's file.", show_default=False)],
    task: TaskSpec,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="If the rows hold, copy them under this machine's fingerprint, marked.")
    ] = False,
    key: Annotated[
        str | None, typer.Option("--fingerprint", metavar="KEY", help="The fingerprint to check (its key's beginning).")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=5, help="Units' rows that are compared.")] = 20,
    networks: Annotated[int, typer.Option("--networks", min=1, help="Whole networks that are run.")] = 4,
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    threads: ChosenThreads = None,
    input: Input = None,
    batch: Batch = None,
    json: Json = False,
) -> None:
    """Time 20 rows anew on this machine, and say whether the rest still holds: after a new driver or runtime.

    Rows are times inside whole networks, so TASK (one that the table was profiled with) is run again at 4 of the widths
    that the table holds; 20 of its units, spread over cost, are compared. The verdict is "holds", "holds up to a
    factor", "does not hold" or "cannot be told". The table is not changed, unless by `--adopt`: if the rows hold, they
    are copied under the new fingerprint, marked (they have no samples of their own) and less certain by the spread
    that was found. Ends with 0 if the rows hold, with 1 if not.
    """
    chosen = Selection(backend, device, compute_capability, None, threads)

    def wanted(fingerprint: DeviceFingerprint) -> bool:
        return fits(fingerprint, chosen) and fingerprint.key.startswith(key or "")

    with working() as progress:
        TableFile(path).close()  # before the network is traced, which takes longer
        from profiler.recheck import RecheckConfig, adopt_rows
        from profiler.recheck import recheck as run

        network = analyze_task(find_task(task, input, batch))
        config = RecheckConfig(rows=rows, networks=networks)
        report = run(network, path, fits=wanted, config=config, progress=progress)
        holds = report.verdict.kind == "holds"
        adopted = adopt_rows(path, report) if adopt and holds and report.old != report.new else 0
    if json:
        print_json(describe(report) | {"adopted": adopted})
    else:
        _show(report)
    if adopted:
        complain(
            f"{adopted} rows of {report.old.key} were adopted under {report.new.key}; {path} holds both.\n"
            f"Take the new ones out: latprune table merge {path} --only {report.new.key} --out NEW.db"
        )
    elif adopt:
        why = "the fingerprint is the same" if holds else "the rows do not hold"
        complain(f"nothing was adopted: {why}")
    if not holds:
        raise typer.Exit(1)


def describe(report: "RecheckReport") -> dict[str, Any]:
    """What was found, as plain JSON."""
    found, pairs = report.verdict.comparison, report.pairs
    return {
        "verdict": report.verdict.kind,
        "because": report.verdict.because,
        "old": report.old.to_json() | {"key": report.old.key},
        "new": report.new.to_json() | {"key": report.new.key},
        "differences": [
            {"field": name, "old": mine, "new": other} for name, mine, other in report.old.differences(report.new)
        ],
        "ratio": found.ratio,
        "ratio_error": found.ratio_error,
        "spread": found.spread,
        "compared": found.count,
        "within_noise": found.within,
        "within_noise_of_ratio": found.within_factor,
        "rows": [
            {
                "family": str(spec.family),
                "channels": spec.channels,
                "old_ms": old,
                "new_ms": new,
                "ratio": new / old,
                "noise": noise,
            }
            for spec, old, new, noise in zip(report.specs, pairs.old_ms, pairs.new_ms, pairs.deviation, strict=True)
        ],
        "networks": {"compared": report.networks.count, "ratio": report.networks.ratio},
        "held_rows": report.rows,
        "held_networks": report.whole,
        "seconds": report.seconds,
    }


def _show(report: "RecheckReport") -> None:
    console = results()
    found = describe(report)
    table = make_table("units timed anew", "family", "channels", "old", "new", "ratio", "noise", right=(2, 3, 4, 5))
    for row in found["rows"]:
        table.add_row(
            row["family"],
            " → ".join(map(str, row["channels"])),
            format_ms(row["old_ms"]),
            format_ms(row["new_ms"]),
            f"{row['ratio']:.3f}",
            f"± {100 * row['noise']:.1f} %",
        )
    console.print(table)
    console.print(f"old fingerprint {report.old.key}: {report.old}")
    changes = [f"{one['field'].replace('_', ' ')}: {one['old']} → {one['new']}" for one in found["differences"]]
    for change in changes or ["nothing that the fingerprint tells has changed since"]:
        console.print(f"  {change}", soft_wrap=True)
    console.print(
        f"new over old: median {found['ratio']:.3f} ± {100 * found['ratio_error']:.1f} %, spread "
        f"{100 * found['spread']:.1f} %; {found['within_noise']} of {found['compared']} within noise; "
        f"{found['networks']['compared']} whole networks: {found['networks']['ratio']:.3f}"
    )
    console.print(f"verdict: {report.verdict.kind}: {report.verdict.because}", soft_wrap=True)
    console.print(_advice(report), soft_wrap=True)


def _advice(report: "RecheckReport") -> str:
    held = f"the {report.rows} rows of units and {report.whole} of whole networks"
    if report.verdict.kind == "holds":
        same = report.old == report.new
        return f"{held} may be used as they are" if same else f"{held} may be adopted under {report.new.key}: --adopt"
    if report.verdict.kind == "holds up to a factor":
        return f"{held} keep their order, but not their times: a budget in percent stands, one in ms does not"
    return f"{held} say little about this machine now: measure again (latprune profile)"
