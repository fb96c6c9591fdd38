"""Time one unit by itself, free of launch and borders: cut out of its network, packed, and timed as whole networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import onnx
from onnx import ValueInfoProto

from lut.errors import BackendError, LatpruneError
from lut.records import MeasureConfig, Measurement, UnitSpec
from profiler.backends import BuildSettings
from profiler.export import write_onnx
from profiler.inplace import SHORTEST_MS
from profiler.isolated import Packed, TimeAlone, is_line, time_alone
from profiler.kernel_roles import role_of
from profiler.network import Network
from profiler.packed_graphs import border_key, pack, pass_through
from profiler.pieces import Pieces
from profiler.worker_replies import BuildReply, TimeReply


class Times(Protocol):
    """What times whole networks: `profiler.worker_client.WorkerClient`, or a simulation of it."""

    def time(self, path: Path, config: MeasureConfig, *, reference: Path | None = None, builds: int = 1) -> TimeReply:
        """Time whole runs of an ONNX file, by turns with a reference."""


class Builds(Protocol):
    """What compiles an engine and tells its kernels."""

    def build(self, path: Path, out: Path, settings: BuildSettings, *, timeout_s: float = 600.0) -> BuildReply:
        """Compile an ONNX file."""


TRIES = 3
"""How often engines of copies are timed until they agree."""

Changed = Callable[[onnx.ModelProto, Path], frozenset[str]]
"""Which inputs and outputs of a network (given with its file) the runtime turns into other layouts."""


def none_told(_piece: onnx.ModelProto, _path: Path) -> frozenset[str]:
    """Of a runtime that tells no kernels: borders stay in the units' times, and whole networks correct them."""
    return frozenset()


def told_by(compiler: Builds, compute_capability: str) -> Changed:
    """Ask a compiler which of a network's inputs and outputs get a kernel that only changes their layout.

    Raises (when called):
        BackendError: the network cannot be compiled.
    """

    def changed(piece: onnx.ModelProto, path: Path) -> frozenset[str]:
        reply = compiler.build(path, path.with_suffix(".engine"), BuildSettings((compute_capability,)))
        if reply.report is None:
            raise BackendError(reply.failure or "The engine was not built.")
        names = {value.name for value in [*piece.graph.input, *piece.graph.output]}
        operations = {node.name: node.op_type for node in piece.graph.node}
        kernels = [kernel for kernel in reply.report.kernels if role_of(kernel, operations, names) == "border"]
        return frozenset(names & {each.name for kernel in kernels for each in kernel.inputs + kernel.outputs})

    return changed


def distinct_units(network: Network, widths: Mapping[str, int], known: Mapping[UnitSpec, object]) -> Iterator[int]:
    """Numbers of the units that are not known at these widths, one of each spec."""
    seen: set[UnitSpec] = set()
    for number, unit in enumerate(network.units):
        spec = unit.spec(widths)
        if spec not in known and spec not in seen:
            seen.add(spec)
            yield number


@dataclass
class UnitTimer:
    """Times units alone, and remembers what borders cost.

    Attributes:
        client: times.
        changed: tells borders.
        folder: for temporary files.
        copies: numbers of copies, two at least.
        config: how one engine is timed.
    """

    client: Times
    changed: Changed
    folder: Path
    copies: tuple[int, ...]
    config: MeasureConfig
    _borders: dict[tuple[tuple[int, int], ...], list[Packed]] = field(default_factory=dict)

    def measure(self, spec: UnitSpec, pieces: Pieces, number: int, drift: float = 1.0) -> Measurement:
        """Time one unit; what fails is a row with the reason.

        Args:
            spec: of the row.
            pieces: the network at these widths, apart.
            number: of the unit.
            drift: factor by which the machine is slow just now (times are divided by it).
        """
        try:
            piece = pieces.cut_out(number)
            if piece is None:  # nothing of it is left in the exported graph
                return _row(spec, self.config, TimeAlone(SHORTEST_MS, 0.0))
            return _row(spec, self.config, self.time_alone(piece, drift))
        except KeyError as error:
            failure = f"the shape of {error} is not known"
        except LatpruneError as error:
            failure = str(error)
        return Measurement(spec, self.config, (), None, None, place="isolated", failure=failure)

    def time_alone(self, piece: onnx.ModelProto, drift: float = 1.0) -> TimeAlone:
        """The time of a network without its launch and borders.

        A border that is a change of layout is taken to cost what a copy of the tensor does.

        Raises:
            LatpruneError: it cannot be built, run, or written.
        """
        packed = self._packed(piece, drift)
        path = self.folder / "alone.onnx"
        write_onnx(piece, path)
        changed = self.changed(piece, path)
        tensors = [value for value in [*piece.graph.input, *piece.graph.output] if value.name in changed]
        return time_alone(packed, self._border(piece, tensors, drift))

    def _border(self, piece: onnx.ModelProto, tensors: Sequence[ValueInfoProto], drift: float) -> Sequence[Packed]:
        key = border_key(tensors)
        if key and key not in self._borders:
            self._borders[key] = self._packed(pass_through(piece, tensors), drift)
        return self._borders.get(key, ())

    def _packed(self, piece: onnx.ModelProto, drift: float) -> list[Packed]:
        """Time engines of copies, again where something disturbed one: that only adds time, so the least counts."""
        found: dict[int, Packed] = {}
        for _ in range(TRIES):
            for copies in self.copies:
                again = self._engine(piece, copies, drift)
                found[copies] = min(found.get(copies, again), again, key=lambda packed: packed.median_ms)
            packed = list(found.values())
            if is_line(packed):
                return packed
        told = ", ".join(f"{each.median_ms:.3g} ms with {each.copies}" for each in packed)
        raise BackendError(f"its time does not grow with the copies as it must ({told}): the machine is disturbed")

    def _engine(self, piece: onnx.ModelProto, copies: int, drift: float) -> Packed:
        path = self.folder / "packed.onnx"
        write_onnx(pack(piece, copies), path)
        reply = self.client.time(path, self.config)
        if reply.failure is not None or not reply.median_ms:
            raise BackendError(reply.failure or "no time came back")
        return Packed(copies, reply.median_ms / drift, min(reply.noise or 0.0, 1.0))


def _row(spec: UnitSpec, config: MeasureConfig, found: TimeAlone) -> Measurement:
    """A unit's row: no time is under what a runtime's clock can tell, and none is noisier than itself."""
    ms = max(found.ms, SHORTEST_MS)
    return Measurement(spec, config, (), ms, min(found.error_ms / ms, 1.0), place="isolated")


def corrected(row: Measurement, found: TimeAlone) -> Measurement:
    """The same unit's row as whole networks correct it."""
    return replace(_row(row.spec, row.config, found), place="corrected")
