"""Asks a compiler for a network's memory at given widths, and lets what is told from widths alone learn from it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from lut import LatencyTable, TableFile
from lut.errors import BackendError, TableError
from lut.memory import Liveness, MemoryBound
from lut.records import DeviceFingerprint, MeasureConfig, NetworkMeasurement
from profiler.ahead import Compiler, Target, as_precision
from profiler.ahead_profile import bound_of
from profiler.as_trained import as_trained
from profiler.backends import MEMORY
from profiler.blocks import Block
from profiler.export import flat_arrays, lively
from profiler.precision.offered import Precision
from profiler.progress import Event, Progress
from profiler.variants import Variants
from pruner.bench import Bench
from pruner.budget import check_device
from pruner.request import PruneConfig

log = logging.getLogger(__name__)

STAGE = "compile the unpruned network"

Key = tuple[tuple[tuple[str, int], ...], tuple[str, ...]]


class MemoryBench:
    """A network's memory for one target, compiled at any widths, each once.

    Attributes:
        compiler: that is asked.
        compiled: how many networks were compiled for it here.
    """

    def __init__(
        self, variants: Variants, compiler: Compiler, table: LatencyTable, *, blocks: Sequence[Block] = ()
    ) -> None:
        """Take what the table holds for the same network and compiler; nothing is compiled yet."""
        self.compiler = compiler
        self.compiled = 0
        self._variants = as_trained(variants)
        self._table = table
        self._blocks = {block.name: block for block in blocks}
        self._known: dict[Key, MemoryBound] = {}
        self._own = compiler.fingerprint == table.fingerprint
        if self._own:
            for widths, bound in bounds_in(table, variants.network.hash, self.counted):
                self._known[_key(widths, ())] = bound

    @property
    def target(self) -> Target:
        """What is compiled for."""
        return self.compiler.target

    @property
    def fingerprint(self) -> DeviceFingerprint:
        """The compiler's."""
        return self.compiler.fingerprint

    @property
    def counted(self) -> Liveness:
        """The unpruned network's tensors by the compiler's rules alone."""
        return self._variants.network.liveness(self.target.runtime, self.target.precision)

    def learned(self, liveness: Liveness) -> Liveness:
        """A network's tensors with the shares that the compiler's figures show so far."""
        known = [(dict(widths), bound) for (widths, gone), bound in self._known.items() if not gone]
        return corrected(liveness, self.counted, known)

    def bound(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> MemoryBound:
        """What the compiler says of the network at these widths, without blocks, once it is trained.

        Raises:
            BackendError: it cannot be built.
        """
        key = _key(widths, gone)
        if key not in self._known:
            blocks = [self._blocks[name] for name in gone]
            model = self._variants.at(self._variants.widths_removal(widths), blocks)
            self._known[key] = self.compiler.bound(model)
            self.compiled += 1
            if not gone:
                self._keep(key[0], self._known[key])
        return self._known[key]

    def bound_of_file(self, path: Path) -> MemoryBound:
        """The same of an fp32 ONNX file.

        Raises:
            BackendError: it cannot be built.
        """
        return self.compiler.bound(onnx.load(path))

    def _keep(self, widths: tuple[tuple[str, int], ...], bound: MemoryBound) -> None:
        """Write what was compiled into the table's file, where that holds the same compiler's figures."""
        if self._table.path is None or not self._own:
            return
        try:
            with TableFile(self._table.path) as file:
                file.add_network(self.fingerprint, row_of(self._variants.network.hash, widths, self.target, bound))
        except TableError as error:
            log.warning("what was compiled stays out of the table: %s", error)


def bounds_in(table: LatencyTable, network: str, liveness: Liveness) -> list[tuple[dict[str, int], MemoryBound]]:
    """What a table made ahead of time says of a network."""
    rows = [row for row in table.networks if row.network == network]
    return [(dict(row.widths), bound) for row in rows if (bound := bound_of(row, liveness)) is not None]


def corrected(
    liveness: Liveness, unpruned: Liveness, known: Iterable[tuple[Mapping[str, int], MemoryBound]]
) -> Liveness:
    """A network's tensors with the shares that figures show of the unpruned one's, which it is or was cut out of."""
    rules = unpruned.learned(list(known)).rules
    return replace(liveness, rules=rules)


def row_of(network: str, widths: tuple[tuple[str, int], ...], target: Target, bound: MemoryBound) -> NetworkMeasurement:
    """A bound as a row of the table."""
    return NetworkMeasurement(
        network,
        widths,
        MeasureConfig(),
        (),
        None,
        None,
        precision=target.precision,
        weights_bytes=bound.weights_bytes,
        activation_bytes=bound.activation_bytes,
        workspace_bytes=bound.workspace_bytes,
    )


def _key(widths: Mapping[str, int], gone: Sequence[str]) -> Key:
    return tuple(sorted(widths.items())), tuple(sorted(gone))


def memory_target(config: PruneConfig, table: DeviceFingerprint) -> tuple[str, Precision]:
    """The runtime whose memory is meant, and the precision; a table made ahead of time says so itself."""
    if table.ahead_of_time:
        target = Target.of(table)
        return target.runtime, target.precision
    return config.memory_of or config.backend, as_precision(config.memory_precision)


def open_memory(bench: Bench, config: PruneConfig, progress: Progress) -> tuple[MemoryBench | None, str | None]:
    """What compiles the network for the target that is meant; or None, and why, where it is only counted.

    Raises:
        TableError: the table was made ahead of time by another compiler than the one that is here.
    """
    table = bench.table
    runtime, precision = memory_target(config, table.fingerprint)
    if runtime not in MEMORY:
        return None, f"memory is counted: what {runtime} needs is not announced before it runs"
    capability = table.fingerprint.compute_capability if table.fingerprint.ahead_of_time else config.memory_capability
    inputs = flat_arrays(lively(bench.network.inputs))
    progress(Event(STAGE, 0, 1))
    try:
        compiler = Compiler(Target(runtime, str(capability), precision), inputs)
    except BackendError as error:
        return None, f"memory is counted, not compiled: {error}"
    try:
        if table.fingerprint.ahead_of_time:
            check_device(table.fingerprint, compiler.fingerprint, config.allow_differences)
        found = MemoryBench(bench.variants, compiler, table, blocks=list(bench.blocks.values()))
        unpruned = found.bound(bench.network.widths)
    except BaseException:
        compiler.close()
        raise
    progress(Event(STAGE, 1, 1, f"{unpruned.total_bytes / 1e6:.4g} MB ahead-of-time bound, {found.target}"))
    return found, None
