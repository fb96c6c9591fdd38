"""Fill a device's table: measure whole networks at sampled widths, and take every unit's time in place from each run.

Each network is first predicted from what the table holds, then measured; measuring ends when these predictions have
been good for a while. A network and its rows are stored in one transaction, so that nothing finished is ever lost.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, MissingFamilyError
from lut.records import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement
from profiler.backends import get_backend, statuses
from profiler.device import usable_cores
from profiler.export import write_onnx
from profiler.inplace import CutCheck, Owners, to_rows
from profiler.network import Network
from profiler.pinning import keeping_off
from profiler.progress import Event, Progress, silent
from profiler.sampling import Sampler
from profiler.variants import Variants, prepare
from profiler.worker_client import NodesReply, WorkerClient

RECENT = 10
"""Over how many of the last predictions the held-out error is taken."""

REFIT = 0.15
"""The predictor is fitted anew when so large a share of the networks is new."""
MOST_FAILURES = 5
MOST_TRIES = 50

STAGE = "measure networks at sampled widths"


@dataclass(frozen=True)
class ProfileConfig:
    """How much to measure.

    Attributes:
        threads: of a CPU runtime.
        networks_min, networks_max: least and most networks in the table for this structure.
        target_error: stop once the mean relative error of the last predictions is at or under it.
        max_time_s: stop after this time, or never for None.
        runs: most samples of each network.
        seed: of the sampled widths.
        measure: warm-up and limits of a single measurement.
    """

    threads: int = 1
    networks_min: int = 11
    networks_max: int = 60
    target_error: float = 0.015
    max_time_s: float | None = None
    runs: int = 40
    seed: int = 0
    measure: MeasureConfig = field(default_factory=lambda: MeasureConfig(max_time_s=0.6, max_samples=40))


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
        cut: how the units agree with the kernels of the unpruned network, or None.
        anew_because: why each variant had to be exported anew, or None.
        reference_ms: of the half-width network, in whose scale this session's rows are; None if it measured none.
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
    cut: CutCheck | None = None
    reference_ms: float | None = None


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
    if "times nodes" not in status.abilities:
        why = f": {status.why_not}" if status.why_not else ""
        can = ", ".join(each.name for each in statuses() if "times nodes" in each.abilities) or "none"
        raise BackendError(f"The backend {backend} cannot measure units on this machine{why}. Here can: {can}.")
    progress(Event("export the network", 0, 1))
    variants = prepare(network)
    progress(Event("export the network", 1, 1))
    with TableFile(path, create=True) as store, WorkerClient(backend, threads=config.threads, cache=path) as client:
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
    stopped = _why_stop(session, failed, sampler) or ""
    pending = None if stopped else _next(session, sampler, done)
    while pending is not None:
        widths, wait = pending
        if not overlapping:
            reply = wait()
        upcoming = _draw(session, sampler, done)
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
        stopped = _why_stop(session, failed, sampler) or (f"{config.max_time_s:.0f} s are over" if over else "")
        pending = None if stopped or upcoming is None else (upcoming, session.start(upcoming, sampler.drawn))
        session.refit()
        progress(Event(STAGE, len(session.known), config.networks_max, _note(session)))
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
        stopped_because=stopped + _shortfall(session),
        anew_because=session.variants.anew_because,
        cut=CutCheck.of(form for _, form in full.forms) if full and full.forms else None,
        reference_ms=session.baseline_ms,
    )


def _draw(session: _Session, sampler: Sampler, done: set[tuple[tuple[str, int], ...]]) -> dict[str, int] | None:
    """Widths that have not been measured yet, or None where there are no more."""
    for _ in range(MOST_TRIES):
        widths = sampler.draw(session.predictor)
        key = tuple(sorted(widths.items()))
        if key not in done:
            done.add(key)
            return widths
    return None


def _next(
    session: _Session, sampler: Sampler, done: set[tuple[tuple[str, int], ...]]
) -> tuple[dict[str, int], Callable[[], NodesReply]] | None:
    widths = _draw(session, sampler, done)
    return None if widths is None else (widths, session.start(widths, sampler.drawn))


def _why_stop(session: _Session, failed: int, sampler: Sampler) -> str | None:
    """Why nothing more is measured, or None."""
    config, known = session.config, len(session.known)
    if not session.network.widths and known:
        return "nothing in the network can be pruned"
    if known + failed >= config.networks_max:
        return "as many networks as were asked for"
    if known < config.networks_min or session.predictor is None:
        return None
    error = session.recent_error()
    if not session.all_errors and session.predictor.calibration.networks:
        error = session.predictor.calibration.spread  # an earlier session's networks, each left out
    elif len(session.all_errors) < min(RECENT, config.networks_min // 2):
        return None
    if error is not None and error <= config.target_error:
        return f"predictions are good enough ({error:.1%})"
    return None


def _shortfall(session: _Session) -> str:
    """What to say when predictions are not as good as was asked for."""
    error, config = session.recent_error(), session.config
    if error is None or error <= config.target_error:
        return ""
    return (
        f", and predictions are still off by {error:.1%} (asked: {config.target_error:.1%}); the same command with "
        f"--networks {2 * config.networks_max} goes on from here"
    )


def _note(session: _Session) -> str:
    predictor = session.predictor
    if predictor is None:
        return "the first prediction comes when every family has a row"
    error = session.recent_error()
    ms = predictor.latency_ms(session.network.widths)
    return f"unpruned {ms:.3g} ms, predictions off by {error:.1%}" if error is not None else f"unpruned {ms:.3g} ms"
