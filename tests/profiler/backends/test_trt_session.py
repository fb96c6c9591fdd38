"""Sessions over engines, on a simulated CUDA and TensorRT: their own steps, and that all is given back."""

import json

import numpy as np
import pytest

from lut.errors import BackendError
from profiler.backends.interface import NodeTime
from profiler.backends.trt_profiled import ProfiledEngine
from profiler.backends.trt_session import EngineSession, LaunchSettings
from tests.profiler.backends.simulated_trt import SimulatedCuda, simulated_trt


def open_session(cuda: SimulatedCuda, settings: LaunchSettings | None = None, **engine: bool) -> EngineSession:
    return EngineSession(simulated_trt(cuda, **engine), b"", cuda, settings or LaunchSettings())


def test_outputs_are_those_of_the_inputs_given() -> None:
    cuda = SimulatedCuda()
    session = open_session(cuda)
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    for feeds in ([given], {"x": given}):
        assert np.array_equal(session.outputs(feeds)["y"], 2 * given)
    with pytest.raises(BackendError, match=r"x is \(2, 3\); given was \(6,\)"):
        session.outputs([given.ravel()])


@pytest.mark.parametrize("captures", [True, False])
def test_everything_is_given_back(captures: bool) -> None:
    cuda = SimulatedCuda(captures=captures)
    session = open_session(cuda, LaunchSettings(flush_bytes=100))
    session.run()
    assert cuda.memory
    assert cuda.open
    session.close()
    assert not cuda.memory
    assert not cuda.open


def test_a_failure_half_way_gives_everything_back_and_says_what_tensorrt_said() -> None:
    cuda = SimulatedCuda()
    with pytest.raises(BackendError, match="the simulated engine is for another GPU"):
        open_session(cuda, loads=False)
    with pytest.raises(BackendError, match="cannot run the engine"):
        open_session(cuda, runs=False)
    assert not cuda.memory
    assert not cuda.open


def test_a_graph_holds_what_was_launched_and_computes_the_same() -> None:
    cuda = SimulatedCuda(gpu_ms=0.01)
    session = open_session(cuda)
    assert session.graph
    assert session.launches == 50
    lap = session.lap()
    assert cuda.launched == 50
    assert lap.gpu_ms == pytest.approx(0.01)
    session.use_graph(False)
    assert session.lap().gpu_ms == pytest.approx(0.01)


def test_what_cannot_be_captured_is_launched_plainly_and_that_is_said() -> None:
    session = open_session(SimulatedCuda(captures=False))
    assert not session.can_graph
    assert any("no CUDA graph could be captured" in remark for remark in session.remarks)
    session.use_graph(False)
    with pytest.raises(BackendError, match="no graph"):
        session.use_graph(True)


def test_whether_plain_launches_would_hold_the_gpu_up_is_known() -> None:
    assert open_session(SimulatedCuda(gpu_ms=0.1, enqueue_ms=0.2)).plain_launch_bound
    assert not open_session(SimulatedCuda(gpu_ms=0.2, enqueue_ms=0.1)).plain_launch_bound


def test_a_cold_cache_is_emptied_before_every_lap_which_is_one_inference() -> None:
    cuda = SimulatedCuda(gpu_ms=0.01)
    session = open_session(cuda, LaunchSettings(flush_bytes=100))
    before = cuda.filled
    session.lap()
    assert cuda.filled == before + 1
    assert (session.launches, cuda.launched) == (1, 1)


def test_an_engine_of_any_batch_runs_at_its_profiles_best() -> None:
    session = open_session(SimulatedCuda(), dynamic=True)
    assert session.outputs([np.ones((2, 3), np.float32)])["y"].shape == (2, 3)


def test_layers_are_timed_run_by_run_and_only_those_to_keep_are_handed_on() -> None:
    cuda = SimulatedCuda()
    handed: list[tuple[str, dict[str, list[float]]]] = []

    def describe(text: str, samples: object) -> list[NodeTime]:
        handed.append((text, dict(samples)))  # type: ignore[call-overload]
        return []

    profiled = ProfiledEngine(simulated_trt(cuda), b"", cuda, LaunchSettings(), describe)
    for _ in range(4):
        profiled.run()
    profiled.finish([2, 3])
    text, samples = handed[0]
    assert json.loads(text) == {"Layers": []}
    assert samples == {"first": [0.25, 0.25], "second": [1.25, 1.25]}
    profiled.close()
    assert not cuda.memory
