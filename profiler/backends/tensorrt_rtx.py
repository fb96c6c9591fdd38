"""TensorRT for RTX: compiles engines ahead of time for a compute capability given by name, with no GPU present."""

from pathlib import Path
from typing import Any

from lut.errors import BackendError
from lut.memory import MemoryRules
from lut.records import DeviceFingerprint
from profiler.backends.interface import (
    BackendStatus,
    BuildReport,
    BuildSettings,
    NodeTime,
    ProfiledSession,
    Session,
    Settings,
)
from profiler.backends.trt_common import build_engine, no_gpu
from profiler.backends.trt_validity import EngineCheck, check_validity
from profiler.nvml import read_gpu

INSTALL = 'pip install "latprune[tensorrt-rtx]"'
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""What TensorRT for RTX 1.7 compiles for."""
ELSEWHERE = {
    "8.7": "8.7 is Jetson Orin: build there with classic TensorRT",
    "9.0": "9.0 is Hopper: build there with classic TensorRT",
}


MEMORY = MemoryRules(packed=True, align_bytes=256, workspace_bytes=8_192_000)
"""How its compiler lays memory out on one stream (docs/memory.md); the same for every compute capability and precision.

The workspace is there as soon as one operation contracts, whatever its size.
"""


class TensorRtRtx:
    """The backend `tensorrt-rtx`; the runtime is imported when first used."""

    name = "tensorrt-rtx"

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""
        try:
            trt = _runtime()
        except BackendError as error:
            return BackendStatus(self.name, False, None, (), str(error))
        return BackendStatus(self.name, True, str(trt.__version__), ("builds",), str(self._no_timing()))

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """Refuse where nothing can be timed."""
        raise self._no_timing()

    def open(self, path: Path, settings: Settings) -> Session:
        """Refuse where nothing can be timed."""
        raise self._no_timing()

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledSession:
        """Refuse: this runtime tells no time a layer."""
        raise BackendError("TensorRT for RTX tells no time of single layers; measure units or whole networks.")

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Refuse: a table of this runtime cannot be made here yet."""
        raise self._no_timing()

    def check_engine(self, path: Path) -> EngineCheck:
        """Ask the runtime whether it can load an engine; a malformed one is found without a GPU."""
        return check_validity(_runtime(), path)

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Compile an ONNX file for the compute capabilities named (several go into one engine).

        Raises:
            BackendError: a capability cannot be compiled for, or the network cannot be read or built.
        """
        names = settings.compute_capabilities
        if not names:
            raise BackendError(f"Say what to build for: --compute-capability, one of {', '.join(CAPABILITIES)}.")
        for name in names:
            check_capability(name)
        trt = _runtime()

        def configure(config: Any) -> None:
            config.num_compute_capabilities = len(names)
            for number, name in enumerate(names):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}"), number)

        return build_engine(trt, path, out, backend=self.name, settings=settings, configure=configure)

    def _no_timing(self) -> BackendError:
        if read_gpu() is None:
            return no_gpu(self.name)
        return BackendError(
            "Timing with tensorrt-rtx is not written yet; latprune builds its engines. Measure with "
            "--backend onnxruntime."
        )


def check_capability(name: str) -> None:
    """Refuse a compute capability that cannot be compiled for.

    Raises:
        BackendError: it cannot, with the list of those that can.
    """
    if name not in CAPABILITIES:
        hint = f" ({ELSEWHERE[name]})" if name in ELSEWHERE else ""
        possible = ", ".join(CAPABILITIES)
        raise BackendError(
            f"TensorRT for RTX cannot build for compute capability {name}{hint}. Possible are {possible}."
        )


def _runtime() -> Any:
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise BackendError(f"TensorRT for RTX is not installed ({error}). Install it: {INSTALL}") from error
    return tensorrt_rtx
