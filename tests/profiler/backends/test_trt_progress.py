"""How far a build is: from phases as TensorRT for RTX reports them, and through the worker."""

from pathlib import Path

import pytest

from profiler.backends.interface import BuildSettings
from profiler.backends.trt_progress import PARTS, BuildProgress
from profiler.progress import Event
from profiler.worker_client import WorkerClient
from tests.profiler.networks import write_conv_net


def test_nested_phases_make_one_fraction_that_never_goes_back() -> None:
    events: list[Event] = []
    build = BuildProgress("compile x", events.append)
    build.start("whole", None, 4)
    build.step("whole", 0)
    build.start("part", "whole", 2)
    build.step("part", 0)
    build.step("part", 1)
    build.finish("part")
    build.start("again", "whole", 10)
    build.step("whole", 1)
    build.finish("whole")
    done = [event.done for event in events]
    assert done == [PARTS // 4, PARTS * 3 // 8, PARTS // 2, PARTS]
    assert {event.stage for event in events} == {"compile x"}


def test_phases_that_are_unknown_or_end_early_are_no_error() -> None:
    events: list[Event] = []
    build = BuildProgress("compile x", events.append)
    build.step("never started", 3)
    build.finish("never started")
    build.start("whole", None, 0)
    build.step("whole", 7)
    build.finish("whole")
    assert events[-1].done == PARTS


def test_a_real_build_tells_how_far_it_is_and_the_worker_hands_it_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    events: list[Event] = []
    network = write_conv_net(tmp_path / "network.onnx", linear=False)
    with WorkerClient("tensorrt-rtx", progress=events.append) as worker:
        reply = worker.build(network, tmp_path / "network.engine", BuildSettings(("8.6",)))
    assert reply.failure is None
    done = [event.done for event in events]
    assert done == sorted(set(done))
    assert done[-1] == events[-1].total == PARTS
    assert len(done) > 10
    assert events[0].stage == "compile network.onnx"
