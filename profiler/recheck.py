"""Time a few of a table's rows anew on this machine, so that a new driver or runtime need not throw the rest away.

Rows are times in place, so whole networks are run again at widths that the table holds; one run yields all its units.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lut import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement, TableFile, UnitSpec
from lut.errors import BackendError, TableError
from lut.merge import new_rows
from lut.recheck import Comparison, Pairs, Verdict, adopt, compare, judge, pair_networks, pair_up, spread_over_cost
from profiler.export import write_onnx
from profiler.inplace import Owners, to_rows
from profiler.network import Network
from profiler.progress import Event, Progress, silent
from profiler.variants import prepare
from profiler.worker_client import WorkerClient

STAGE = "time whole networks anew"
MAY_CHANGE = ("driver", "runtime_version", "locked_clocks_mhz", "power_limit_w", "settings")
"""What of a fingerprint an update changes; with another device, runtime or thread count nothing can be rechecked."""

Widths = tuple[tuple[str, int], ...]
Run = tuple[NetworkMeasurement, list[Measurement]]


@dataclass(frozen=True)
class RecheckConfig:
    """How much to time anew.

    Attributes:
        rows: units' rows compared, at most.
        networks: whole networks run, or more where these have too few units for so many rows.
        runs: most samples of each.
        measure: warm-up and limits of a single measurement.
    """

    rows: int = 20
    networks: int = 4
    runs: int = 40
    measure: MeasureConfig = field(default_factory=lambda: MeasureConfig(max_time_s=2.0, max_samples=40))


@dataclass(frozen=True)
class RecheckReport:
    """What a recheck found; nothing is written by it.

    Attributes:
        old: whose rows were checked.
        new: this machine as it is.
        verdict: on the units' rows that were chosen, the dearest first.
        pairs: their times; the keys begin with the spec.
        networks: how the whole networks compare.
        rows, whole: how many rows of units and of whole networks the table holds under the old fingerprint.
        runs: what was measured.
        seconds: of all.
    """

    old: DeviceFingerprint
    new: DeviceFingerprint
    verdict: Verdict
    pairs: Pairs
    networks: Comparison
    rows: int
    whole: int
    runs: tuple[Run, ...]
    seconds: float

    @property
    def specs(self) -> tuple[UnitSpec, ...]:
        """What was compared."""
        return tuple(key[0] for key in self.pairs.keys if isinstance(key, tuple))


def recheck(
    network: Network,
    path: Path,
    *,
    fits: Callable[[DeviceFingerprint], bool] = lambda _: True,
    config: RecheckConfig | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> RecheckReport:
    """Run a network again at widths that the table holds, and compare its units' times with the table's.

    Raises:
        TableError: the file cannot be read; or it holds no row of this network for this device and runtime, or rows of
            several states of it.
        BackendError: the runtime is missing, or fails on the network.
        LatpruneError: the network cannot be exported.
    """
    config = config or RecheckConfig()
    started = clock()
    with TableFile(path) as store, ExitStack() as stack:
        old, new, client = _find_old(store, network, fits, stack)
        held = _usable(store, old, network)
        least = math.ceil(2 * config.rows / max(len(network.units), 1))  # units of equal widths meet in one row
        chosen = _spread_networks(held, max(config.networks, least))
        runs = tuple(_measure(network, chosen, client, config, progress))
        units = pair_up(store.measurements(old), [row for _, rows in runs for row in rows], forms=False)
        whole = pair_networks(held, [found for found, _ in runs])
        rows, networks = len(store.measurements(old)), len(store.networks(old))
    pairs = units.at(spread_over_cost(units.old_ms.tolist(), config.rows))
    compared = compare(whole)
    if not pairs.keys or compared is None:
        raise TableError(f"{path} holds whole networks of {old}, but none of their units.\nMeasure again")
    return RecheckReport(old, new, judge(pairs, whole), pairs, compared, rows, networks, runs, clock() - started)


def adopt_rows(path: Path, report: RecheckReport) -> int:
    """Copy the old fingerprint's rows under the new one, marked, beside those measured now; return how many.

    Failures are not copied: what failed before may run now. Rows that are there already are not added twice.

    Raises:
        ValueError: the verdict is not that they hold, or the fingerprints are equal.
        TableError: the file cannot be written; it is then as it was.
    """
    if report.verdict.kind != "holds" or report.old == report.new:
        raise ValueError("only rows that hold are adopted, and only by another fingerprint")
    spread = report.verdict.comparison.spread
    with TableFile(path) as store, store.transaction():
        for whole, rows in report.runs:
            store.add_network(report.new, whole, rows)
        networks = [adopt(row, spread) for row in store.networks(report.old) if row.failure is None]
        fresh_networks = new_rows(store.networks(report.new), networks)
        for network in fresh_networks:
            store.add_network(report.new, network)
        units = [adopt(row, spread) for row in store.measurements(report.old) if row.failure is None]
        fresh = new_rows(store.measurements(report.new), units)
        store.add_measurements(report.new, fresh)
    return len(fresh) + len(fresh_networks)


def _find_old(
    store: TableFile, network: Network, fits: Callable[[DeviceFingerprint], bool], stack: ExitStack
) -> tuple[DeviceFingerprint, DeviceFingerprint, WorkerClient]:
    """The one fingerprint whose rows can be timed here, this machine's own, and a worker for its runtime."""
    held = store.fingerprints()
    known = [found for found in held if fits(found) and _usable(store, found, network)]
    if not known:
        raise TableError(
            f"{store.path} holds no whole network of this task that could be run again; it holds: "
            f"{'; '.join(map(str, held)) or 'nothing'}.\nName the task (and --input) that it was profiled with"
        )
    here: dict[tuple[str, int], tuple[DeviceFingerprint, WorkerClient]] = {}
    for found in known:
        asked = (found.runtime, found.threads or 1)
        if asked not in here:
            client = stack.enter_context(WorkerClient(asked[0], threads=asked[1]))
            here[asked] = client.fingerprint(), client
    pairs = [(found, *here[found.runtime, found.threads or 1]) for found in known]
    possible = [(old, new, client) for old, new, client in pairs if not _strange(old, new)]
    if not possible:
        told = "; ".join(f"{name} {mine} there, {other} here" for name, mine, other in _strange(*pairs[0][:2]))
        raise TableError(f"{store.path} was measured on another device: {told}.\nRecheck there, or profile here")
    older = [item for item in possible if item[0] != item[1]] or possible
    if len(older) > 1:
        several = "; ".join(f"{old.key} ({_changed(old, new)})" for old, new, _ in older)
        raise TableError(
            f"{len(older)} fingerprints in {store.path} could be rechecked: {several}.\nChoose: --fingerprint KEY"
        )
    return older[0]


def _strange(old: DeviceFingerprint, new: DeviceFingerprint) -> list[tuple[str, object, object]]:
    return [difference for difference in old.differences(new) if difference[0] not in MAY_CHANGE]


def _changed(old: DeviceFingerprint, new: DeviceFingerprint) -> str:
    return ", ".join(f"{name} {mine}, here {other}" for name, mine, other in old.differences(new)) or "as here"


def _usable(store: TableFile, fingerprint: DeviceFingerprint, network: Network) -> list[NetworkMeasurement]:
    """Finished rows of the network, of the groups that it has now."""
    rows = store.networks(fingerprint, network.hash)
    return [
        row
        for row in rows
        if row.failure is None and row.median_ms and dict(row.widths).keys() == network.widths.keys()
    ]


def _spread_networks(held: Sequence[NetworkMeasurement], count: int) -> list[Widths]:
    """Widths spread evenly over the ranks of their latencies, the slowest first."""
    times: dict[Widths, float] = {}
    for row in held:
        times[row.widths] = max(times.get(row.widths, 0.0), row.median_ms or 0.0)
    order = sorted(times, key=lambda widths: -times[widths])
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))
    return [order[int(place)] for place in places]


def _measure(
    network: Network, chosen: Sequence[Widths], client: WorkerClient, config: RecheckConfig, progress: Progress
) -> Iterable[Run]:
    """Run the network at each of these widths; the machine's drift from one to the next divides out."""
    progress(Event("export the network", 0, 1))
    variants = prepare(network)
    owners = Owners.of(variants)
    progress(Event("export the network", 1, 1))
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        reference, path = Path(folder, "reference.onnx"), Path(folder, "variant.onnx")
        half = {name: max(1, size // 2) for name, size in network.widths.items()}
        write_onnx(variants.at(variants.widths_removal(half)), reference)
        first = None
        for number, widths in enumerate(chosen):
            progress(Event(STAGE, number, len(chosen)))
            write_onnx(variants.at(variants.widths_removal(dict(widths))), path)
            reply = client.nodes(path, config.measure, runs=config.runs, reference=reference)
            first = first or reply.reference_median_ms
            drift = reply.reference_median_ms / first if first and reply.reference_median_ms else 1.0
            whole, rows = to_rows(network, owners, dict(widths), reply, config.measure, drift)
            if whole.failure is not None:
                raise BackendError(f"The network cannot be measured any more: {whole.failure}")
            yield whole, rows
        progress(Event(STAGE, len(chosen), len(chosen)))
