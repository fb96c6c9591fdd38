"""Fill a device's table: measure whole networks at sampled widths, and take every unit's time in place from each run.

Each network is first predicted from what the table holds, then measured; measuring ends when these predictions have
been good for a while. A network and its rows are stored in one transaction, so that nothing finished is ever lost.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, MissingFamilyError
from lut.records import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement
from profiler.backends import get_backend
from profiler.export import write_onnx
from profiler.inplace import Owners, to_rows
from profiler.network import Network
from profiler.progress import Event, Progress, silent
from profiler.variants import Variants, prepare
from profiler.worker_client import WorkerClient

RECENT = 10
"""Over how many of the last predictions the held-out error is taken."""

STAGE = "measure networks at sampled widths"


@dataclass(frozen=True)
class ProfileConfig:
    """How much to measure.

    Attributes:
        threads: of a CPU runtime.
        networks_min, networks_max: least and most networks in the table for this structure.
        target_error: stop once the mean relative error of the last predictions is at or under it.
        max_time_s: stop after this time, or never for None.
        runs: samples of each network.
        seed: of the sampled widths.
        measure: warm-up and limits of a single measurement.
    """

    threads: int = 1
    networks_min: int = 16
    networks_max: int = 60
    target_error: float = 0.03
    max_time_s: float | None = None
    runs: int = 20
    seed: int = 0
    measure: MeasureConfig = field(default_factory=lambda: MeasureConfig(max_time_s=4.0, max_samples=40))


@dataclass(frozen=True)
class ProfileReport:
    """What a profiling session did.

    Attributes:
        fingerprint: of the device and runtime.
        network: hash of the structure.
        measured, reused, failed: networks measured now, found in the table, failed now.
        rows: unit times that came of those measured now.
        error: mean relative error of the last predictions at stepped widths, each made before its measurement; None if
            there were none.
        error_free: the same at free widths.
        predicted_ms, measured_ms, noise: of the unpruned network.
        seconds: of the whole session.
        stopped_because: in words.
        anew_because: why each variant had to be exported anew, or None.
    """

    fingerprint: DeviceFingerprint
    network: str
    measured: int
    reused: int
    failed: int
    rows: int
    error: float | None
    error_free: float | None
    predicted_ms: float | None
    measured_ms: float | None
    noise: float | None
    seconds: float
    stopped_because: str
    anew_because: str | None = None


def sampled_widths(full: Mapping[str, int], seed: int) -> Iterator[dict[str, int]]:
    """Widths worth measuring, without end: the unpruned network, then random ones.

    Half of the networks have widths in steps of 16 channels, a quarter in steps of 8, a quarter free ones. Each network
    draws how much it keeps on the whole, and each group deviates from that.
    """
    yield dict(full)
    generator = np.random.default_rng(seed)
    number = 0
    while True:
        step = (16, 1, 16, 8)[number % 4]
        level = generator.uniform(0.15, 1.0)
        widths = {}
        for name, size in full.items():
            share = float(np.clip(level + generator.normal(0, 0.2), 0.05, 1.0))
            kept = max(1, round(share * size))
            if size >= 4 * step:
                kept = max(step, round(kept / step) * step)
            widths[name] = min(kept, size)
        yield widths
        number += 1


def is_stepped(widths: Mapping[str, int], full: Mapping[str, int]) -> bool:
    """Whether all wide groups keep a multiple of 8 channels, as plans do; odd widths are priced less well."""
    return all(width % 8 == 0 or width == full[name] for name, width in widths.items() if full[name] >= 32)


class _Session:
    """One profiling session: the child that measures, the reference, and the table as it stands."""

    def __init__(
        self, network: Network, variants: Variants, store: TableFile, client: WorkerClient, config: ProfileConfig
    ) -> None:
        self.network, self.variants, self.store, self.client, self.config = network, variants, store, client, config
        self.fingerprint = client.fingerprint()
        self.owners = Owners.of(variants)
        self.known = [m for m in store.networks(self.fingerprint, network.hash) if m.failure is None]
        self.rows = list(store.measurements(self.fingerprint))
        self.networks = list(store.networks(self.fingerprint))
        self.errors: list[float] = []
        self.free_errors: list[float] = []
        self.folder = tempfile.TemporaryDirectory(prefix="latprune-")
        self.reference = Path(self.folder.name) / "reference.onnx"
        half = {name: max(1, size // 2) for name, size in network.widths.items()}
        write_onnx(variants.at(variants.widths_removal(half)), self.reference)
        before = self.predictor() if self.known else None
        self.baseline_ms = before.latency_ms(half) if before else None
        """The reference's latency in the table's scale: of an earlier session, else as it is measured first."""

    def predictor(self) -> Predictor | None:
        """A predictor from all that is known now; None while families are missing."""
        table = LatencyTable(self.fingerprint, self.rows, networks=self.networks)
        try:
            return Predictor(self.network.units, table, network=self.network.hash)
        except MissingFamilyError:
            return None

    def measure(self, widths: Mapping[str, int]) -> tuple[NetworkMeasurement, list[Measurement]]:
        """Measure the network at these widths and store what came of it."""
        path = Path(self.folder.name) / "variant.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        reply = self.client.nodes(path, self.config.measure, runs=self.config.runs, reference=self.reference)
        drift = 1.0
        if reply.reference_median_ms is not None:
            self.baseline_ms = self.baseline_ms or reply.reference_median_ms
            drift = reply.reference_median_ms / self.baseline_ms
        whole, rows = to_rows(self.network, self.owners, widths, reply, self.config.measure, drift)
        self.store.add_network(self.fingerprint, whole, rows)
        self.networks.append(whole)
        if whole.failure is None:
            self.rows.extend(rows)
            self.known.append(whole)
        return whole, rows

    def recent_error(self) -> float | None:
        """Mean relative error of the last predictions at stepped widths."""
        return float(np.mean(self.errors[-RECENT:])) if self.errors else None


def profile(
    network: Network,
    path: Path,
    *,
    backend: str = "onnxruntime",
    config: ProfileConfig | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> ProfileReport:
    """Build or extend the table in `path` for a network on this device.

    What the table holds already is reused: rows of any network on the same device, and this network's own measurements
    of an earlier, perhaps interrupted, session.

    Raises:
        BackendError: the runtime is missing, cannot measure here, or fails on the unpruned network.
        TableError: the file is not a table or cannot be written.
        LatpruneError: the network cannot be exported.
    """
    config = config or ProfileConfig()
    started = clock()
    status = get_backend(backend).status()
    if "times nodes" not in status.abilities:
        why = f": {status.why_not}" if status.why_not else ""
        raise BackendError(f"The backend {backend} cannot measure units on this machine{why}. Here can: onnxruntime.")
    progress(Event("export the network", 0, 1))
    variants = prepare(network)
    progress(Event("export the network", 1, 1))
    with TableFile(path, create=True) as store, WorkerClient(backend, threads=config.threads) as client:
        session = _Session(network, variants, store, client, config)
        try:
            return _fill(session, started, progress, clock)
        finally:
            session.folder.cleanup()


def _fill(session: _Session, started: float, progress: Progress, clock: Callable[[], float]) -> ProfileReport:
    config, network = session.config, session.network
    done = {m.widths for m in session.known}
    reused = len(done)
    measured = failed = rows = 0
    stopped = "as many networks as were asked for"
    predictor = session.predictor() if reused else None
    for attempt, widths in enumerate(sampled_widths(network.widths, config.seed)):
        if len(session.known) + failed >= config.networks_max or attempt > 3 * config.networks_max:
            break
        if config.max_time_s is not None and measured and clock() - started > config.max_time_s:
            stopped = f"{config.max_time_s:.0f} s are over"
            break
        error = session.recent_error()
        enough = len(session.known) >= config.networks_min and len(session.errors) >= min(
            RECENT, config.networks_min // 2
        )
        if enough and error is not None and error <= config.target_error:
            stopped = f"predictions are good enough ({error:.1%})"
            break
        key = tuple(sorted(widths.items()))
        if key in done:
            continue
        done.add(key)
        expected = predictor.latency_ms(widths) if predictor else None
        whole, made = session.measure(widths)
        if whole.failure is not None or whole.median_ms is None:
            failed += 1
            if attempt == 0 or failed > 5:
                raise BackendError(f"The network cannot be measured: {whole.failure}")
            continue
        measured, rows = measured + 1, rows + len(made)
        if expected is not None and attempt > 0:
            errors = session.errors if is_stepped(widths, network.widths) else session.free_errors
            errors.append(abs(expected / whole.median_ms - 1))
        predictor = session.predictor()
        progress(Event(STAGE, len(session.known), config.networks_max, _note(session, predictor)))
        if not network.widths:
            stopped = "nothing in the network can be pruned"
            break
    full = next((m for m in session.known if dict(m.widths) == network.widths), None)
    return ProfileReport(
        fingerprint=session.fingerprint,
        network=network.hash,
        measured=measured,
        reused=reused,
        failed=failed,
        rows=rows,
        error=session.recent_error(),
        error_free=float(np.mean(session.free_errors[-RECENT:])) if session.free_errors else None,
        predicted_ms=predictor.latency_ms(network.widths) if predictor else None,
        measured_ms=full.median_ms if full else None,
        noise=full.noise if full else None,
        seconds=clock() - started,
        stopped_because=stopped + _shortfall(session),
        anew_because=session.variants.anew_because,
    )


def _shortfall(session: _Session) -> str:
    """What to say when predictions are not as good as was asked for."""
    error, config = session.recent_error(), session.config
    if error is None or error <= config.target_error:
        return ""
    return (
        f", and predictions are still off by {error:.1%} (asked: {config.target_error:.1%}); the same command with "
        f"--networks {2 * config.networks_max} goes on from here"
    )


def _note(session: _Session, predictor: Predictor | None) -> str:
    if predictor is None:
        return "the first prediction comes when every family has a row"
    error = session.recent_error()
    ms = predictor.latency_ms(session.network.widths)
    return f"unpruned {ms:.3g} ms, predictions off by {error:.1%}" if error is not None else f"unpruned {ms:.3g} ms"
