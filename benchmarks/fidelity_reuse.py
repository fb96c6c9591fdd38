"""What the others' rows are worth to a network of which little is measured yet; from stored tables, nothing is timed.

`python -m benchmarks.fidelity_reuse NETWORK RUNTIME --store FOLDER`, after the cells of `fidelity_cell`: the held-out
vectors of the network's cell are predicted from its first few networks, as profiling stored them, with and without the
tables of all other networks.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity_cell import parse_cell
from benchmarks.fidelity_figures import judge, truths
from benchmarks.fidelity_networks import make_network
from benchmarks.fidelity_store import Cell, Reuse, Vector, path_of, read_cell, read_setting, table_of, write_cell
from benchmarks.fidelity_transfer import others_tables
from lut import LatencyTable, Predictor, TableFile
from lut.errors import MissingFamilyError, TableError
from lut.records import DeviceFingerprint, Measurement, NetworkMeasurement
from profiler.network import Network, analyze

FIRST = (0, 1, 2, 4, 8)
"""After how many of the network's own measured networks it is predicted; the first of them is the unpruned one."""

Rows = tuple[list[Measurement], list[NetworkMeasurement]]


def measure_reuse(name: str, runtime: str, store: Path) -> Reuse:
    """Predict a cell's vectors again from less than its whole table, alone and beside the others' rows.

    Raises:
        TableError: the cell was not run, or there is no other table.
    """
    stored = read_cell(path_of(store, name, runtime), Cell)
    others = others_tables(store, name, runtime)
    if stored is None or not stored[1].vectors or not others:
        raise TableError(
            f"{name} on {runtime} was not run in {store}, or no other network was.\nRun make fidelity first"
        )
    model, picture = make_network(name)
    network = analyze(model, (picture,))
    fingerprint, own = read_rows(table_of(store, name, runtime))
    theirs = [read_rows(path)[1] for path in others.values()]
    beside = [row for rows, _ in theirs for row in rows], [row for _, networks in theirs for row in networks]
    reuse = Reuse(list(others))
    for count in FIRST:
        if count <= len(own[1]):
            rows, networks = first_of(own, count)
            reuse.after.append(count)
            reuse.alone.append(_error(network, fingerprint, (rows, networks), stored[1].vectors))
            joined = (beside[0] + rows, beside[1] + networks)
            reuse.beside.append(_error(network, fingerprint, joined, stored[1].vectors))
    return reuse


def read_rows(path: Path) -> tuple[DeviceFingerprint, Rows]:
    """A cell's table: its device, and what was measured without failing, in order.

    Raises:
        TableError: it has rows of several devices.
    """
    with TableFile(path) as file:
        found = list(file.fingerprints())
        if len(found) != 1:
            raise TableError(f"{path} has rows of {len(found)} devices, and not of one.\nMeasure the cell anew")
        networks = [row for row in file.networks(found[0]) if row.failure is None]
        return found[0], (list(file.measurements(found[0])), networks)


def first_of(rows: Rows, count: int) -> Rows:
    """The first measured networks with the units' rows that they brought."""
    networks = rows[1][:count]
    return rows[0][: sum(len(network.forms) for network in networks)], networks


def _error(network: Network, fingerprint: DeviceFingerprint, rows: Rows, vectors: Sequence[Vector]) -> float | None:
    """Mean absolute error over the vectors, or None while a family has no row."""
    table = LatencyTable(fingerprint, rows[0], networks=rows[1])
    try:
        predictor = Predictor(network.units, table, network=network.hash)
    except MissingFamilyError:
        return None
    found = predictor.latencies_ms([vector.widths for vector in vectors])
    return judge(list(found), truths(vectors)).mae


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the cell that the command line names, and keep it."""
    options, setting = parse_cell(arguments), read_setting()
    found = measure_reuse(options.network, options.runtime, options.store)
    write_cell(path_of(options.store, options.network, options.runtime, Reuse), found, setting)


if __name__ == "__main__":
    main()
