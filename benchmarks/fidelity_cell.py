"""One cell of the fidelity sweep: profile a network from nothing, predict held-out widths, then measure them.

`python -m benchmarks.fidelity_cell NETWORK RUNTIME --store FOLDER` writes the cell's file; what was predicted is in a
file of its own before the first held-out network is measured.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.fidelity_networks import RUNTIMES, UNSEEN, make_network
from benchmarks.fidelity_peers import ISOLATED, SCALED, predict_whole
from benchmarks.fidelity_store import Cell, Profiled, Vector, path_of, read_setting, table_of, write_cell
from benchmarks.fidelity_vectors import choose_vectors
from benchmarks.isolated import measure_isolated
from lut import LatencyTable, Predictor, open_table
from lut.records import MeasureConfig, NetworkMeasurement
from profiler.export import write_onnx
from profiler.forms import compile_forms
from profiler.inplace import Owners
from profiler.network import Network, analyze
from profiler.pinning import keeping_off
from profiler.profile import ProfileConfig, ProfileReport, profile
from profiler.variants import Variants, prepare
from profiler.worker_client import WorkerClient

ISOLATED_NETWORKS = 9
"""The unpruned network, and eight others that profiling measured, evenly from the slowest to the fastest."""
AGAIN = 6
"""So many of these are measured again beside the held-out ones."""


@dataclass(frozen=True)
class Limits:
    """How much a cell does.

    Attributes:
        profile: how to fill the table.
        each: held-out vectors of each kind.
        measure: one held-out network, once.
        isolated_s: time for isolated units.
    """

    profile: ProfileConfig = field(default_factory=lambda: ProfileConfig(max_time_s=120.0))
    each: int = 10
    measure: MeasureConfig = field(
        default_factory=lambda: MeasureConfig(min_samples=10, max_time_s=1.0, noise_target=0.01)
    )
    isolated_s: float = 60.0


QUICK = Limits(
    profile=ProfileConfig(networks_min=4, networks_max=5, target_error=0.0, runs=6),
    each=1,
    measure=MeasureConfig(warmup_s=0.01, min_time_s=0.01, max_time_s=0.05, min_samples=4, max_samples=16),
    isolated_s=5.0,
)
"""For tests: enough to go through every step."""


def limits_of(*, quick: bool, seconds: float | None) -> Limits:
    """What the command line asks for: `seconds` is the most that profiling may take."""
    limits = QUICK if quick else Limits()
    return limits if seconds is None else replace(limits, profile=replace(limits.profile, max_time_s=seconds))


def measure_cell(name: str, runtime: str, store: Path, limits: Limits) -> Cell:
    """Measure a cell; its table and its predictions are left in the store.

    Raises:
        LatpruneError: the network cannot be profiled.
    """
    cell = Cell()
    with _timed(cell, "analyze"):
        model, picture = make_network(name)
        network = analyze(model, (picture,))
    cell.units, cell.groups = len(network.units), len(network.widths)
    path = table_of(store, name, runtime)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    with _timed(cell, "profile"):
        report = profile(network, path, backend=runtime, config=limits.profile)
    cell.profiled, cell.unpruned_ms = to_profiled(report, cell.stages_s["analyze"]), report.measured_ms
    with _timed(cell, "export"):
        variants = prepare(network)
    with WorkerClient(runtime, threads=limits.profile.threads) as client:
        client.fingerprint()
        with keeping_off(client.pid), tempfile.TemporaryDirectory(prefix="latprune-") as folder:
            _Bench(cell, variants, client, open_table(path, backend=runtime), report, Path(folder)).run(
                limits, path_of(store, name, runtime).with_suffix(".predicted.json"), peers=name not in UNSEEN
            )
    return cell


def to_profiled(report: ProfileReport, analyze_s: float) -> Profiled:
    """What is kept of a report; the seconds in which the network was traced come on top."""
    return Profiled(
        seconds=analyze_s + report.seconds,
        measured=report.measured,
        reused=report.reused,
        failed=report.failed,
        rows=report.rows,
        error=report.error,
        error_free=report.error_free,
        stopped_because=report.stopped_because,
    )


class _Bench:
    """A profiled network, the worker, and the reference that profiling used, in whose scale all is told."""

    def __init__(
        self,
        cell: Cell,
        variants: Variants,
        client: WorkerClient,
        table: LatencyTable,
        report: ProfileReport,
        folder: Path,
    ) -> None:
        self.cell, self.variants, self.client, self.table, self.folder = cell, variants, client, table, folder
        self.network: Network = variants.network
        self.owners = Owners.of(variants)
        self.rows = [row for row in table.networks if row.network == self.network.hash and row.failure is None]
        assert report.reference_ms is not None  # something was measured, or `profile` would have raised
        self.reference_ms = report.reference_ms
        self.reference = folder / "reference.onnx"
        half = {name: max(1, size // 2) for name, size in self.network.widths.items()}
        write_onnx(variants.at(variants.widths_removal(half)), self.reference)

    def run(self, limits: Limits, predicted: Path, *, peers: bool) -> None:
        """Predict, keep the predictions, measure twice, and ask the peers if wanted."""
        with _timed(self.cell, "predict"):
            self.predict(limits.each)
            write_cell(predicted, self.cell, read_setting())
        for number in range(2):
            with _timed(self.cell, f"measure {number + 1}"):
                for vector in self.cell.vectors:
                    vector.passes_ms.append(self.measure(vector.widths, limits.measure))
                if number == 0:
                    self.measure_again(limits.measure)
        if peers:
            with _timed(self.cell, "peers"):
                self.ask_peers(limits.isolated_s)

    def predict(self, each: int) -> None:
        """Choose held-out vectors and predict them."""
        predictor = Predictor(self.network.units, self.table, network=self.network.hash)
        for kind, widths in choose_vectors(self.network, self.table, predictor, each):
            forms = compile_forms(self.variants, widths, self.client, self.owners)
            found = predictor.predict(widths, forms)
            total, guessed = found.total, predictor.latency_ms(widths)
            self.cell.vectors.append(
                Vector(kind, widths, total.ms, total.low_ms, total.high_ms, guessed, found.guessed)
            )

    def measure_again(self, config: MeasureConfig) -> None:
        """Measure some of the networks that profiling measured, as held-out ones are."""
        for row in some_networks(self.rows, AGAIN):
            assert row.median_ms is not None  # failures are not among them
            self.cell.again_ms.append([row.median_ms, self.measure(dict(row.widths), config)])

    def measure(self, widths: Mapping[str, int], config: MeasureConfig) -> float:
        """The whole network's latency once, in the table's scale.

        Raises:
            RuntimeError: it cannot be measured.
        """
        path = self.folder / "variant.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        reply = self.client.time(path, config, reference=self.reference)
        if reply.failure is not None or reply.median_ms is None or reply.reference_median_ms is None:
            raise RuntimeError(f"a held-out network cannot be measured: {reply.failure}")
        ratio = reply.ratio or reply.median_ms / reply.reference_median_ms
        return ratio * self.reference_ms

    def ask_peers(self, limit_s: float) -> None:
        """Predict by what others do, from the same networks."""
        network, vectors, rows = self.network, self.cell.vectors, self.rows
        widths = [vector.widths for vector in vectors]
        found = {peer: list(ms) for peer, ms in predict_whole(network, rows, widths).items()}
        self.cell.isolated, alone = measure_isolated(
            self.variants,
            self.owners,
            self.client,
            some_networks(rows, ISOLATED_NETWORKS),
            reference=self.reference,
            reference_ms=self.reference_ms,
            limit_s=limit_s,
        )
        plain = LatencyTable(self.table.fingerprint, alone)
        by_units = Predictor(network.units, plain, allow_missing=True)
        self.cell.isolated.missing = len(by_units.missing)
        found[ISOLATED] = list(by_units.latencies_ms(widths))
        if not by_units.missing:
            scaled = LatencyTable(self.table.fingerprint, alone, networks=rows)
            found[SCALED] = list(Predictor(network.units, scaled, network=network.hash).latencies_ms(widths))
        for number, vector in enumerate(vectors):
            vector.peers_ms = {peer: float(ms[number]) for peer, ms in found.items()}


def some_networks(rows: Sequence[NetworkMeasurement], count: int) -> list[NetworkMeasurement]:
    """The first row, which is the unpruned network's, and others evenly from the slowest to the fastest."""
    first, others = rows[:1], sorted(rows[1:], key=lambda row: -(row.median_ms or 0.0))
    if len(others) < count:
        return [*first, *others]
    last = len(others) - 1
    return [*first, *(others[round(number * last / (count - 2))] for number in range(count - 1))]


@contextmanager
def _timed(cell: Cell, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        cell.stages_s[stage] = round(time.perf_counter() - start, 2)


def parse_cell(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line of a cell, and make the process ready: one thread, no warnings that are no failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cell that the command line names, and keep it."""
    options = parse_cell(arguments)
    setting = read_setting()
    cell = measure_cell(
        options.network, options.runtime, options.store, limits_of(quick=options.quick, seconds=options.seconds)
    )
    write_cell(path_of(options.store, options.network, options.runtime), cell, setting)


if __name__ == "__main__":
    main()
