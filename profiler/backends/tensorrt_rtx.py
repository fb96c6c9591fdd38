"""TensorRT for RTX: compiles engines ahead of time for a compute capability given by name, with no GPU present."""

from pathlib import Path
from typing import Any

from lut.errors import BackendError
from lut.memory import MemoryRules
from lut.records import DeviceFingerprint
from profiler.backends.cuda import open_cuda
from profiler.backends.interface import (
    BackendStatus,
    BuildReport,
    BuildSettings,
    NodeTime,
    ProfiledSession,
    Settings,
)
from profiler.backends.trt_common import build_engine, no_gpu
from profiler.backends.trt_opening import Opener
from profiler.backends.trt_session import EngineSession
from profiler.backends.trt_validity import EngineCheck, check_validity
from profiler.nvml import read_gpu
from profiler.progress import Progress

INSTALL = 'pip install "latprune[tensorrt-rtx]"'
NO_LAYERS = (
    "TensorRT for RTX tells no time of single layers: latprune profile times units in packed copies, and whole "
    "networks set them right."
)
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""What TensorRT for RTX 1.7 compiles for."""
CLASSIC = (
    "Build on that machine with classic TensorRT: latprune export RUN/ --backend tensorrt there, or trtexec on the "
    "ONNX file of latprune export RUN/ --backend onnxruntime --precision …"
)
ELSEWHERE = {
    "8.7": f"8.7 is Jetson Orin. {CLASSIC}",
    "9.0": f"9.0 is Hopper. {CLASSIC}",
    "10.0": f"10.0 is Blackwell for data centres. {CLASSIC}",
    "10.3": f"10.3 is Blackwell for data centres. {CLASSIC}",
    "11.0": f"11.0 is Jetson Thor. {CLASSIC}",
}
OLDEST = 7.5
"""Older devices are served by no TensorRT that is kept up."""


MEMORY = MemoryRules(packed=True, align_bytes=128, granule_bytes=512, workspace_bytes=8_192_000)
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
        version = str(trt.__version__)
        if read_gpu() is None:
            return BackendStatus(self.name, True, version, ("builds",), str(no_gpu(self.name)))
        try:
            open_cuda()
        except BackendError as error:
            return BackendStatus(self.name, True, version, ("builds",), str(error))
        return BackendStatus(self.name, True, version, ("builds", "measures"), NO_LAYERS)

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """This GPU, the runtime's version, and all settings that change an engine or its times."""
        return self._opener().fingerprint()

    def open(self, path: Path, settings: Settings) -> EngineSession:
        """Load an ONNX file (compiled first, for the GPU that is here) or an engine to be timed and run."""
        return self._opener().open(path, settings)

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledSession:
        """Refuse: this runtime tells no time a layer."""
        raise BackendError(NO_LAYERS)

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Refuse: a table of times in place cannot be made with this runtime."""
        raise BackendError(NO_LAYERS)

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
            _target(trt, config, names)

        return build_engine(trt, path, out, backend=self.name, settings=settings, configure=configure)

    def _opener(self) -> Opener:
        trt = _runtime()
        if read_gpu() is None:
            raise no_gpu(self.name)
        here = open_cuda().facts().compute_capability

        def build(path: Path, out: Path, cache: Path | None, progress: Progress) -> BuildReport:
            return self.build(
                path, out, BuildSettings((here,), progress=progress)
            )  # kernels are chosen when it is loaded, not now

        def configure(config: Any) -> None:
            _target(trt, config, (here,))

        return Opener(self.name, trt, build, configure, "tensorrt_rtx")


def _target(trt: Any, config: Any, names: tuple[str, ...]) -> None:
    """Compile for these compute capabilities."""
    config.num_compute_capabilities = len(names)
    for number, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}"), number)


def check_capability(name: str) -> None:
    """Refuse a compute capability that cannot be compiled for.

    Raises:
        BackendError: it cannot, with the list of those that can.
    """
    if name in CAPABILITIES:
        return
    try:
        old = float(name) < OLDEST
    except ValueError:
        old = False
    if name in ELSEWHERE:
        hint = ELSEWHERE[name]
    elif old:
        hint = "Devices before Turing (7.5) are served by none that is kept up: deploy the ONNX file there."
    else:
        hint = "No device is known that has it; developer.nvidia.com/cuda-gpus lists them."
    raise BackendError(
        f"TensorRT for RTX cannot build for compute capability {name}. {hint} Possible are {', '.join(CAPABILITIES)}."
    )


def _runtime() -> Any:
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise BackendError(f"TensorRT for RTX is not installed ({error}). Install it: {INSTALL}") from error
    return tensorrt_rtx
