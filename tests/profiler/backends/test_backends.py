"""Every runtime: what it says of itself, and how it refuses. Those that are here also build or run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lut.errors import BackendError
from profiler.backends import BACKENDS, Backend, BuildSettings, Settings, get_backend, statuses
from tests.profiler.networks import INPUT_SHAPE, write_conv_net, write_int_net

MODULES = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "onnxruntime-tensorrt": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "openvino": "openvino",
}
MEASURING = [backend for backend in BACKENDS if "measures" in backend.status().abilities]


def test_importing_the_backends_imports_no_runtime() -> None:
    heavy = {"torch", "onnx", "pynvml", *MODULES.values()}
    script = f"import sys, profiler.backends, profiler.worker_client; assert not {heavy!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_backend_has_one_status_under_its_name() -> None:
    assert [status.name for status in statuses()] == [backend.name for backend in BACKENDS] == list(MODULES)
    for status in statuses():
        assert status.abilities or status.why_not
        assert status.installed == (status.version is not None)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        BackendError, match=r"'tflite'.*onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, "
    ):
        get_backend("tflite")


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_runtime_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    with pytest.raises(BackendError, match="pip install"):
        get_backend(name)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_what_cannot_be_done_here_is_refused_in_words(backend: Backend, tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    abilities = backend.status().abilities
    if "measures" not in abilities:
        with pytest.raises(BackendError):
            backend.open(network, Settings())
        with pytest.raises(BackendError):
            backend.fingerprint(1)
    if "times nodes" not in abilities:
        with pytest.raises(BackendError):
            backend.open_profiled(network, Settings())
    if "builds" not in abilities:
        with pytest.raises(BackendError):
            backend.build(network, tmp_path / "engine", BuildSettings(("8.6",)))
        assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("backend", MEASURING, ids=lambda backend: backend.name)
def test_a_network_runs_on_inputs_of_its_own_types(backend: Backend, tmp_path: Path) -> None:
    for network in (write_conv_net(tmp_path / "a.onnx"), write_int_net(tmp_path / "b.onnx")):
        session = backend.open(network, Settings())
        session.run()
        session.close()


@pytest.mark.parametrize("backend", MEASURING, ids=lambda backend: backend.name)
def test_a_run_gives_the_same_outputs_again(backend: Backend, tmp_path: Path) -> None:
    session = backend.open(write_conv_net(tmp_path / "network.onnx"), Settings())
    values = np.random.default_rng(0).standard_normal(INPUT_SHAPE).astype(np.float32)
    first = session.outputs([values])
    session.run()
    assert np.array_equal(first["y"], session.outputs({"x": values})["y"])
    session.close()


@pytest.mark.parametrize("backend", MEASURING, ids=lambda backend: backend.name)
def test_the_fingerprint_depends_on_the_threads(backend: Backend) -> None:
    one, two = backend.fingerprint(1), backend.fingerprint(2)
    assert [name for name, _, _ in one.differences(two)] == ["threads"]
    assert one.runtime == backend.name
