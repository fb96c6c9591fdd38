"""Fill a device's table: measure whole networks at sampled widths, and take every unit's time in place from each run.

Each network is first predicted from what the table holds, then measured; measuring ends when these predictions have
been good for a while. A network and its rows are stored in one transaction, so that nothing finished is ever lost.
Runtimes that time whole networks only are asked otherwise: `profiler/packed_profile.py`.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, MissingFamilyError
from lut.records import Measurement, NetworkMeasurement
from profiler.backends import get_backend, statuses
from profiler.device import usable_cores
from profiler.export import write_onnx
from profiler.inplace import CutCheck, Owners, to_rows
from profiler.network import Network
from profiler.packed_profile import Bench, profile_packed
from profiler.pinning import keeping_off
from profiler.profile_records import MOST_FAILURES, RECENT, REFIT, ProfileConfig, ProfileReport, is_stepped
from profiler.progress import Event, Progress, silent
from profiler.sampling import Sampler
from profiler.stopping import draw, note, shortfall, why_stop
from profiler.variants import Variants, prepare
from profiler.worker_client import WorkerClient
from profiler.worker_replies import NodesReply

__all__ = ["RECENT", "STAGE", "ProfileConfig", "ProfileReport", "is_stepped", "profile"]

STAGE = "measure networks at sampled widths"


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
        self.all_errors: list[float] = []
        self.errors: list[float] = []
        self.free_errors: list[float] = []
        self.fitted_at = 0
        self.folder = tempfile.TemporaryDirectory(prefix="latprune-")
        self.reference = Path(self.folder.name) / "reference.onnx"
        half = {name: max(1, size // 2) for name, size in network.widths.items()}
        write_onnx(variants.at(variants.widths_removal(half)), self.reference)
        self.predictor = self.fit()
        self.baseline_ms = self.predictor.latency_ms(half) if self.predictor and self.known else None
        """The reference's latency in the table's scale: of an earlier session, else as it is measured first."""

    def fit(self) -> Predictor | None:
        """A predictor from all that is known now; None while families are missing."""
        self.fitted_at = len(self.known)
        table = LatencyTable(self.fingerprint, self.rows, networks=self.networks)
        try:
            return Predictor(self.network.units, table, network=self.network.hash)
        except MissingFamilyError:
            return None

    def refit(self) -> None:
        """Fit again once enough has been added for it to matter."""
        if len(self.known) - self.fitted_at >= REFIT * len(self.known):
            self.predictor = self.fit()

    def start(self, widths: Mapping[str, int], number: int) -> Callable[[], NodesReply]:
        """Write the network at these widths and have it measured; what is returned waits for the reply."""
        path = Path(self.folder.name) / f"variant{number % 2}.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        return self.client.start_nodes(path, self.config.measure, runs=self.config.runs, reference=self.reference)

    def learn(self, widths: Mapping[str, int], reply: NodesReply) -> tuple[NetworkMeasurement, list[Measurement]]:
        """Store what came of measuring the network at these widths, and judge what was predicted of it."""
        drift = 1.0
        if reply.reference_median_ms is not None:
            self.baseline_ms = self.baseline_ms or reply.reference_median_ms
            drift = reply.reference_median_ms / self.baseline_ms
        whole, rows = to_rows(self.network, self.owners, widths, reply, self.config.measure, drift)
        self.store.add_network(self.fingerprint, whole, rows)
        self.networks.append(whole)
        if whole.failure is None:
            if self.predictor is not None and whole.median_ms and dict(widths) != self.network.widths:
                expected = self.predictor.latency_ms(widths, dict(whole.forms))
                errors = self.errors if is_stepped(widths, self.network.widths) else self.free_errors
                errors.append(abs(expected / whole.median_ms - 1))
                self.all_errors.append(errors[-1])
            self.rows.extend(rows)
            self.known.append(whole)
        return whole, rows

    def recent_error(self) -> float | None:
        """Mean relative error of the last predictions, each made before its measurement."""
        return float(np.mean(self.all_errors[-RECENT:])) if self.all_errors else None


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
    if not {"times nodes", "measures"} & set(status.abilities):
        why = f": {status.why_not}" if status.why_not else ""
        can = ", ".join(each.name for each in statuses() if "measures" in each.abilities) or "none"
        raise BackendError(f"The backend {backend} cannot measure on this machine{why}. Here can: {can}.")
    progress(Event("export the network", 0, 1))
    variants = prepare(network)
    progress(Event("export the network", 1, 1))
    with TableFile(path, create=True) as store, WorkerClient(backend, threads=config.threads, cache=path) as client:
        if "times nodes" not in status.abilities:
            compiles = "builds" in status.abilities
            return profile_packed(Bench(network, variants, store, client, config, compiles), started, progress, clock)
        session = _Session(network, variants, store, client, config)
        try:
            with keeping_off(client.pid):
                return _fill(session, started, progress, clock)
        finally:
            session.folder.cleanup()


def _fill(session: _Session, started: float, progress: Progress, clock: Callable[[], float]) -> ProfileReport:
    config, network = session.config, session.network
    done = {m.widths for m in session.known}
    reused = len(done)
    measured = failed = rows = 0
    sampler = Sampler(network.widths, config.seed)
    overlapping = config.threads < usable_cores()  # another core can prepare while one measures
    stopped = why_stop(session, failed) or ""
    pending = None if stopped else _next(session, sampler, done)
    while pending is not None:
        widths, wait = pending
        if not overlapping:
            reply = wait()
        upcoming = draw(session, sampler, done)
        if overlapping:
            reply = wait()
        whole, made = session.learn(widths, reply)
        if whole.failure is not None or whole.median_ms is None:
            failed += 1
            if widths == network.widths or failed > MOST_FAILURES:
                raise BackendError(f"The network cannot be measured: {whole.failure}")
        else:
            measured, rows = measured + 1, rows + len(made)
        over = config.max_time_s is not None and clock() - started > config.max_time_s
        stopped = why_stop(session, failed) or (f"{config.max_time_s:.0f} s are over" if over else "")
        pending = None if stopped or upcoming is None else (upcoming, session.start(upcoming, sampler.drawn))
        session.refit()
        progress(Event(STAGE, len(session.known), config.networks_max, note(session)))
    if session.fitted_at < len(session.known):
        session.predictor = session.fit()
    predictor = session.predictor
    full = next((m for m in session.known if dict(m.widths) == network.widths), None)
    return ProfileReport(
        fingerprint=session.fingerprint,
        network=network.hash,
        measured=measured,
        reused=reused,
        failed=failed,
        rows=rows,
        error=float(np.mean(session.errors[-RECENT:])) if session.errors else None,
        error_free=float(np.mean(session.free_errors[-RECENT:])) if session.free_errors else None,
        predicted_ms=predictor.latency_ms(network.widths) if predictor else None,
        measured_ms=full.median_ms if full else None,
        noise=full.noise if full else None,
        seconds=clock() - started,
        stopped_because=stopped + shortfall(session),
        anew_because=session.variants.anew_because,
        cut=CutCheck.of(form for _, form in full.forms) if full and full.forms else None,
        reference_ms=session.baseline_ms,
    )


def _next(
    session: _Session, sampler: Sampler, done: set[tuple[tuple[str, int], ...]]
) -> tuple[dict[str, int], Callable[[], NodesReply]] | None:
    widths = draw(session, sampler, done)
    return None if widths is None else (widths, session.start(widths, sampler.drawn))
