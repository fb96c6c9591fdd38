"""ONNX Runtime on an NVIDIA GPU, through its CUDA or its TensorRT provider: whole networks only.

The CUDA provider tells times of kernels only in builds made for it, and the TensorRT provider runs a subgraph as one
node: units are timed there as differences of whole networks, or not at all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lut.errors import BackendError
from lut.records import Attribute, DeviceFingerprint
from profiler.backends.interface import BackendStatus, BuildReport, BuildSettings, NodeTime, ProfiledSession, Settings
from profiler.backends.onnxruntime import OrtSession, import_runtime
from profiler.backends.onnxruntime_providers import CUDA, TENSORRT, Provider, missing, mixed_up
from profiler.device import affinity
from profiler.nvml import GpuFacts, find_gpu

NO_NODES = (
    "ONNX Runtime tells no times of single nodes on a GPU: with {name}, latprune profile times units in packed copies, "
    "and whole networks set them right; --backend tensorrt times them in place."
)
QUANTITY = "one synchronised run seen from the processor; inputs and outputs stay on the GPU"


class OnnxRuntimeGpu:
    """The backends `onnxruntime-cuda` and `onnxruntime-tensorrt`, whose rows mix with no other's."""

    def __init__(self, name: str, provider: Provider, *, gpu: Callable[[], GpuFacts | str] = find_gpu) -> None:
        self._name, self._provider, self._gpu = name, provider, gpu

    @property
    def name(self) -> str:
        """As in `--backend`."""
        return self._name

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""
        try:
            runtime = import_runtime()
        except BackendError as error:
            return BackendStatus(self.name, False, None, (), str(error))
        version = str(runtime.__version__)
        if self._provider.name not in runtime.get_available_providers():
            return BackendStatus(self.name, False, None, (), mixed_up() or missing(runtime, self._provider))
        gpu = self._gpu()
        if isinstance(gpu, str):
            return BackendStatus(self.name, True, version, (), f"{self.name} needs an NVIDIA GPU. {gpu}")
        return BackendStatus(self.name, True, version, ("measures",), mixed_up() or NO_NODES.format(name=self.name))

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """This GPU, its driver, and ONNX Runtime's version and settings.

        Raises:
            BackendError: there is no such provider or GPU here.
        """
        runtime = self._usable()
        gpu = self._gpu()
        if isinstance(gpu, str):
            raise BackendError(f"{self.name} needs an NVIDIA GPU. {gpu}")
        told = {"ecc": gpu.ecc, "mig": gpu.mig, "mps": gpu.mps, "power_mode": gpu.power_mode}
        settings: tuple[Attribute, ...] = (
            ("affinity", affinity()),
            ("cuda", str(getattr(runtime, "cuda_version", "") or "unknown")),
            ("execution", "sequential"),
            ("inter_op_threads", 1),
            ("optimisation", "all"),
            ("provider", self._provider.name),
            ("quantity", QUANTITY),
            ("tf32", "off"),
            *self._provider.options,
            *((key, value) for key, value in told.items() if value is not None),
        )
        return DeviceFingerprint(
            device=gpu.name,
            runtime=self.name,
            runtime_version=str(runtime.__version__),
            compute_capability=gpu.compute_capability,
            driver=gpu.driver or None,
            threads=threads,
            power_limit_w=gpu.power_limit_w,
            settings=tuple(sorted(settings)),
        )

    def open(self, path: Path, settings: Settings) -> OrtSession:
        """Load an ONNX file to be timed and run, its inputs and outputs on the GPU."""
        self._usable()
        return OrtSession(path, settings, self._provider)

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledSession:
        """Refuse: no times of nodes are told on a GPU."""
        self._usable()
        raise BackendError(NO_NODES.format(name=self.name))

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Refuse: what runs on a GPU is not told."""
        self._usable()
        raise BackendError(NO_NODES.format(name=self.name))

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Refuse: ONNX Runtime runs ONNX files as they are."""
        raise BackendError("ONNX Runtime runs ONNX files as they are; there is no engine to build. Use the ONNX file.")

    def _usable(self) -> Any:
        status = self.status()
        if "measures" not in status.abilities:
            raise BackendError(status.why_not or f"{self.name} cannot be used here.")
        return import_runtime()


ON_CUDA = OnnxRuntimeGpu("onnxruntime-cuda", CUDA)
ON_TENSORRT = OnnxRuntimeGpu("onnxruntime-tensorrt", TENSORRT)
