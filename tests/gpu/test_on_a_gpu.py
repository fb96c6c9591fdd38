"""What only a GPU can show. Nothing here has been run yet: docs/unverified.md; `make gpu` runs it."""

from pathlib import Path

import numpy as np
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.backends import BuildSettings, Settings, get_backend, statuses
from profiler.engine_check import check_engine
from profiler.gpu_watch import GpuWatch
from profiler.network import analyze
from profiler.nvml import Gpu, GpuFacts, find_gpu, open_gpu
from profiler.profile import ProfileConfig, profile
from profiler.worker_client import WorkerClient
from tests.profiler.networks import INPUT_SHAPE, write_conv_net
from tests.pruner.example_task import SmallNet, example_inputs

FOUND = find_gpu()
CONFIG = MeasureConfig(warmup_s=0.1, min_time_s=0.2, max_time_s=2.0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(isinstance(FOUND, str), reason=f"needs an NVIDIA GPU: {FOUND}"),
]
NAMES = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt")


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """Each runtime that uses a GPU; one that is not installed is a test that did not run."""
    name: str = request.param
    status = next(status for status in statuses() if status.name == name)
    if "measures" not in status.abilities:
        pytest.skip(f"{name}: {status.why_not}")
    return name


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_conv_net(tmp_path / "network.onnx")


@pytest.fixture
def engine(network: Path, tmp_path: Path) -> Path:
    """An engine of TensorRT for RTX for the GPU that is here."""
    assert isinstance(FOUND, GpuFacts)
    assert FOUND.compute_capability is not None
    out = tmp_path / "network.engine"
    try:
        get_backend("tensorrt-rtx").build(network, out, BuildSettings((FOUND.compute_capability,)))
    except BackendError as error:
        pytest.skip(str(error))
    return out


def test_the_gpu_tells_its_name_driver_and_capability() -> None:
    assert isinstance(FOUND, GpuFacts)
    assert FOUND.name
    assert FOUND.driver
    assert FOUND.compute_capability is not None


def test_a_window_of_time_tells_clocks_and_throttling_and_loses_no_gpu() -> None:
    with open_gpu() as gpu:
        assert isinstance(gpu, Gpu)
        watch = GpuWatch(gpu.read)
        watch.begin()
        watch.look()
        window = watch.end()
    assert window.failure is None
    assert window.looks == 3
    assert window.sm_mhz_max is None or window.sm_mhz_max > 0
    assert all(spent >= 0 for _, spent in window.throttled_us)


def test_outputs_on_the_gpu_are_the_processors(backend: str, network: Path) -> None:
    values = np.random.default_rng(0).standard_normal(INPUT_SHAPE).astype(np.float32)
    with WorkerClient(backend) as there, WorkerClient("onnxruntime") as here:
        found, wanted = there.outputs(network, [values]), here.outputs(network, [values])
    assert found.failure is None
    scale = np.abs(wanted.outputs["y"]).max()
    assert np.abs(found.outputs["y"] - wanted.outputs["y"]).max() <= 1e-3 * scale


def test_a_network_has_a_time_and_a_fingerprint(backend: str, network: Path) -> None:
    with WorkerClient(backend) as worker:
        timed = worker.time(network, CONFIG)
        fingerprint = worker.fingerprint()
    assert timed.failure is None
    assert timed.median_ms is not None
    assert timed.median_ms > 0
    assert fingerprint.runtime == backend
    assert fingerprint.driver


def test_layers_add_up_to_the_whole_on_classic_tensorrt(network: Path) -> None:
    status = get_backend("tensorrt").status()
    if "times nodes" not in status.abilities:
        pytest.skip(f"tensorrt: {status.why_not}")
    with WorkerClient("tensorrt") as worker:
        reply = worker.nodes(network, CONFIG, runs=50)
    assert reply.failure is None
    assert reply.nodes
    assert all(node.ms >= 0 for node in reply.nodes)


@pytest.mark.parametrize("backend", [name for name in NAMES if name != "tensorrt"], indirect=True)
def test_units_in_packed_copies_fill_a_table_where_no_layers_are_timed(backend: str, tmp_path: Path) -> None:
    network = analyze(SmallNet().eval(), example_inputs())
    config = ProfileConfig(networks_min=3, networks_max=3, target_error=0.0)
    report = profile(network, tmp_path / "t.db", backend=backend, config=config)
    assert report.packed is not None
    assert report.packed.failed == 0, str(report.packed)
    assert report.predicted_ms is not None
    assert report.predicted_ms > 0


def test_an_engine_for_this_gpu_runs_here_and_a_damaged_one_does_not(engine: Path) -> None:
    assert check_engine("tensorrt-rtx", engine).verdict == "runs here"
    with WorkerClient("tensorrt-rtx") as worker:
        assert worker.time(engine, CONFIG).failure is None
    engine.write_bytes(engine.read_bytes()[:-100])
    assert check_engine("tensorrt-rtx", engine).verdict == "malformed"


def test_an_engine_for_another_gpu_is_refused_in_words(network: Path, tmp_path: Path) -> None:
    assert isinstance(FOUND, GpuFacts)
    other = "8.6" if FOUND.compute_capability != "8.6" else "12.0"
    out = tmp_path / "other.engine"
    get_backend("tensorrt-rtx").build(network, out, BuildSettings((other,)))
    check = check_engine("tensorrt-rtx", out)
    assert check.verdict == "does not run here"
    assert any("compute capability" in reason for reason in check.reasons)


def test_a_session_closes_and_opens_again(backend: str, network: Path) -> None:
    for _ in range(2):
        session = get_backend(backend).open(network, Settings())
        session.run()
        session.close()
