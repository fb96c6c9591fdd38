"""Times sessions that run on a GPU: whole networks, several builds of one, and layers scaled to the whole.

It knows no CUDA and no runtime: sessions, what watches the GPU and the clock are arguments.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Protocol

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.backends.interface import Backend, ProfiledSession
from profiler.backends.trt_nodes import scale_to
from profiler.gpu_summary import summarise_builds
from profiler.gpu_timing import GpuTiming, Runner, Watch, measure_gpu
from profiler.gpu_watch import GpuWatch
from profiler.nvml import Gpu, open_gpu
from profiler.trtexec import trtexec_command

ON_A_GPU = ("tensorrt", "tensorrt-rtx")
"""Backends whose sessions are launched and timed on a GPU by its own events."""
PROFILED_WARMUP = 5
MOST_WATCHING = 2.0
"""Layers that take together more than this many times the whole are too short to be told apart by their events."""


class Launched(Runner, Protocol):
    """A session on a GPU (`profiler.backends.trt_session.EngineSession` says what its attributes are)."""

    can_graph: bool
    plain_launch_bound: bool
    remarks: list[str]
    reproduced_by: tuple[str, ...]
    pci_bus_id: str

    def use_graph(self, wanted: bool) -> None:
        """Launch as a graph or not."""

    def close(self) -> None:
        """Give everything back."""


Watching = Callable[[str], contextlib.AbstractContextManager[Watch | str]]
"""Opens what tells of the GPU at a bus address, or says why nothing does."""


def times_on_gpu(backend: Backend) -> bool:
    """Whether a backend's sessions are timed by a GPU's own clock."""
    return backend.name in ON_A_GPU


@contextlib.contextmanager
def watching(pci_bus_id: str) -> Iterator[Watch | str]:
    """Watch the GPU through NVML, or say why that is not possible."""
    with open_gpu(pci_bus_id) as gpu:
        yield GpuWatch(gpu.read) if isinstance(gpu, Gpu) else gpu


def time_builds(
    open_session: Callable[[], Launched],
    config: MeasureConfig,
    *,
    reference: Launched | None = None,
    builds: int = 1,
    watch: Watching = watching,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time a network; several builds one after the other, none while another is timed.

    Returns:
        What `profiler.worker_replies.TimeReply` holds, of the build whose median is the middle one.

    Raises:
        BackendError: it cannot be opened or run.
    """
    found: list[tuple[GpuTiming, str | None]] = []
    for _ in range(builds):
        session = open_session()
        try:
            timing = time_session(session, config, reference=reference, watch=watch, clock=clock)
            found.append((timing, _command(session, timing)))
        finally:
            session.close()
    ordered = sorted(found, key=lambda pair: pair[0].median_ms)
    timing, command = ordered[(len(ordered) - 1) // 2]
    spread = summarise_builds([each.median_ms for each, _ in found], [each.noise for each, _ in found])
    return asdict(timing) | {
        "builds_ms": spread.medians_ms,
        "between_builds": spread.between if builds > 1 else None,
        "command": command,
    }


def time_session(
    session: Launched,
    config: MeasureConfig,
    *,
    reference: Launched | None = None,
    watch: Watching = watching,
    clock: Callable[[], float] = time.perf_counter,
) -> GpuTiming:
    """Time one session, launched as the reference is."""
    graph = session.can_graph and (reference is None or reference.can_graph)
    for each in (session, reference):
        if each is not None:
            each.use_graph(graph)
    with watch(session.pci_bus_id) as found:
        blind = isinstance(found, str)
        timing = measure_gpu(
            session, config, reference=reference, watch=None if isinstance(found, str) else found, clock=clock
        )
    said = list(session.remarks)
    if reference is not None and session.can_graph and not graph:
        said.append("it was launched without a CUDA graph, because the reference has none")
    if graph and session.plain_launch_bound:
        said.append("without a CUDA graph the GPU would wait for the host's launches")
    if blind:
        said.append(f"nothing tells whether the GPU was throttled: {found}")
    return replace(timing, remarks=(*said, *timing.remarks))


def time_layers(
    open_session: Callable[[], Launched],
    open_profiled: Callable[[], ProfiledSession],
    config: MeasureConfig,
    *,
    runs: int,
    reference: Launched | None = None,
    watch: Watching = watching,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time a network whole, as a graph, and then its layers, in a run of their own, scaled to the whole.

    Returns:
        What `profiler.worker_replies.NodesReply` holds.

    Raises:
        BackendError: it cannot be launched as a graph (rows with and without never mix), or layers tell no time.
    """
    session = open_session()
    try:
        if not session.can_graph or (reference is not None and not reference.can_graph):
            raise BackendError(
                "Rows of a table are timed as CUDA graphs, and this network cannot be: "
                + ("; ".join(session.remarks) or "the reference has none")
            )
        timing = time_session(session, config, reference=reference, watch=watch, clock=clock)
    finally:
        session.close()
    profiled = open_profiled()
    try:
        for _ in range(PROFILED_WARMUP + runs):
            profiled.run()
        nodes = profiled.finish(range(PROFILED_WARMUP, PROFILED_WARMUP + runs))
    finally:
        profiled.close()
    scaled, factor = scale_to(nodes, timing.median_ms)
    said = []
    if factor < 1 / MOST_WATCHING:
        said.append(
            f"layers take {1 / factor:.2g} times the whole when each is timed: most of that is launching, and what is "
            "said of single layers is rough"
        )
    sums = [sum(times) for times in zip(*(node.samples_ms for node in nodes), strict=True)]
    return {
        "samples_ms": timing.samples_ms,
        "median_ms": timing.median_ms,
        "noise": timing.noise,
        "discarded": timing.discarded,
        "profiled_ms": sums,
        "nodes": [asdict(node) for node in scaled],
        "node_overhead_ms": 0.0,
        "reference_ms": timing.reference_ms,
        "reference_median_ms": timing.reference_median_ms,
        "ratio": timing.ratio,
        "clocks_mhz": timing.clocks_mhz,
        "remarks": [*timing.remarks, *said],
    }


def _command(session: Launched, timing: GpuTiming) -> str | None:
    if not session.reproduced_by or timing.batch > 1:
        return None
    tool, *source = session.reproduced_by
    return trtexec_command(tool, source, graph=timing.graph)
