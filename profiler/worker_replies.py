"""What a worker replies: times, times of nodes, outputs and engines; or why there are none."""

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.backends.interface import Array, BuildReport, NodeTime


@dataclass(frozen=True)
class TimeReply:
    """Times of whole runs, or why there are none (see `profiler.timing.Timing` for the fields).

    Those from `p99_ms` on are told of GPUs only: see `profiler.gpu_timing.GpuTiming`, and

    Attributes:
        builds_ms: medians of engines that were built anew each; `between_builds` is their spread, a fraction.
        command: of NVIDIA's, which reproduces the median.
    """

    failure: str | None = None
    samples_ms: tuple[float, ...] = ()
    median_ms: float | None = None
    noise: float | None = None
    discarded: int = 0
    batch: int = 1
    reference_ms: tuple[float, ...] = ()
    reference_median_ms: float | None = None
    ratio: float | None = None
    ratio_noise: float | None = None
    clocks_mhz: float | None = None
    p99_ms: float | None = None
    enqueue_ms: float | None = None
    throttled: int = 0
    warmup: int = 0
    graph: bool | None = None
    builds_ms: tuple[float, ...] = ()
    between_builds: float | None = None
    command: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodesReply:
    """Times of whole runs and of each node, taken by turns; or why there are none.

    Attributes:
        failure: why there are no times, or None.
        samples_ms: whole runs of a plain session, undisturbed.
        median_ms, noise: theirs.
        discarded: disturbed runs, of both sessions and the reference.
        profiled_ms: whole runs of the profiled session, those of the nodes' samples.
        nodes: of the optimised graph, in the order in which they run; times as the runtime tells them.
        node_overhead_ms: what profiling itself adds to each node's time, at most the whole of it: what brings the
            nodes' sum down to the plain run. It matters below about 20 µs a node.
        reference_ms, reference_median_ms: of the reference, taking turns too.
        ratio: whole over reference.
        clocks_mhz: the processor's clock, where known.
        remarks: what has to be known of these times, in words; of GPUs only.
    """

    failure: str | None = None
    samples_ms: tuple[float, ...] = ()
    median_ms: float | None = None
    noise: float | None = None
    discarded: int = 0
    profiled_ms: tuple[float, ...] = ()
    nodes: tuple[NodeTime, ...] = ()
    node_overhead_ms: float | None = None
    reference_ms: tuple[float, ...] = ()
    reference_median_ms: float | None = None
    ratio: float | None = None
    clocks_mhz: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputsReply:
    """A network's outputs by name, in its order, or why there are none."""

    outputs: Mapping[str, Array]
    failure: str | None = None


@dataclass(frozen=True)
class BuildReply:
    """An engine's report, or why there is none."""

    report: BuildReport | None
    failure: str | None = None
