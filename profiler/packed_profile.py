"""Fill a table where a runtime times whole networks only: units in packed copies, whole networks as the arbiter.

Networks at sampled widths are timed as elsewhere, each first predicted; then the units that they are made of, distinct
ones once, alone (`profiler/packed_units.py`). What whole networks say of all units, and of a family's, corrects them
(`profiler/isolated.py`). Rows measured alone are stored as they come, corrected ones when the session ends.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lut.errors import BackendError
from profiler.packed_session import Bench, Session
from profiler.pinning import keeping_off
from profiler.profile_records import MOST_FAILURES, RECENT, ProfileReport
from profiler.progress import Event, Progress
from profiler.sampling import Sampler
from profiler.stopping import draw, note, shortfall, why_stop

__all__ = ["STAGE", "Bench", "profile_packed"]

STAGE = "measure networks, and their units alone"


def profile_packed(bench: Bench, started: float, progress: Progress, clock: Callable[[], float]) -> ProfileReport:
    """Build or extend the table of a runtime that times no single units.

    Args:
        bench: what is measured, by what, into which table.
        started: when the session began, by the clock.
        progress: told of each network and unit.
        clock: seconds.

    Raises:
        BackendError: the runtime cannot measure here, or fails on the unpruned network.
        TableError: the table cannot be written.
    """
    limit_s = bench.config.max_time_s

    def over() -> bool:
        return limit_s is not None and clock() - started > limit_s

    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        session = Session(bench, Path(folder), over)
        with keeping_off(bench.client.pid):
            reused, failed = len(session.known), 0
            try:
                stopped, failed = _fill(session, progress)
            finally:
                session.finish()
        return _report(session, reused, failed, stopped, clock() - started)


def _fill(session: Session, progress: Progress) -> tuple[str, int]:
    """Measure until enough is known, and tell why it stopped and how many networks failed."""
    network, config = session.network, session.config

    def tell(beside: str) -> None:
        progress(Event(STAGE, len(session.known), config.networks_max, beside))

    failed = 0
    done = {whole.widths for whole in session.known}
    sampler = Sampler(network.widths, config.seed)
    session.catch_up(tell)
    while True:
        stopped = why_stop(session, failed) or (f"{config.max_time_s:.0f} s are over" if session.over() else "")
        widths = None if stopped else draw(session, sampler, done)
        if widths is None:
            return stopped or "no other widths were found", failed
        whole = session.measure(widths)
        if whole.median_ms is None:
            failed += 1
            if widths == network.widths or failed > MOST_FAILURES:
                raise BackendError(f"The network cannot be measured: {whole.failure}")
            continue
        session.time_units(widths, tell)
        session.predictor = session.fit()
        tell(note(session))


def _report(session: Session, reused: int, failed: int, stopped: str, seconds: float) -> ProfileReport:
    network, predictor = session.network, session.predictor
    full = next((whole for whole in session.known if dict(whole.widths) == network.widths), None)
    stepped, free = session.errors[True][-RECENT:], session.errors[False][-RECENT:]
    return ProfileReport(
        fingerprint=session.fingerprint,
        network=network.hash,
        measured=len(session.known) - reused,
        reused=reused,
        failed=failed,
        rows=session.timed,
        error=float(np.mean(stepped)) if stepped else None,
        error_free=float(np.mean(free)) if free else None,
        predicted_ms=predictor.latency_ms(network.widths) if predictor else None,
        measured_ms=full.median_ms if full else None,
        noise=full.noise if full else None,
        seconds=seconds,
        stopped_because=stopped + shortfall(session),
        anew_because=session.variants.anew_because,
        reference_ms=session.baseline_ms,
        packed=session.check(),
    )
