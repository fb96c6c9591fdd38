"""ONNX Runtime's CUDA and TensorRT providers, as far as they can be tried without a GPU.

Where a build with these providers is needed, a stand-in answers as onnxruntime-gpu 1.31.1 was seen to without a GPU: it
lists its providers, and a session for one of them quietly comes back on the CPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lut.errors import BackendError
from profiler.backends import BuildSettings, Settings, onnxruntime_gpu
from profiler.backends.onnxruntime import OnnxRuntime, OrtSession, import_runtime
from profiler.backends.onnxruntime_gpu import ON_CUDA, ON_TENSORRT, OnnxRuntimeGpu
from profiler.backends.onnxruntime_providers import CPU, CUDA, TENSORRT, TF32_OVERRIDE, Provider, mixed_up, open_session
from profiler.nvml import GpuFacts
from tests.profiler.networks import write_conv_net

pytest.importorskip("onnxruntime")

GPU = GpuFacts("RTX 4090", "999.1", compute_capability="8.9", power_limit_w=450.0, ecc=False)


def make_runtime(started: str) -> Any:
    """A stand-in for a build with all providers, of which the one named is the one that starts."""
    asked: list[Any] = []

    def session(model: str, options: Any, providers: Any) -> Any:
        sys.stdout.write("*** EP Error *** Falling back")
        asked.extend(providers)
        return SimpleNamespace(get_providers=lambda: [started, CPU.name])

    return SimpleNamespace(
        __version__="1.31.1",
        cuda_version="13.0",
        get_available_providers=lambda: [TENSORRT.name, CUDA.name, CPU.name],
        preload_dlls=lambda: sys.stdout.write("cannot preload"),
        InferenceSession=session,
        asked=asked,
    )


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = make_runtime(CUDA.name)
    monkeypatch.setattr(onnxruntime_gpu, "import_runtime", lambda: made)
    return made


@pytest.mark.parametrize("provider", [CUDA, TENSORRT], ids=lambda provider: provider.name)
def test_a_provider_that_did_not_start_is_noticed_though_a_session_came_back(
    provider: Provider, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TF32_OVERRIDE, raising=False)
    with pytest.raises(BackendError, match=f"could not start its {provider.name} and went on with CPU.*CUDA 13"):
        open_session(make_runtime(CPU.name), "net.onnx", None, provider)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("provider", [CUDA, TENSORRT], ids=lambda provider: provider.name)
def test_a_build_without_the_provider_says_which_has_it(provider: Provider, tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    if provider.name in import_runtime().get_available_providers():
        pytest.skip("this build has the provider")
    with pytest.raises(BackendError, match=rf"has no {provider.name}.*latprune\[gpu\]"):
        OrtSession(network, Settings(), provider)


def test_nodes_that_the_gpu_cannot_run_go_to_the_processor_and_fp32_is_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TF32_OVERRIDE, "1")
    runtime = make_runtime(CUDA.name)
    open_session(runtime, "net.onnx", None, CUDA)
    (name, options), (last, _) = runtime.asked
    assert (name, last) == (CUDA.name, CPU.name)
    assert options["use_tf32"] == "0"
    assert os.environ[TF32_OVERRIDE] == "0"


def test_rows_of_providers_never_mix(runtime: Any) -> None:
    cuda = OnnxRuntimeGpu("onnxruntime-cuda", CUDA, gpu=lambda: GPU).fingerprint(1)
    tensorrt = OnnxRuntimeGpu("onnxruntime-tensorrt", TENSORRT, gpu=lambda: GPU).fingerprint(1)
    processor = OnnxRuntime().fingerprint(1)
    assert len({cuda.runtime, tensorrt.runtime, processor.runtime}) == 3
    assert len({cuda.key, tensorrt.key, processor.key}) == 3
    assert (cuda.device, cuda.compute_capability, cuda.driver) == ("RTX 4090", "8.9", "999.1")
    assert cuda.power_limit_w == 450.0
    settings = dict(cuda.settings)
    assert (settings["provider"], settings["tf32"], settings["ecc"]) == (CUDA.name, "off", False)
    assert "mig" not in settings


@pytest.mark.usefixtures("runtime")
def test_whole_networks_are_measured_and_why_nodes_are_not_is_said(tmp_path: Path) -> None:
    backend = OnnxRuntimeGpu("onnxruntime-cuda", CUDA, gpu=lambda: GPU)
    status = backend.status()
    assert status.abilities == ("measures",)
    for refuse in (backend.open_profiled, backend.kernels):
        with pytest.raises(BackendError, match="no times of single nodes"):
            refuse(tmp_path / "network.onnx", Settings())
    with pytest.raises(BackendError, match="no engine"):
        backend.build(tmp_path / "network.onnx", tmp_path / "out", BuildSettings())


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("backend", [ON_CUDA, ON_TENSORRT], ids=lambda backend: backend.name)
def test_a_machine_without_a_gpu_says_why(backend: OnnxRuntimeGpu, tmp_path: Path) -> None:
    blind = OnnxRuntimeGpu(backend.name, CUDA, gpu=lambda: "There is no driver.")
    assert blind.status().abilities == ()
    with pytest.raises(BackendError, match=f"{backend.name} needs an NVIDIA GPU. There is no driver"):
        blind.open(tmp_path / "network.onnx", Settings())
    with pytest.raises(BackendError, match="There is no driver"):
        blind.fingerprint(1)


def test_packages_that_overwrite_each_other_are_found_and_said() -> None:
    assert mixed_up([]) is None
    assert mixed_up(["onnxruntime-gpu", "numpy"]) is None
    found = mixed_up(["onnxruntime-gpu", "onnxruntime"])
    assert found is not None
    assert "onnxruntime and onnxruntime-gpu are installed over each other" in found
    assert "pip uninstall onnxruntime onnxruntime-gpu" in found


def test_the_packages_are_looked_for_where_python_finds_them(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from profiler.backends.onnxruntime import OnnxRuntime\nprint(OnnxRuntime().status().why_not)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "installed over each other" in done.stdout
