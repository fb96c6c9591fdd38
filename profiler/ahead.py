"""What a compiler says of a network's memory with no device at hand: a target by name, and the bound for it.

TensorRT for RTX compiles for a compute capability that is only named, and announces what the engine will need at most.
That is an ahead-of-time bound: not what the device will allocate, and no time.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import onnx
from onnx import helper

from lut.errors import BackendError, LatpruneError
from lut.memory import MemoryBound, MemoryRules
from lut.records import AHEAD_OF_TIME, DeviceFingerprint
from profiler.backends import BuildSettings, get_backend, memory_rules
from profiler.backends.interface import Array
from profiler.export import write_onnx
from profiler.precision.devices import remainder_for, to_device
from profiler.precision.linear import PRODUCTS
from profiler.precision.offered import PRECISIONS, Precision, Remainder
from profiler.worker_client import WorkerClient

MAX_AUX_STREAMS = 0
"""Each further stream would bring a workspace of its own."""
CONTRACTIONS = PRODUCTS | {"Conv", "ConvTranspose", "Einsum"}
STEPS = {"fp32": 4, "fp16": 8, "int8": 16}
"""Channels in 16 bytes: a compiler pads other widths, with kernels of their own (docs/memory.md)."""


@dataclass(frozen=True)
class Target:
    """What a compiler builds for.

    Attributes:
        runtime: name of the backend.
        compute_capability: such as "8.6".
        precision: of the engine.
    """

    runtime: str
    compute_capability: str
    precision: Precision = "fp32"

    @classmethod
    def of(cls, fingerprint: DeviceFingerprint) -> "Target":
        """The target of rows that were made ahead of time."""
        settings = dict(fingerprint.settings)
        return cls(fingerprint.runtime, fingerprint.compute_capability or "", as_precision(settings["precision"]))

    @property
    def remainder(self) -> Remainder:
        """What runs where an int8 network is not quantised."""
        return remainder_for(self.precision, (self.compute_capability,))

    @property
    def step(self) -> int:
        """Multiples of so many channels are not padded."""
        return STEPS.get(self.precision, 1)

    def __str__(self) -> str:
        return f"{self.runtime} for compute capability {self.compute_capability}, {self.precision}"


def as_precision(name: str) -> Precision:
    """A precision by its name.

    Raises:
        LatpruneError: there is none of that name, with those that there are.
    """
    for precision in get_args(Precision):
        if precision == name:
            return precision  # type: ignore[no-any-return]
    raise LatpruneError(f"There is no precision {name!r}; there are {', '.join(PRECISIONS)}.")


class Compiler:
    """Compiles networks for one target, in a process of its own, and tells the memory; a context manager."""

    def __init__(self, target: Target, inputs: Sequence[Array], *, client: WorkerClient | None = None) -> None:
        """Take a target; nothing is compiled yet.

        Args:
            target: what for.
            inputs: of the network, in order: int8 takes its scales from them. They do not change the memory.
            client: of another worker than one for the target's runtime, in tests.

        Raises:
            BackendError: the runtime is not installed, or cannot build.
        """
        self.target = target
        if client is None:
            status = get_backend(target.runtime).status()
            if "builds" not in status.abilities:
                raise BackendError(f"{target.runtime} cannot compile here. {status.why_not or ''}".strip())
        self.rules = memory_rules(target.runtime, target.precision)
        self.built = 0
        self._version = "" if client is not None else str(status.version)
        self._inputs = list(inputs)
        self._client = client or WorkerClient(target.runtime)
        self._folder = tempfile.TemporaryDirectory(prefix="latprune-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove the temporary files."""
        self._client.close()
        self._folder.cleanup()

    @property
    def fingerprint(self) -> DeviceFingerprint:
        """Runtime and version, capability, precision and settings: rows made under other ones never mix."""
        return DeviceFingerprint(
            AHEAD_OF_TIME,
            self.target.runtime,
            self._version,
            compute_capability=self.target.compute_capability,
            settings=(
                ("max_aux_streams", MAX_AUX_STREAMS),
                ("precision", self.target.precision),
                ("remainder", self.target.remainder),
                ("tf32", False),
            ),
        )

    def bound(self, model: onnx.ModelProto, inputs: Sequence[Array] | None = None) -> MemoryBound:
        """Compile a network, given in fp32, in the target's precision, and tell its memory; the engine is not kept.

        Args:
            model: any with fixed shapes.
            inputs: of it, where they are not those of the whole network.

        Raises:
            BackendError: it cannot be built for the target.
            LatpruneError: it cannot be converted to the precision.
        """
        targets = (self.target.compute_capability,)
        converted = to_device(model, self.target.precision, [inputs or self._inputs], targets)
        path, engine = Path(self._folder.name, "network.onnx"), Path(self._folder.name, "network.engine")
        write_onnx(converted, path)
        settings = BuildSettings(targets, max_aux_streams=MAX_AUX_STREAMS, given="the network")
        reply = self._client.build(path, engine, settings)
        engine.unlink(missing_ok=True)
        if reply.report is None:
            raise BackendError(str(reply.failure))
        weights, activation = reply.report.weights_bytes, reply.report.activation_bytes
        if weights is None or activation is None:
            raise BackendError(f"{self.target.runtime} {reply.report.version} does not announce its memory.")
        self.built += 1
        return MemoryBound(weights, activation, workspace_in(self.rules, activation, converted), io_bytes(converted))


def workspace_in(rules: MemoryRules | None, activation_bytes: int, model: onnx.ModelProto) -> int:
    """The part of a compiler's activations that is workspace: as a whole where something contracts, or not at all.

    The compiler's own "scratch memory" is no such part: for TensorRT for RTX it is all that a network needs.
    """
    each = rules.workspace_bytes if rules is not None else 0
    contracts = any(node.op_type in CONTRACTIONS for node in model.graph.node)
    return each if contracts and activation_bytes >= each else 0


def io_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model's inputs and outputs; dimensions that are not fixed count as one."""
    return sum(_value_bytes(value) for value in (*model.graph.input, *model.graph.output))


def _value_bytes(value: Any) -> int:
    kind = value.type.tensor_type
    lengths = [dim.dim_value or 1 for dim in kind.shape.dim]
    return int(prod(lengths) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
