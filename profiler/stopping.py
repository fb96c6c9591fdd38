"""When a profiling session has measured enough, which widths come next, and what it says meanwhile."""

from typing import Protocol

from lut import Predictor
from lut.records import NetworkMeasurement
from profiler.network import Network
from profiler.profile_records import MOST_TRIES, RECENT, ProfileConfig
from profiler.sampling import Sampler


class Filling(Protocol):
    """A session that fills a table.

    Attributes:
        network, config: what is measured, and how much.
        known: whole networks that have a time.
        predictor: from all that is known, or None while families are missing.
        all_errors: of predictions, each made before its measurement.
    """

    network: Network
    config: ProfileConfig
    known: list[NetworkMeasurement]
    predictor: Predictor | None
    all_errors: list[float]

    def recent_error(self) -> float | None:
        """Mean relative error of the last predictions."""


def draw(session: Filling, sampler: Sampler, done: set[tuple[tuple[str, int], ...]]) -> dict[str, int] | None:
    """Widths that have not been measured yet, or None where there are no more."""
    for _ in range(MOST_TRIES):
        widths = sampler.draw(session.predictor)
        key = tuple(sorted(widths.items()))
        if key not in done:
            done.add(key)
            return widths
    return None


def why_stop(session: Filling, failed: int) -> str | None:
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


def shortfall(session: Filling) -> str:
    """What to say when predictions are not as good as was asked for."""
    error, config = session.recent_error(), session.config
    if error is None or error <= config.target_error:
        return ""
    return (
        f", and predictions are still off by {error:.1%} (asked: {config.target_error:.1%}); the same command with "
        f"--networks {2 * config.networks_max} goes on from here"
    )


def note(session: Filling) -> str:
    """What to say beside the progress."""
    predictor = session.predictor
    if predictor is None:
        return "the first prediction comes when every family has a row"
    error = session.recent_error()
    ms = predictor.latency_ms(session.network.widths)
    return f"unpruned {ms:.3g} ms, predictions off by {error:.1%}" if error is not None else f"unpruned {ms:.3g} ms"
