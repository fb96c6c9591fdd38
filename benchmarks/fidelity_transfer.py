"""A second network with the table of the others present: profile it again into a table that has all the others' rows.

`python -m benchmarks.fidelity_transfer NETWORK RUNTIME --store FOLDER`, after the cells of `fidelity_cell`.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity_cell import limits_of, parse_cell, to_profiled
from benchmarks.fidelity_networks import UNSEEN, make_network
from benchmarks.fidelity_store import Transfer, path_of, read_setting, write_cell
from lut import LatencyTable, TableError, TableFile
from lut.merge import merge
from profiler.network import Network, analyze
from profiler.profile import ProfileConfig, profile


def others_tables(store: Path, name: str, runtime: str) -> dict[str, Path]:
    """The tables of all other networks on a runtime, by the network's name; those of `UNSEEN` are left out."""
    found = {path.name.removesuffix(f".{runtime}.db"): path for path in sorted(store.glob(f"*.{runtime}.db"))}
    return {other: path for other, path in found.items() if other != name and other not in UNSEEN}


def measure_transfer(name: str, runtime: str, store: Path, config: ProfileConfig) -> Transfer:
    """Profile a network into the rows of the others.

    Raises:
        LatpruneError: there is no other table, or the network cannot be profiled.
    """
    others = others_tables(store, name, runtime)
    if not others:
        raise TableError(f"there is no other network's table for {runtime} in {store}.\nRun the cells of others first")
    start = time.perf_counter()
    model, picture = make_network(name)
    network = analyze(model, (picture,))
    analyze_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        table = Path(folder, "others.db")
        merge(list(others.values()), table, allow_conflicts=True)
        families, known = count_known(network, table)
        report = profile(network, table, backend=runtime, config=config)
    return Transfer(list(others), to_profiled(report, analyze_s), families, known)


def count_known(network: Network, path: Path) -> tuple[int, int]:
    """How many families the network has, and how many of them a table has rows of."""
    families = {unit.family.key: unit.family for unit in network.units}
    with TableFile(path) as file:
        tables = [LatencyTable(found, file.measurements(found)) for found in file.fingerprints()]
    return len(families), sum(any(family in table for table in tables) for family in families.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cell that the command line names, and keep it."""
    options = parse_cell(arguments)
    setting = read_setting()
    config = limits_of(quick=options.quick, seconds=options.seconds).profile
    found = measure_transfer(options.network, options.runtime, options.store, config)
    write_cell(path_of(options.store, options.network, options.runtime, Transfer), found, setting)


if __name__ == "__main__":
    main()
