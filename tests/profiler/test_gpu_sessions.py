"""Whole networks, several builds, and layers scaled to the whole: on a simulated GPU whose truth is known."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.backends.interface import NodeTime
from profiler.gpu_sessions import time_builds, time_layers
from profiler.gpu_timing import Watch
from profiler.worker_replies import NodesReply, TimeReply
from tests.profiler.simulated_gpu import SimulatedGpu, SimulatedNetwork, noisy

CONFIG = MeasureConfig(warmup_s=0.0, min_time_s=0.2, max_time_s=1.0, min_samples=40, noise_target=0.005)


@dataclass
class Session(SimulatedNetwork):
    can_graph: bool = True
    plain_launch_bound: bool = False
    remarks: list[str] = field(default_factory=list)
    reproduced_by: tuple[str, ...] = ("trtexec", "--loadEngine=network.engine")
    pci_bus_id: str = "0000:01:00.0"
    closed: bool = False

    def use_graph(self, wanted: bool) -> None:
        assert self.can_graph or not wanted
        self.graph = wanted

    def close(self) -> None:
        self.closed = True


class Profiled:
    """Layers whose watching costs the same each time."""

    def __init__(self, layers_ms: Sequence[float], watching_ms: float) -> None:
        self.layers_ms, self.watching_ms, self.runs, self.closed = layers_ms, watching_ms, 0, False

    def run(self) -> None:
        self.runs += 1

    def finish(self, keep: Sequence[int]) -> list[NodeTime]:
        assert max(keep) < self.runs
        times = [ms + self.watching_ms for ms in self.layers_ms]
        return [NodeTime(f"layer {n}", "kind", (), (), ms, (ms,) * len(keep)) for n, ms in enumerate(times)]

    def close(self) -> None:
        self.closed = True


def watching(gpu: SimulatedGpu) -> object:
    @contextlib.contextmanager
    def watch(pci_bus_id: str) -> Iterator[Watch | str]:
        yield gpu.watch()

    return watch


@contextlib.contextmanager
def blind(pci_bus_id: str) -> Iterator[Watch | str]:
    yield "there is no NVML"


def test_engines_that_differ_are_told_apart_from_noise_and_all_are_closed() -> None:
    gpu = SimulatedGpu()
    speeds = iter([2.00e-3, 2.08e-3, 1.97e-3])
    opened: list[Session] = []

    def open_session() -> Session:
        assert all(session.closed for session in opened)
        opened.append(Session(gpu, next(speeds), factors=noisy(0.01, len(opened))))
        return opened[-1]

    reply = time_builds(open_session, CONFIG, builds=3, watch=watching(gpu), clock=gpu.clock)
    found = TimeReply(**json.loads(json.dumps(reply)))
    assert len(opened) == 3
    assert opened[-1].closed
    assert found.median_ms == pytest.approx(2.0, rel=0.003)
    assert found.builds_ms == pytest.approx([2.0, 2.08, 1.97], rel=0.005)
    assert found.between_builds == pytest.approx(np.std([2.0, 2.08, 1.97], ddof=1) / 2.0, rel=0.1)
    assert found.noise is not None
    assert found.noise < 0.1 * found.between_builds
    assert found.graph
    assert found.command == (
        "trtexec --loadEngine=network.engine --infStreams=1 --exposeDMA --noDataTransfers --useSpinWait --useCudaGraph "
        "--warmUp=200 --duration=3"
    )


def test_a_network_is_launched_as_its_reference_is_and_that_is_said() -> None:
    gpu = SimulatedGpu()
    target, reference = Session(gpu, 3e-3), Session(gpu, 2e-3, can_graph=False)
    found = time_builds(lambda: target, CONFIG, reference=reference, watch=watching(gpu), clock=gpu.clock)
    assert not found["graph"]
    assert found["ratio"] == pytest.approx(1.5)
    assert any("the reference has none" in remark for remark in found["remarks"])


def test_launches_that_would_hold_the_gpu_up_and_a_missing_watch_are_said() -> None:
    gpu = SimulatedGpu()
    session = Session(gpu, plain_launch_bound=True, remarks=["its own remark"])
    found = time_builds(lambda: session, CONFIG, watch=blind, clock=gpu.clock)
    said = " | ".join(found["remarks"])
    assert "its own remark" in said
    assert "wait for the host's launches" in said
    assert "nothing tells whether the GPU was throttled: there is no NVML" in said


def test_a_lap_of_many_inferences_has_no_command_that_would_reproduce_it() -> None:
    gpu = SimulatedGpu()
    found = time_builds(lambda: Session(gpu, 1e-5, launches=50), CONFIG, watch=blind, clock=gpu.clock)
    assert found["command"] is None
    assert found["batch"] == 50


def test_layers_add_up_to_the_whole_though_watching_them_costs_something() -> None:
    gpu = SimulatedGpu()
    layers = [0.2, 0.6, 1.2]
    profiled = Profiled(layers, 0.01)
    reply = time_layers(
        lambda: Session(gpu, 2e-3, factors=noisy(0.002)),
        lambda: profiled,
        CONFIG,
        runs=5,
        watch=watching(gpu),
        clock=gpu.clock,
    )
    nodes = [NodeTime(**node) for node in reply.pop("nodes")]
    found = NodesReply(**json.loads(json.dumps(reply)))
    assert found.median_ms == pytest.approx(2.0, rel=0.003)
    assert sum(node.ms for node in nodes) == pytest.approx(found.median_ms)
    assert [node.ms for node in nodes] == pytest.approx(layers, rel=0.04)
    assert sum(profiled.layers_ms) + 3 * profiled.watching_ms > found.median_ms * 1.01
    assert len(found.profiled_ms) == 5
    assert not found.remarks
    assert profiled.closed


def test_layers_that_are_mostly_launching_are_called_rough() -> None:
    gpu = SimulatedGpu()
    reply = time_layers(
        lambda: Session(gpu, 1e-4), lambda: Profiled([0.02] * 5, 0.05), CONFIG, runs=3, watch=blind, clock=gpu.clock
    )
    assert any("rough" in remark for remark in reply["remarks"])


def test_rows_without_a_graph_are_refused_and_the_session_is_closed() -> None:
    gpu = SimulatedGpu()
    session = Session(gpu, can_graph=False, remarks=["it waits for the host"])
    with pytest.raises(BackendError, match="it waits for the host"):
        time_layers(lambda: session, lambda: Profiled([1.0], 0.0), CONFIG, runs=3, watch=blind, clock=gpu.clock)
    assert session.closed
