"""Fill a table with what a compiler says of a network's memory, at sampled widths and with no device at hand.

As with times, each network is first told from what is known, then compiled; compiling ends when what was told has been
right for a while. Each row is stored as it comes: a session that is killed goes on where it was.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lut import TableFile
from lut.errors import BackendError
from lut.memory import Liveness, MemoryBound
from lut.records import DeviceFingerprint, MeasureConfig, NetworkMeasurement
from profiler.ahead import Compiler
from profiler.ahead_units import compile_units
from profiler.as_trained import as_trained
from profiler.network import Network
from profiler.progress import Event, Progress, silent
from profiler.sampling import Sampler
from profiler.variants import Variants, prepare

STAGE = "compile networks at sampled widths"
RECENT = 6
"""Over how many of the last networks the error is taken."""
MOST_FAILURES = 5
MOST_TRIES = 50

Widths = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AheadConfig:
    """How much to compile.

    Attributes:
        networks_min, networks_max: least and most networks in the table for this structure.
        target_error: stop once the mean relative error of the last figures told is at or under it.
        max_time_s: stop after this time, or never for None.
        seed: of the sampled widths.
    """

    networks_min: int = 6
    networks_max: int = 60
    target_error: float = 0.015
    max_time_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class AheadReport:
    """What a session of compiling did.

    Attributes:
        fingerprint: of the compiler and what it compiled for.
        network: hash of the structure.
        compiled, reused, failed: networks compiled now, found in the table, failed now.
        error: mean relative error of the last totals that were told before compiling; None if there were none.
        unpruned: the bound of the unpruned network.
        seconds: of the whole session.
        stopped_because: in words.
        failures: why networks failed, each reason once.
        units: rows of single units that were added.
    """

    fingerprint: DeviceFingerprint
    network: str
    compiled: int
    reused: int
    failed: int
    error: float | None
    unpruned: MemoryBound
    seconds: float
    stopped_because: str
    failures: tuple[str, ...] = ()
    units: int = 0


@dataclass
class _Session:
    network: Network
    variants: Variants
    store: TableFile
    compiler: Compiler
    config: AheadConfig
    liveness: Liveness = field(init=False)
    known: dict[Widths, MemoryBound] = field(init=False)
    failed: dict[Widths, str] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = self.compiler.target
        self.liveness = self.network.liveness(target.runtime, target.precision)
        rows = self.store.networks(self.compiler.fingerprint, self.network.hash)
        self.known = {row.widths: bound for row in rows if (bound := bound_of(row, self.liveness)) is not None}

    def compile(self, widths: Mapping[str, int]) -> None:
        key = tuple(sorted(widths.items()))
        told = learned(self.liveness, self.known).at(widths).total_bytes
        try:
            bound = self.compiler.bound(self.variants.at(self.variants.widths_removal(widths)))
        except BackendError as error:
            self.failed[key] = str(error)
            self._store(key, None, str(error))
            if dict(widths) == self.network.widths or len(self.failed) > MOST_FAILURES:
                raise BackendError(f"The network cannot be compiled: {error}") from error
            return
        self._store(key, bound)
        if self.known:
            self.errors.append(abs(told / bound.total_bytes - 1))
        self.known[key] = bound

    def _store(self, key: Widths, bound: MemoryBound | None, failure: str | None = None) -> None:
        row = NetworkMeasurement(
            self.network.hash,
            key,
            MeasureConfig(),
            (),
            None,
            None,
            failure=failure,
            precision=self.compiler.target.precision,
            weights_bytes=bound.weights_bytes if bound else None,
            activation_bytes=bound.activation_bytes if bound else None,
            workspace_bytes=bound.workspace_bytes if bound else None,
        )
        self.store.add_network(self.compiler.fingerprint, row)

    @property
    def error(self) -> float | None:
        return float(np.mean(self.errors[-RECENT:])) if self.errors else None

    def why_stop(self) -> str | None:
        known, config = len(self.known) + len(self.failed), self.config
        if not self.network.widths and known:
            return "nothing in the network can be pruned"
        if known >= config.networks_max:
            return "as many networks as were asked for"
        if known < config.networks_min:
            return None
        if self.error is None:
            return "the table holds enough from before"
        if len(self.errors) >= min(RECENT, config.networks_min - 1) and self.error <= config.target_error:
            return f"what is told before compiling is good enough ({self.error:.1%})"
        return None


def profile_ahead(
    network: Network,
    path: Path,
    compiler: Compiler,
    *,
    config: AheadConfig | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> AheadReport:
    """Build or extend the rows of a table that tell a network's memory for one target.

    Raises:
        BackendError: the unpruned network cannot be compiled for the target.
        TableError: the file is not a table or cannot be written.
        LatpruneError: the network cannot be exported, or converted to the precision.
    """
    config = config or AheadConfig()
    started = clock()
    progress(Event("export the network", 0, 1))
    variants = as_trained(prepare(network))
    progress(Event("export the network", 1, 1))
    with TableFile(path, create=True) as store:
        session = _Session(network, variants, store, compiler, config)
        reused = len(session.known)
        sampler = Sampler(network.widths, config.seed)
        stopped = session.why_stop() if _key(network.widths) in session.known else None
        while stopped is None:
            widths = _draw(session, sampler)
            if widths is None:
                stopped = "there are no other widths"
                break
            session.compile(widths)
            over = config.max_time_s is not None and clock() - started > config.max_time_s
            stopped = session.why_stop() or (f"{config.max_time_s:.0f} s are over" if over else None)
            progress(Event(STAGE, len(session.known), config.networks_max, _note(session)))
        units = compile_units(network, variants, store, compiler, progress)
        return AheadReport(
            fingerprint=compiler.fingerprint,
            network=network.hash,
            compiled=len(session.known) - reused,
            reused=reused,
            failed=len(session.failed),
            error=session.error,
            unpruned=session.known[_key(network.widths)],
            seconds=clock() - started,
            stopped_because=stopped,
            failures=tuple(dict.fromkeys(session.failed.values())),
            units=units,
        )


def bound_of(row: NetworkMeasurement, liveness: Liveness) -> MemoryBound | None:
    """What a compiler said of a network, from its row; None where it said nothing."""
    if row.failure is not None or row.weights_bytes is None or row.activation_bytes is None:
        return None
    io = liveness.io_bytes(dict(row.widths))
    return MemoryBound(row.weights_bytes, row.activation_bytes, row.workspace_bytes or 0, io)


def learned(liveness: Liveness, known: Mapping[Widths, MemoryBound]) -> Liveness:
    """A network's tensors with the shares that the compiler's figures show."""
    return liveness.learned([(dict(widths), bound) for widths, bound in known.items()])


def _key(widths: Mapping[str, int]) -> Widths:
    return tuple(sorted(widths.items()))


def _draw(session: _Session, sampler: Sampler) -> dict[str, int] | None:
    for _ in range(MOST_TRIES):
        widths = sampler.draw()
        if _key(widths) not in session.known and _key(widths) not in session.failed:
            return widths
    return None


def _note(session: _Session) -> str:
    unpruned = session.known.get(_key(session.network.widths))
    if unpruned is None:
        return ""
    told = "" if session.error is None else f", told to {session.error:.1%} before compiling"
    return f"unpruned at most {unpruned.total_bytes / 1e6:.4g} MB{told}"
