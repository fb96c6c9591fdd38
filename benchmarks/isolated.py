"""Units measured alone, as others fill their tables: each is cut out of a network's ONNX graph and timed as a network.

What it reads becomes an input; what others read of it becomes an output. The runtime then pays at both ends for layouts
that it would not change inside the whole network, and cannot fuse across the border.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.fidelity_store import Isolated
from lut.records import MeasureConfig, Measurement, NetworkMeasurement, UnitSpec
from profiler.export import write_onnx
from profiler.inplace import Owners
from profiler.packed_units import distinct_units
from profiler.pieces import Pieces
from profiler.variants import Variants
from profiler.worker_client import WorkerClient

SHORTLY = MeasureConfig(
    warmup_s=0.005, min_time_s=0.02, max_time_s=0.03, min_samples=5, noise_target=0.01, timeout_s=30.0
)
"""For one unit: there are many."""
REFERENCE = MeasureConfig(min_time_s=0.1, max_time_s=0.4, min_samples=5)


def measure_isolated(
    variants: Variants,
    owners: Owners,
    client: WorkerClient,
    rows: Sequence[NetworkMeasurement],
    *,
    reference: Path,
    reference_ms: float,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Isolated, list[Measurement]]:
    """Measure the units of some networks one by one, distinct ones once, until the time is over.

    Args:
        variants: of the network.
        owners: of its graph's values.
        client: measures.
        rows: whole networks at whose widths units are measured, the unpruned one first.
        reference: timed before the units of each network, so that the machine's drift can be divided out.
        reference_ms: its latency in the table's scale.
        limit_s: after this no unit is begun.
        clock: seconds.

    Returns:
        What was done, and the rows of a table, `place` "isolated".
    """
    started, found = clock(), Isolated()
    done: dict[UnitSpec, Measurement | None] = {}
    network = variants.network
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "unit.onnx")
        for row in rows:
            widths = dict(row.widths)
            drift = (client.time(reference, REFERENCE).median_ms or reference_ms) / reference_ms
            pieces = Pieces(variants.at(variants.widths_removal(widths)), owners)
            for number in distinct_units(network, widths, done):
                spec = network.units[number].spec(widths)
                if clock() - started > limit_s:
                    found.seconds = clock() - started
                    return found, [made for made in done.values() if made is not None]
                done[spec] = _measure(pieces, number, spec, client, path, drift, found)
            found.networks += 1
            alone = [done[unit.spec(widths)] for unit in network.units]
            if row.units_ms and row.median_ms:
                total = sum(made.median_ms or 0.0 for made in alone if made is not None)
                found.sums.append([total, row.units_ms, row.median_ms])
    found.seconds = clock() - started
    return found, [made for made in done.values() if made is not None]


def _measure(
    pieces: Pieces, number: int, spec: UnitSpec, client: WorkerClient, path: Path, drift: float, found: Isolated
) -> Measurement | None:
    """Time one unit; None where there is nothing to time or it does not run alone, which is counted."""
    try:
        piece = pieces.cut_out(number)
    except KeyError as error:
        piece, reason = None, f"the shape of {error} is not known"
    else:
        reason = "it has no nodes of its own"
    if piece is not None:
        write_onnx(piece, path)
        reply = client.time(path, SHORTLY)
        if reply.failure is None and reply.median_ms:
            found.units += 1
            ms = reply.median_ms / drift
            return Measurement(spec, SHORTLY, reply.samples_ms, ms, min(reply.noise or 0.0, 1.0), place="isolated")
        reason = reply.failure or "no time came back"
    found.failed += 1
    found.reason = found.reason or f"{spec.family}: {reason}"
    return None
