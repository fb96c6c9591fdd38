"""What a runtime must offer to latprune, and the records that it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from lut.records import DeviceFingerprint
from profiler.progress import Progress, silent

Array = NDArray[Any]
Feeds = Mapping[str, Array] | Sequence[Array]
"""A network's inputs, by name or in order."""
Ability = Literal["measures", "times nodes", "builds"]
"""Times whole networks; tells the times of their nodes too; compiles engines and tells their kernels."""
Attribution = Literal["output", "name", "neighbour"]


@dataclass(frozen=True)
class BackendStatus:
    """Whether a runtime can be used here.

    Attributes:
        name: as in `--backend`.
        installed: whether it can be imported.
        version: of the runtime, or None.
        abilities: what it can do on this machine.
        why_not: what is missing and how to install it, or why an ability is missing; None where nothing is.
    """

    name: str
    installed: bool
    version: str | None
    abilities: tuple[Ability, ...]
    why_not: str | None = None


@dataclass(frozen=True)
class Settings:
    """How to run a network.

    Attributes:
        threads: of a CPU runtime.
        seed: of the random inputs.
        cache: beginning of the paths of caches that a runtime keeps from one process to the next (kernels that it chose
            or compiled), or None to start anew.
        cold: whether a GPU's cache is emptied before each launch; elsewhere who measures does that.
        progress: told how far a compiler is.
    """

    threads: int = 1
    seed: int = 0
    cache: Path | None = None
    cold: bool = False
    progress: Progress = field(default=silent, compare=False, repr=False)


@dataclass(frozen=True)
class BuildSettings:
    """What to build an engine for.

    Attributes:
        compute_capabilities: such as ("8.6",); empty means the GPU that is here.
        optimisation_level: the builder's, 0 to 5, or None for its default.
        workspace_bytes: limit on scratch memory, or None.
        max_aux_streams: how many streams may run beside the first; each brings scratch memory of its own.
        batches: least, best and most of the first dimension, for networks that leave it free; None where none does.
        given: what messages call the network, as its user knows it; None for the file's own path.
        progress: told how far the compiler is; it stays in its process.
    """

    compute_capabilities: tuple[str, ...] = ()
    optimisation_level: int | None = None
    workspace_bytes: int | None = None
    max_aux_streams: int = 0
    batches: tuple[int, int, int] | None = None
    given: str | None = None
    progress: Progress = field(default=silent, compare=False, repr=False)


@dataclass(frozen=True)
class NodeTime:
    """The time of one node of the graph that the runtime really runs.

    Attributes:
        name: the node's, in the runtime's graph; may be empty.
        op_type: the runtime's ("Conv", "FusedConv", "ReorderInput" …).
        inputs: tensor names in the runtime's graph.
        outputs: tensor names in the runtime's graph.
        ms: interquartile mean of the samples; the runtime's clock ticks in microseconds, too coarsely for a median.
        samples_ms: one a run, in order.
        origin: a tensor of the network as given that the node computes or helps to compute; None when nothing tells.
        origin_by: how that is known: the runtime kept the tensor's name ("output"), the node's name tells ("name"), or
            the node goes with its neighbour ("neighbour": layout changes with the reader, followers with the producer).
        kernel: what the node runs, the same words at all channel counts (operation, layout, what is fused into it).
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ms: float
    samples_ms: tuple[float, ...]
    origin: str | None = None
    origin_by: Attribution | None = None
    kernel: str = ""


@dataclass(frozen=True)
class KernelTensor:
    """A tensor that a kernel reads or writes, as the compiler lists it.

    Attributes:
        name: the compiler's; of the network's inputs and outputs the ONNX name.
        shape: as the compiler sees it, padding included.
        datatype: the compiler's word ("Float", "Half", "Int8" …).
        format: the layout's short name ("Linear", "NHWC" …), or what stands there where it has none.
    """

    name: str
    shape: tuple[int, ...]
    datatype: str
    format: str


@dataclass(frozen=True)
class KernelRecord:
    """One kernel that a compiler fused, as it lists it (no time: tactics are chosen on the device).

    Attributes:
        name: the compiler's.
        kind: the compiler's layer type ("correlation", "gemm", "kgen" …); "signal" and "wait" keep streams in step.
        onnx_nodes: names of the ONNX nodes that it became; empty for reformatting.
        stream: the stream it is put on, or None.
        inputs: activations that it reads.
        outputs: what it writes.
        tactic: the compiler's name for its code; a stub where it is chosen on the device.
    """

    name: str
    kind: str
    onnx_nodes: tuple[str, ...]
    stream: int | None = None
    inputs: tuple[KernelTensor, ...] = ()
    outputs: tuple[KernelTensor, ...] = ()
    tactic: str = ""

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "KernelRecord":
        """Read a record that `dataclasses.asdict` and JSON have taken apart."""
        plain = dict(record) | {"onnx_nodes": tuple(record["onnx_nodes"])}
        for side in ("inputs", "outputs"):
            plain[side] = tuple(KernelTensor(**(tensor | {"shape": tuple(tensor["shape"])})) for tensor in record[side])
        return KernelRecord(**plain)


@dataclass(frozen=True)
class BuildReport:
    """An engine that was built, with the memory that its compiler announces.

    The memory is the compiler's ahead-of-time bound, not what the device will allocate. `weights_bytes +
    activation_bytes` is the whole: `workspace_bytes` lies inside the activations (an engine compiled as one block
    keeps its live tensors in the workspace).

    Attributes:
        path: of the engine.
        backend: which built it.
        version: of the runtime.
        compute_capabilities: that it runs on; empty for the GPU it was built on.
        weights_bytes: `Total Weights Memory`, or None where the log tells none.
        activation_bytes: `Total Activation Memory`.
        workspace_bytes: `Max Scratch Memory`.
        engine_bytes: size of the file.
        seconds: how long the build took.
        kernels: what the network became.
        warnings: the compiler's, each once.
        max_aux_streams: that were allowed: the activation memory depends on it.
    """

    path: str
    backend: str
    version: str
    compute_capabilities: tuple[str, ...]
    weights_bytes: int | None
    activation_bytes: int | None
    workspace_bytes: int | None
    engine_bytes: int
    seconds: float
    kernels: tuple[KernelRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    max_aux_streams: int = 0


class Session(Protocol):
    """A network loaded into a runtime, its inputs in place."""

    def run(self) -> None:
        """Run one inference on the inputs in place."""

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Run on the inputs given, and return the outputs by name."""

    def close(self) -> None:
        """Give everything back; the session cannot be used afterwards."""


class ProfiledSession(Protocol):
    """A session whose runtime notes what each node costs."""

    def run(self) -> None:
        """Run one inference."""

    def finish(self, keep: Sequence[int]) -> list[NodeTime]:
        """Stop, and return the nodes in the order in which they run.

        Args:
            keep: numbers of the runs to use, counted from 0 in the order of the calls of `run`.
        """

    def close(self) -> None:
        """Give everything back, temporary files too."""


class Backend(Protocol):
    """A runtime. What it cannot do here raises `BackendError`, saying why."""

    @property
    def name(self) -> str:
        """As in `--backend`."""

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """Everything about this device and runtime that changes a time."""

    def open(self, path: Path, settings: Settings) -> Session:
        """Load an ONNX file (or an engine) to be timed and run."""

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledSession:
        """Load an ONNX file so that each of its nodes is timed."""

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Compile an ONNX file, run nothing, and return the nodes that would run; their times are 0."""

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Compile an ONNX file into an engine, written whole or not at all."""
